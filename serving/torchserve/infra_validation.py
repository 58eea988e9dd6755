"""Infra validation: prove on a throw-away TorchServe that an archive can be served, before it is released."""

from __future__ import annotations

import json
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from common.digests import file_digest
from serving.answering.golden import GoldenRequests, ReplayReport
from serving.archive.build import ArchiveProvenance
from serving.errors import ServingError
from serving.torchserve.server import TorchServe
from serving.torchserve.versions import register_and_wait, replay_on_server

BAD_REQUESTS: dict[str, bytes] = {
    "no body": b"",
    "not JSON": b"recommend me something",
    "not UTF-8": b'{"history": ["\xff\xfe"]}',
    "not an object": b"[]",
    "deeply nested": b"[" * 50_000,
    "history is no list": b'{"history": "50"}',
    "history of objects": b'{"history": [{"item": 50}]}',
    "k is zero": b'{"history": [], "k": 0}',
    "k is a word": b'{"history": [], "k": "ten"}',
    "k is huge": b'{"history": [], "k": 1000000000000}',
    "k is NaN": b'{"history": [], "k": NaN}',
    "thinking is negative": b'{"history": [], "thinking": -1}',
    "exclude is no list": b'{"history": [], "exclude": 7}',
}


class InfraValidationError(ServingError):
    """The archive cannot be served as it was evaluated; the message is the reason."""


class InfraReport(BaseModel):
    """What an infra validation proved; a release keeps it as infra.json."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    release: str
    """Full digest of the release that every answer named."""
    version: str
    """Its model version in TorchServe."""
    archive_sha256: str
    """Digest of the archive; no other archive of the release may be deployed."""
    provenance: ArchiveProvenance
    """What the archive's bytes follow from besides the bundle."""
    replay: ReplayReport
    """The golden requests and the latency of single requests."""
    bad_requests_refused: int
    """Malformed requests that got status 400 and a sentence."""
    server_start_s: float
    """Seconds until the server's APIs answered."""
    model_ready_s: float
    """Seconds from then until a worker had loaded the model."""

    def summary(self) -> str:
        """The report in a sentence."""
        return (
            f"Release {self.release[:12]} can be served as archive {self.archive_sha256[:12]}: "
            f"{self.replay.sentence()}, p99 {self.replay.p99_ms:g} ms."
        )


def infra_validate(archive: Path, golden: Path, release: str, work_dir: Path) -> InfraReport:
    """Serve an archive on free loopback ports, replay the golden requests, send bad ones, stop.

    The server's logs stay in `work_dir`. Raises InfraValidationError with the reason, whatever it is.
    """
    try:
        requests = GoldenRequests.read(golden)
        TorchServe.stop(work_dir)  # left behind by a validation that was killed
        started = time.monotonic()
        server = TorchServe.start(work_dir)
        up = time.monotonic()
        info = register_and_wait(server, archive)
        ready = time.monotonic()
        report = replay_on_server(server.client, requests, release, info.version)
        if not report.passed:
            raise InfraValidationError(f"{archive.name} does not answer as evaluated: {report.sentence()}.")
        for name, body in BAD_REQUESTS.items():
            reply = server.client.send(body, info.version)
            if reply.status_code != 400:
                raise InfraValidationError(
                    f"A bad request ({name}) was answered with {reply.status_code}, expected 400."
                )
            try:
                sentence = json.loads(reply.content)["error"]
            except (ValueError, KeyError, TypeError):
                sentence = ""
            if not sentence:
                raise InfraValidationError(
                    f"A bad request ({name}) was refused without a sentence that says why."
                )
        if not replay_on_server(server.client, requests, release, info.version, samples=0).passed:
            raise InfraValidationError(f"{archive.name} answers differently after it was sent bad requests.")
    except InfraValidationError:
        raise
    except ServingError as error:
        raise InfraValidationError(f"{archive.name} cannot be served: {error}") from error
    finally:
        TorchServe.stop(work_dir)
    return InfraReport(
        release=release,
        version=info.version,
        archive_sha256=file_digest(archive),
        provenance=info.provenance,
        replay=report,
        bad_requests_refused=len(BAD_REQUESTS),
        server_start_s=round(up - started, 2),
        model_ready_s=round(ready - up, 2),
    )
