"""Handing over to a multi-user Kubeflow that keeps what it is given and turns strangers away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration.kubeflow.auth import AuthMethod, Credentials
from orchestration.kubeflow.client import Kubeflow, SubmitError
from orchestration.kubeflow.cluster import load_cluster
from orchestration.resources import CompileOptions
from pipeline import build_for_cluster
from tests.orchestration.kubeflow.kfp_server import Pipelines, serving_pipelines
from tests.orchestration.local.tiny_pipelines import tiny

COOKIE = "authservice_session=abc"
EXAMPLE = Path(__file__).parents[3] / "deploy" / "cluster" / "cluster.yaml"


@pytest.fixture
def pipelines() -> Pipelines:
    return Pipelines({"Bearer t": {"team-a"}, COOKIE: {"team-a"}, "Bearer other": {"team-b"}})


@pytest.fixture
def host(pipelines: Pipelines) -> Iterator[str]:
    with serving_pipelines(pipelines) as url:
        yield url


def all_credentials(folder: Path) -> list[Credentials]:
    (folder / "token").write_text("t\n")
    return [
        Credentials(AuthMethod.TOKEN, "t"),
        Credentials(AuthMethod.IN_CLUSTER, file=folder / "token"),
        Credentials(AuthMethod.SESSION, COOKIE),
    ]


def test_every_method_of_authentication_starts_a_run(host: str, pipelines: Pipelines, tmp_path: Path) -> None:
    for credentials in all_credentials(tmp_path):
        run = Kubeflow(host, "team-a", credentials, "runner").submit(tiny, {"loops": 2}, "trial")
        body = pipelines.held["runs"][run]
        assert (body["namespace"], body["service_account"]) == ("team-a", "runner")
        assert body["runtime_config"]["parameters"] == {"loops": 2}
    assert len(pipelines.held["experiments"]) == 1  # found again by its name


def test_strangers_and_others_are_turned_away_in_a_sentence(host: str, pipelines: Pipelines) -> None:
    for credentials, sentence in (
        (Credentials(), r"refused: 401 Unauthenticated\."),
        (Credentials(AuthMethod.TOKEN, "wrong"), r"refused: 401 Unauthenticated\."),
        (Credentials(AuthMethod.TOKEN, "other"), r"refused: 403 you may not use namespace team-a\."),
    ):
        with pytest.raises(SubmitError, match=sentence):
            Kubeflow(host, "team-a", credentials).submit(tiny, {}, "trial")
    assert not pipelines.held["runs"]


def test_the_whole_pipeline_is_taken_with_what_the_cluster_asks(host: str, pipelines: Pipelines) -> None:
    options = CompileOptions(image="registry.example/car@sha256:1", gpus=1, cluster=load_cluster(EXAMPLE))
    arguments = {"source": "{}", "source_digest": "", "registry": "gs://bucket/car"}
    run = Kubeflow(host, "team-a", Credentials(AuthMethod.TOKEN, "t")).submit(
        build_for_cluster(options), arguments, "trial"
    )
    spec = json.dumps(pipelines.held["runs"][run]["pipeline_spec"])
    for part in (
        "car-cache",
        "nvidia-l4",
        "conclude",
        "activeDeadlineSeconds",
        "registry.example/car@sha256:1",
    ):
        assert part in spec


def test_one_recurring_run_of_a_name_is_left_however_many_there_are(host: str, pipelines: Pipelines) -> None:
    kubeflow = Kubeflow(host, "team-a", Credentials(AuthMethod.TOKEN, "t"))
    others = [kubeflow.schedule(tiny, {}, "trial", f"other {i}", "0 0 4 * * *") for i in range(5)]
    old = kubeflow.schedule(tiny, {}, "trial", "nightly", "0 0 3 * * *")  # on the third page
    elsewhere = kubeflow.schedule(tiny, {}, "another experiment", "nightly", "0 0 3 * * *")
    new = kubeflow.schedule(tiny, {"loops": 9}, "trial", "nightly", "0 30 3 * * *")
    assert pipelines.held["recurringruns"].keys() == {*others, elsewhere, new}
    assert old != new
    body = pipelines.held["recurringruns"][new]
    assert body["trigger"]["cron_schedule"]["cron"] == "0 30 3 * * *"
    assert body["runtime_config"]["parameters"] == {"loops": 9}


def test_times_that_kubeflow_does_not_understand_replace_nothing(host: str, pipelines: Pipelines) -> None:
    kubeflow = Kubeflow(host, "team-a", Credentials(AuthMethod.TOKEN, "t"))
    old = kubeflow.schedule(tiny, {}, "trial", "nightly", "0 0 3 * * *")
    with pytest.raises(SubmitError, match=r"refused: 400 Invalid cron expression\."):
        kubeflow.schedule(tiny, {}, "trial", "nightly", "0 3 * * *")
    assert pipelines.held["recurringruns"].keys() == {old}
