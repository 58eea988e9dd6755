"""Whether the service account that a run's steps get may do what their pods must do.

Without the first two rights, the first pod of a run ends at once, and Kubeflow's UI doesn't say why.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from common.errors import UserError
from orchestration.kubeflow.client import Kubeflow

TIMEOUT = 10  # seconds of one request
FORWARDED = ("localhost", "127.0.0.1", "::1")  # a host that kubectl forwards, of the kubeconfig's cluster


class RightsError(UserError):
    """The service account is missing or lacks a right; the message says what to apply."""


class Right(NamedTuple):
    """A verb on a resource in the run's namespace."""

    verb: str
    group: str
    resource: str
    file: str  # in deploy/cluster; gives the right


ROLES = "runner-standalone.yaml, or runner-multi-user.yaml in a profile's namespace,"
STEPS = (
    Right("create", "argoproj.io", "workflowtaskresults", ROLES),
    Right("patch", "argoproj.io", "workflowtaskresults", ROLES),
)
TRAIN_JOBS = (
    Right("create", "trainer.kubeflow.org", "trainjobs", "trainer.yaml"),
    Right("list", "", "pods", "trainer.yaml"),
    Right("list", "", "events", "trainer.yaml"),
)


def tell_rights(kubeflow: Kubeflow, *, train_jobs: bool) -> None:
    """Print what `check_rights` says about the steps' service account, if one was chosen."""
    account = kubeflow.service_account
    if account and (note := check_rights(kubeflow.namespace, account, kubeflow.host, train_jobs=train_jobs)):
        print(note, file=sys.stderr)


def check_rights(namespace: str, account: str, host: str, *, train_jobs: bool) -> str:
    """Ask Kubernetes whether a service account may run steps; returns a sentence to print, "" for none.

    The cluster is the kubeconfig's, or the one that this is a pod of. It may be another one than `host`'s,
    and then what it lacks is printed only.

    Args:
        host: URL of Kubeflow Pipelines; "" is looked for in the same cluster.
        train_jobs: whether the run starts training jobs.

    Raises:
        RightsError: the account is missing in the cluster of the run, or lacks a right.
    """
    from kubernetes import client, config

    unchecked = f"The rights of the service account {account} in {namespace} were not checked"
    try:
        _load(config)
    except config.ConfigException:
        return f"{unchecked}: there is no kubeconfig here."
    try:
        _find_account(client, namespace, account)
        for right in STEPS + (TRAIN_JOBS if train_jobs else ()):
            if not _may(client, namespace, account, right):
                raise RightsError(
                    f"The service account {account} may not {right.verb} {right.resource} in {namespace}, "
                    f"so its first pod would end at once: apply deploy/cluster/{right.file} there."
                )
    except RightsError as error:
        if not host or urlsplit(host).hostname in FORWARDED:
            raise
        return f"In the kubeconfig's cluster: {error}"
    except client.ApiException as error:
        if error.status in (401, 403):
            return f"{unchecked}: you may not create SubjectAccessReviews or read service accounts."
        return f"{unchecked}: Kubernetes answers {error.status} {error.reason}."
    except Exception as error:  # whatever the HTTP library raises for a cluster that is away
        return f"{unchecked}: the kubeconfig's cluster can't be reached ({type(error).__name__})."
    return ""


def _load(config: Any) -> None:
    """Raises a ConfigException if this is no pod and there is no kubeconfig."""
    try:
        config.load_incluster_config()
    except config.ConfigException:
        config.load_kube_config()


def _find_account(client: Any, namespace: str, account: str) -> None:
    """Raises RightsError if there is no such account."""
    try:
        client.CoreV1Api().read_namespaced_service_account(account, namespace, _request_timeout=TIMEOUT)
    except client.ApiException as error:
        if error.status != 404:
            raise
        raise RightsError(
            f"There is no service account {account} in {namespace}: apply deploy/cluster/"
            "runner-standalone.yaml there, or runner-multi-user.yaml in a profile's namespace."
        ) from error


def _may(client: Any, namespace: str, account: str, right: Right) -> bool:
    attributes = client.V1ResourceAttributes(
        namespace=namespace, verb=right.verb, group=right.group, resource=right.resource
    )
    user, groups = f"system:serviceaccount:{namespace}:{account}", ["system:serviceaccounts"]
    groups += [f"system:serviceaccounts:{namespace}", "system:authenticated"]
    spec = client.V1SubjectAccessReviewSpec(user=user, groups=groups, resource_attributes=attributes)
    review = client.V1SubjectAccessReview(spec=spec)
    answer = client.AuthorizationV1Api().create_subject_access_review(review, _request_timeout=TIMEOUT)
    return bool(answer.status.allowed)
