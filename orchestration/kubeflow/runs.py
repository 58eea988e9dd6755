"""Runs as the API of Kubeflow Pipelines describes them. Steps can import this module."""

from __future__ import annotations

import os
from typing import Any, TypeAlias

import kfp_server_api
import urllib3

from common.errors import UserError
from orchestration.kubeflow.auth import PROJECTED_TOKEN

IN_CLUSTER = "http://ml-pipeline.kubeflow:8888"
TIMEOUT = 10  # seconds per request
FAILED_STATE = "FAILED"
CANCELLED_STATES = ("CANCELING", "CANCELED", "CANCELLED")  # the last on Vertex AI
Run: TypeAlias = Any  # kfp_server_api.V2beta1Run, which has no types


def failed_step(run: Run) -> str:
    """Name of the step that failed first; "" for none.

    Groups fail with their steps: they have started before them, and end no earlier.
    """
    names = {task.display_name for task in tasks(run)}
    failed = [
        task
        for task in tasks(run)
        if task.state == FAILED_STATE and task.end_time and f"{task.display_name}-driver" in names
    ]
    first = min(failed, key=lambda task: (task.end_time, -task.start_time.timestamp()), default=None)
    return str(first.display_name) if first else ""


def could_not_start(run: Run) -> bool:
    """Whether KFP's very first pod failed, which reports to KFP's own API and starts all others."""
    return any(task.state == FAILED_STATE and task.display_name == "root-driver" for task in tasks(run))


def read_run(run_id: str) -> Run:
    """Ask the API from within a pod of the cluster: without a token, or with the one that Kubeflow projects.

    KFP's own client cannot be imported in a step.

    Raises:
        UserError: the API refuses or does not answer.
    """
    configuration = kfp_server_api.Configuration(host=os.environ.get("KF_PIPELINES_ENDPOINT") or IN_CLUSTER)
    configuration.retries = 1
    if PROJECTED_TOKEN.is_file():
        configuration.api_key["authorization"] = PROJECTED_TOKEN.read_text().strip()
        configuration.api_key_prefix["authorization"] = "Bearer"
    api = kfp_server_api.RunServiceApi(kfp_server_api.ApiClient(configuration))
    try:
        return api.run_service_get_run(run_id=run_id, _request_timeout=TIMEOUT)
    except kfp_server_api.ApiException as error:
        raise UserError(
            f"Kubeflow's API refused to describe the run: {error.status} {error.reason}."
        ) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise UserError(f"Kubeflow's API does not answer at {configuration.host}.") from error


def tasks(run: Run) -> list[Any]:
    """Everything that the API reports of a run: steps, groups, drivers, tries."""
    details = run.run_details
    return list(details.task_details or []) if details else []
