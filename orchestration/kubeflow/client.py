"""Kubeflow Pipelines: submit the pipeline for one run or as a recurring run, and ask about runs."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kfp_server_api
import urllib3
from kfp import Client, compiler
from kfp.dsl.graph_component import GraphComponent

from common.errors import UserError
from orchestration.kubeflow.auth import Credentials
from orchestration.kubeflow.runs import Run
from orchestration.kubeflow.schedule import replace_recurring_run


class SubmitError(UserError, RuntimeError):
    """Kubeflow Pipelines did not answer, or it refused; the message is one sentence that says why."""

    def __init__(self, sentence: str, status: int = 0) -> None:
        super().__init__(sentence)
        self.status = status  # of the refusal over HTTP; 0 without an answer


@dataclass(frozen=True)
class Kubeflow:
    """One Kubeflow Pipelines, and who asks.

    Its methods raise SubmitError if there is no cluster, it does not answer, or it refuses, and AuthError if
    the token or cookie can't be read.
    """

    host: str  # URL of the API; "" looks in the cluster or in the kubeconfig
    namespace: str  # the profile's namespace in a multi-user Kubeflow
    credentials: Credentials = field(default_factory=Credentials)
    service_account: str = ""  # what the steps run as; "" for Kubeflow's default

    def submit(self, pipeline: GraphComponent, arguments: Mapping[str, Any], experiment: str) -> str:
        """Start a run of a pipeline and return its id."""
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
        self, pipeline: GraphComponent, arguments: Mapping[str, Any], experiment: str, name: str, cron: str
    ) -> str:
        """Create a recurring run and return its id: one run at a time, missed times are not made up for.

        Args:
            cron: six fields, seconds first, such as "0 0 3 * * *": every night at three (UTC).
        """
        with self._client() as client, tempfile.TemporaryDirectory() as folder:
            package = Path(folder) / "pipeline.yaml"
            compiler.Compiler().compile(pipeline, str(package))
            return replace_recurring_run(
                client,
                experiment_id=client.create_experiment(experiment, namespace=self.namespace).experiment_id,
                name=name,
                cron=cron,
                package=package,
                arguments=arguments,
                service_account=self.service_account,
            )

    def run(self, run_id: str) -> Run:
        """A run and its tasks, as they are now."""
        with self._client() as client:
            return client.get_run(run_id)

    def runs(self, count: int) -> list[Run]:
        """The latest runs, newest first."""
        with self._client() as client:
            answer = client.list_runs(
                page_size=count, sort_by="created_at desc", namespace=self.namespace or None
            )
        return list(answer.runs or [])

    def run_page(self, run_id: str) -> str:
        """Where a person sees a run: the URL, or how to reach it without a host."""
        host = (os.environ.get("KF_PIPELINES_UI_ENDPOINT") or self.host).rstrip("/")
        if not host:
            return (
                f"See it at http://127.0.0.1:8080/#/runs/details/{run_id} after "
                f"'kubectl port-forward -n {self.namespace} svc/ml-pipeline-ui 8080:80'."
            )
        if host.endswith("/pipeline"):  # behind Kubeflow's dashboard
            dashboard = host.removesuffix("/pipeline")
            return f"{dashboard}/_/pipeline/?ns={self.namespace}#/runs/details/{run_id}"
        return f"{host}/#/runs/details/{run_id}"

    @contextlib.contextmanager
    def _client(self) -> Iterator[Client]:
        server = self.host or "its default address (no --host was given)"
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")  # the client warns of backends older than any in use
                yield Client(
                    host=self.host or None, namespace=self.namespace, **self.credentials.client_options()
                )
        except kfp_server_api.ApiException as error:
            try:  # the server's own sentence, if it sent one
                body = json.loads(error.body)
                message = body.get("error_message") or body.get("message") or body.get("error")
            except (TypeError, ValueError, AttributeError):
                message = None
            raise SubmitError(
                f"Kubeflow at {server} refused: {error.status} {message or error.reason}.", error.status
            ) from error
        except (urllib3.exceptions.HTTPError, OSError, TimeoutError) as error:
            raise SubmitError(
                f"No Kubeflow Pipelines answers at {server}; check --host, or forward its port with "
                "'kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80'."
            ) from error
