"""Hands the pipeline to Kubeflow Pipelines, for one run or for a run at every time of a schedule."""

from __future__ import annotations

import contextlib
import enum
import io
import json
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kfp_server_api
import urllib3
from kfp import Client, compiler
from kfp.client import set_volume_credentials as volume
from kfp.dsl.graph_component import GraphComponent

from common.errors import UserError

IN_CLUSTER = Path("/var/run/secrets/kubeflow/pipelines/token")  # where Kubeflow projects it into notebooks


class AccessError(UserError, ValueError):
    """What proves who asks is missing or can't be read; the message is one sentence."""


class Auth(enum.StrEnum):
    """Ways to prove who asks.

    none: nothing, as behind a forwarded port; a kubeconfig counts where no host is given.
    token: a bearer token, of a service account or of an identity provider.
    in-cluster: the token that Kubernetes projects into a pod, read anew as it is renewed.
    session: the cookie of a browser's session, where a multi-user Kubeflow has no other way in.
    """

    NONE = "none"
    TOKEN = "token"  # noqa: S105 - a name
    IN_CLUSTER = "in-cluster"
    SESSION = "session"


@dataclass(frozen=True)
class Access:
    """How to prove who asks. Secrets come from the environment or from a file, never from a command line.

    Attributes:
        secret: the token or the cookie ("authservice_session=..." or "oauth2_proxy_kubeflow=...").
        file: a file that holds it instead; of a projected token, where it is not at its usual place.
        ca: certificates that the server's must come from; empty for the system's.
    """

    auth: Auth = Auth.NONE
    secret: str = ""
    file: Path | None = None
    ca: str = ""

    @classmethod
    def of(cls, auth: Auth | None, token: str, cookie: str, file: Path | None, ca: str) -> Access:
        """What a command line and its environment say; a token alone is a way to prove who asks."""
        auth = auth or (Auth.TOKEN if token else Auth.NONE)
        return cls(auth, cookie if auth is Auth.SESSION else token, file, ca)

    def options(self) -> dict[str, Any]:
        """What kfp's client takes.

        Raises:
            AccessError: no token or cookie was given, or its file can't be read or is empty.
        """
        given: dict[str, Any] = {"ssl_ca_cert": self.ca} if self.ca else {}
        if self.auth is Auth.TOKEN:
            return given | {"existing_token": self._secret("KF_PIPELINES_TOKEN")}
        if self.auth is Auth.SESSION:
            return given | {"cookies": self._secret("KF_PIPELINES_COOKIE")}
        if self.auth is Auth.IN_CLUSTER:
            path = self.file or IN_CLUSTER
            _read(path)  # now, and not where the client first needs it
            return given | {"credentials": volume.ServiceAccountTokenVolumeCredentials(str(path))}
        return given

    def _secret(self, variable: str) -> str:
        found = _read(self.file) if self.file else self.secret
        if not found:
            raise AccessError(
                f"--auth {self.auth} needs {variable} in the environment, or --secret-file with a file that "
                "holds it."
            )
        return found


def _read(path: Path) -> str:
    try:
        found = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise AccessError(
            f"{path} can't be read ({type(error).__name__}): it should hold what proves who asks."
        ) from error
    if not found or "\n" in found:
        raise AccessError(f"{path} should hold one line, the token or the cookie.")
    return found


class SubmitError(UserError, RuntimeError):
    """The pipeline was not handed over; the message is one sentence that says why."""


@dataclass(frozen=True)
class Schedule:
    """When a pipeline runs by itself: one run at a time, and times that were missed are not made up for.

    Attributes:
        name: of the recurring run; one of the same name in the experiment is replaced.
        cron: six fields, seconds first, such as "0 0 3 * * *": every night at three (UTC).
    """

    name: str
    cron: str


@dataclass(frozen=True)
class Kubeflow:
    """Which Kubeflow Pipelines to talk to, and as whom.

    Attributes:
        host: URL of the API; empty finds it in the cluster or in the kubeconfig.
        namespace: the profile's namespace in a multi-user Kubeflow.
        access: how to prove who asks.
        service_account: what the steps run as; empty for Kubeflow's default.
    """

    host: str
    namespace: str
    access: Access = field(default_factory=Access)
    service_account: str = ""

    def submit(self, pipeline: GraphComponent, arguments: Mapping[str, Any], experiment: str) -> str:
        """Start a run of a pipeline and return its id.

        Raises:
            SubmitError: there is no cluster, it does not answer, or it refuses.
            AccessError: what proves who asks can't be read.
        """
        with self._client() as client:
            run = client.create_run_from_pipeline_func(
                pipeline,
                dict(arguments),
                experiment_name=experiment,
                namespace=self.namespace,
                service_account=self.service_account or None,
            )
        return str(run.run_id)

    def schedule(
        self, pipeline: GraphComponent, arguments: Mapping[str, Any], experiment: str, when: Schedule
    ) -> str:
        """Put a recurring run in place of those of its name and return its id.

        The new one is there before the old ones go: a killed command leaves two, and running it again one.

        Raises:
            SubmitError: there is no cluster, it does not answer, or it refuses.
            AccessError: what proves who asks can't be read.
        """
        with self._client() as client, tempfile.TemporaryDirectory() as place:
            package = Path(place) / "pipeline.yaml"
            compiler.Compiler().compile(pipeline, str(package))
            filed = client.create_experiment(experiment, namespace=self.namespace).experiment_id
            old = _recurring(client, filed, when.name)
            made = client.create_recurring_run(
                filed,
                when.name,
                cron_expression=when.cron,
                max_concurrency=1,
                no_catchup=True,
                params=dict(arguments),
                pipeline_package_path=str(package),
                service_account=self.service_account or None,
            )
            for one in old:
                client.delete_recurring_run(one)
        return str(made.recurring_run_id)

    @contextlib.contextmanager
    def _client(self) -> Iterator[Client]:
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")  # the client warns of backends older than any in use
                yield Client(host=self.host or None, namespace=self.namespace, **self.access.options())
        except kfp_server_api.ApiException as error:
            raise SubmitError(f"Kubeflow at {self._name()} refused: {_reason(error)}") from error
        except (urllib3.exceptions.HTTPError, OSError, TimeoutError) as error:
            raise SubmitError(
                f"No Kubeflow Pipelines answers at {self._name()}; check --host, or forward its port with "
                "'kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80'."
            ) from error

    def _name(self) -> str:
        return self.host or "its default address (no --host was given)"


def _recurring(client: Client, experiment: str, name: str) -> list[str]:
    """Ids of the recurring runs of a name."""
    found, page = [], ""
    while True:
        answer = client.list_recurring_runs(page_token=page, page_size=100, experiment_id=experiment)
        found += [
            str(one.recurring_run_id) for one in answer.recurring_runs or [] if one.display_name == name
        ]
        page = answer.next_page_token or ""
        if not page:
            return found


def _reason(error: kfp_server_api.ApiException) -> str:
    """The server's own sentence, where it sent one."""
    try:
        told = json.loads(error.body)
        text = str(told.get("error_message") or told.get("message") or told.get("error") or "")
    except (TypeError, ValueError, AttributeError):
        text = ""
    return f"{error.status} {text or error.reason}."
