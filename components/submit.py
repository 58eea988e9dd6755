"""Hands the pipeline to Kubeflow Pipelines."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import kfp_server_api
import urllib3
from kfp import Client
from kfp.dsl.graph_component import GraphComponent


class SubmitError(RuntimeError):
    """The pipeline was not handed over; the message is one sentence that says why."""


@dataclass(frozen=True)
class Cluster:
    """Which Kubeflow Pipelines to talk to, and as whom.

    Attributes:
        host: URL of the API; empty finds it in the cluster or in the kubeconfig.
        token: bearer token; empty takes the service account's or kubeconfig's credentials.
    """

    host: str
    namespace: str
    token: str = ""

    def submit(self, pipeline: GraphComponent, arguments: Mapping[str, Any], experiment: str) -> str:
        """Start a run of a pipeline and return its id.

        Raises:
            SubmitError: there is no cluster, it does not answer, or it refuses.
        """
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")  # the client warns of backends older than any in use
                client = Client(
                    host=self.host or None, namespace=self.namespace, existing_token=self.token or None
                )
                run = client.create_run_from_pipeline_func(
                    pipeline, dict(arguments), experiment_name=experiment, namespace=self.namespace
                )
        except kfp_server_api.ApiException as error:
            raise SubmitError(f"Kubeflow at {self._name()} refused the run: {_reason(error)}") from error
        except (urllib3.exceptions.HTTPError, OSError, TimeoutError) as error:
            raise SubmitError(
                f"No Kubeflow Pipelines answers at {self._name()}; check --host, or forward its port with "
                "'kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80'."
            ) from error
        return str(run.run_id)

    def _name(self) -> str:
        return self.host or "its default address (no --host was given)"


def _reason(error: kfp_server_api.ApiException) -> str:
    """The server's own sentence, where it sent one."""
    try:
        told = json.loads(error.body)
        text = str(told.get("error_message") or told.get("message") or told.get("error") or "")
    except (TypeError, ValueError, AttributeError):
        text = ""
    return f"{error.status} {text or error.reason}."
