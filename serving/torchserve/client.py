"""TorchServe's HTTP APIs: predictions and the management of model versions. Expired keys are renewed."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import requests
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_result,
    stop_after_delay,
    wait_exponential_jitter,
)

from common.files import read_json_object
from serving.archive.build import MODEL_NAME
from serving.errors import RequestRefusedError, ServingError
from serving.torchserve.config import LOOPBACK, Ports
from serving.torchserve.state_dir import StateDir, write_private

logger = logging.getLogger(__name__)
CONNECT_SECONDS = 5
ANSWER_SECONDS = 30  # TorchServe can lose a request that it holds at the instant its worker dies
MANAGEMENT_SECONDS = 120
RENEW_BEFORE = timedelta(minutes=1)
REFUSED = 400
BUSY = 503
LOST = (500, 507)
BACK_OFF = wait_exponential_jitter(multiplier=0.1, max=2, jitter=0.1)
BUSY_SECONDS = 15  # how long a request is sent again if the queue is full or its worker died
WORKER_DIED = "Worker died."  # TorchServe's words, under status 500 or 507


@dataclass(frozen=True)
class ModelStatus:
    """One registered version of the model."""

    ready_workers: int
    pending: int
    """Requests that wait in its queue."""
    workers: tuple[int, ...] = ()
    """Process ids; 0 or less for a worker that has not started yet."""


class Client:
    """Talks to one server on loopback. The keys come from its state folder and go nowhere else."""

    def __init__(self, state: StateDir, ports: Ports) -> None:
        self.state = state
        self.ports = ports
        self.prediction_url = f"http://{LOOPBACK}:{ports.inference}/predictions/{MODEL_NAME}"
        """The URL of the default version."""
        self._session = requests.Session()
        self._session.trust_env = False  # loopback traffic must not go through a proxy or use ~/.netrc

    def predict(self, request: Mapping[str, Any], version: str | None = None) -> dict[str, Any]:
        """Ask for recommendations. If the server is busy or its worker died, ask again for BUSY_SECONDS.

        Raises:
            RequestRefusedError: the server answers with anything but 200, or stays busy.
            ServingError: it cannot be reached, or refuses its own key.
        """
        retrying = Retrying(
            # Of the lost requests, an error of the handler has another sentence.
            retry=retry_if_result(
                lambda reply: (
                    reply.status_code == BUSY
                    or (reply.status_code in LOST and _sentence(reply) == WORKER_DIED)
                )
            ),
            wait=_retry_delay,
            stop=stop_after_delay(BUSY_SECONDS),
            retry_error_callback=lambda call: call.outcome.result() if call.outcome else None,
        )
        reply = retrying(self.send, json.dumps(request).encode(), version)
        if reply.status_code == BUSY:
            raise RequestRefusedError(
                BUSY,
                f"The server had no room in its queue, or no worker, for {BUSY_SECONDS} s: "
                f"{_sentence(reply)}",
            )
        if reply.status_code != requests.codes.ok:
            raise RequestRefusedError(reply.status_code, _sentence(reply))
        answer: dict[str, Any] = reply.json()
        return answer

    def send(self, body: bytes, version: str | None = None) -> requests.Response:
        """Post a raw body to the default version, or to a named one, and return whatever comes back."""
        url = self.prediction_url if version is None else f"{self.prediction_url}/{version}"
        headers = {"Content-Type": "application/json"}
        return self._call("POST", url, "inference", ANSWER_SECONDS, data=body, headers=headers)

    def ping(self) -> bool:
        """Whether the front end answers; this says nothing about the model."""
        url = f"http://{LOOPBACK}:{self.ports.inference}/ping"
        return self._call("GET", url, "inference", CONNECT_SECONDS).status_code == requests.codes.ok

    def register(self, archive_name: str) -> None:
        """Register an archive of the model store and start its workers, without waiting for them."""
        # In its `synchronous` mode, the default, it would wait in a thread that half its connections share.
        self._manage("POST", "", {"url": archive_name, "model_name": MODEL_NAME, "synchronous": "false"})

    def versions(self) -> dict[str, ModelStatus]:
        """All registered versions by name; empty if there is none."""
        return {
            row["modelVersion"]: ModelStatus(
                ready_workers=sum(worker["status"] == "READY" for worker in row["workers"]),
                pending=int(row.get("jobQueueStatus", {}).get("pendingRequests", 0)),
                workers=tuple(worker["pid"] for worker in row["workers"]),
            )
            for row in self._manage("GET", f"/{MODEL_NAME}/all", missing=[])
        }

    def default_version(self) -> str | None:
        """The version that answers requests that name none."""
        rows = self._manage("GET", f"/{MODEL_NAME}", missing=[])
        return str(rows[0]["modelVersion"]) if rows else None

    def set_default(self, version: str) -> None:
        """Let this version answer from now on."""
        self._manage("PUT", f"/{MODEL_NAME}/{version}/set-default")

    def unregister(self, version: str) -> None:
        """Remove a version and end its workers."""
        self._manage("DELETE", f"/{MODEL_NAME}/{version}")

    def refresh_header(self) -> None:
        """Write the header file that people's curl reads; renew the key first if it is about to expire."""
        self._renew_if_expiring("inference")
        self._write_header()

    def _manage(
        self, verb: str, path: str, params: Mapping[str, Any] | None = None, missing: Any = None
    ) -> Any:
        """Call the management API and return its JSON; `missing` for a 404, if it is given."""
        url = f"http://{LOOPBACK}:{self.ports.management}/models{path}"
        reply = self._call(verb, url, "management", MANAGEMENT_SECONDS, params=params)
        if reply.status_code == requests.codes.not_found and missing is not None:
            return missing
        if not reply.ok:
            raise RequestRefusedError(reply.status_code, f"{verb} /models{path}: {_sentence(reply)}")
        return reply.json()

    def _call(self, verb: str, url: str, key: str, seconds: int, **arguments: Any) -> requests.Response:
        """Send a request with its key; if the key is refused, renew it and try once more."""
        reply = self._call_once(verb, url, key, seconds, **arguments)
        if _key_refused(reply):
            self._renew_if_expiring(key)
            reply = self._call_once(verb, url, key, seconds, **arguments)
        if _key_refused(reply):
            raise ServingError(
                f"TorchServe refuses the {key} token in {self.state.keys}; stop and start the server."
            )
        return reply

    def _call_once(self, verb: str, url: str, key: str, seconds: int, **arguments: Any) -> requests.Response:
        headers = arguments.pop("headers", {}) | {"Authorization": f"Bearer {self._key_entry(key)}"}
        try:
            return self._session.request(
                verb, url, headers=headers, timeout=(CONNECT_SECONDS, seconds), **arguments
            )
        except requests.Timeout as error:
            raise ServingError(f"TorchServe did not answer {verb} {url} within {seconds} s.") from error
        except requests.ConnectionError as error:
            raise ServingError(f"TorchServe does not listen on {url}: it is down or starting.") from error

    def _renew_if_expiring(self, key: str) -> None:
        expiry = datetime.fromisoformat(self._key_entry(key, "expiration time"))
        if expiry - datetime.now(UTC) >= RENEW_BEFORE:
            return
        url = f"http://{LOOPBACK}:{self.ports.management}/token"
        reply = self._call_once("GET", url, "API", CONNECT_SECONDS, params={"type": key})
        if not reply.ok:
            raise ServingError(f"The expired {key} token could not be renewed: {_sentence(reply)}")
        if key == "inference":
            try:
                self._write_header()
            except ServingError as error:  # the key itself was renewed, and this client has it
                logger.warning("The header file holds an old key: %s", error)

    def _write_header(self) -> None:
        header = f"Authorization: Bearer {self._key_entry('inference')}\n"
        if not self.state.header.is_file() or self.state.header.read_text() != header:
            write_private(self.state.header, header)

    def _key_entry(self, kind: str, field: str = "key") -> str:
        if not self.state.keys.is_file():
            raise ServingError(f"There are no keys in {self.state.keys}: the server is not running.")
        keys = read_json_object(self.state.keys, ServingError, "stop and start the server")
        try:
            return str(keys[kind][field])
        except (KeyError, TypeError) as error:
            raise ServingError(f"{self.state.keys} is damaged; stop and start the server.") from error


def _retry_delay(call: RetryCallState) -> float:
    """Seconds before the next attempt: what Retry-After says, else an exponential back-off."""
    header = call.outcome.result().headers.get("Retry-After", "") if call.outcome else ""
    return float(header) if header.isdecimal() else BACK_OFF(call)


def _key_refused(reply: requests.Response) -> bool:
    return reply.status_code == REFUSED and "InvalidKeyException" in reply.text


def _sentence(reply: requests.Response) -> str:
    """The server's own words, from our handler's `error` or TorchServe's `message`."""
    try:
        body = reply.json()
        return str(body.get("error") or body.get("message") or body)
    except (ValueError, AttributeError):
        return reply.text.strip()[:200] or f"HTTP {reply.status_code}"
