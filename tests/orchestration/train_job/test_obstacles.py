"""Nodes that can't start or die, as a real Kubernetes described them, end the step with a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from car_model.training.torchrun_job import FitJob, Inputs
from orchestration.train_job import backends, launch, obstacles
from orchestration.train_job.launch import TrainJobError, run_train_job
from orchestration.train_job.obstacles import FOR_A_NODE, SOON, find_obstacle, last_words
from orchestration.train_job.spec import RUN_ID, SERVICE_ACCOUNT, TrainJobSpec
from tests.orchestration.train_job.fit_inputs import RECIPE, write_inputs
from tests.orchestration.train_job.trainer_server import Trainer, serving_trainer

STUCK: dict[str, Any] = json.loads((Path(__file__).parent / "answers" / "stuck.json").read_text())
OBSTACLES = {
    "bad-image": (SOON, "a node can't start: its image registry.example/car:missing cannot be pulled: "),
    "missing-claim": (SOON, "a node can't start: no node can take its pod: 0/1 nodes are available: persist"),
    "missing-secret": (SOON, "a node can't start: its container cannot be started: secret"),
    "no-gpu": (FOR_A_NODE, "a node can't start: no node can take its pod: 0/1 nodes are available: 1 Insuf"),
    "out-of-memory": (0, "a node needed more memory than its limit of 100Mi; give the train_job"),
    "refused-by-pod-security": (SOON, "Kubernetes refuses a node's pod: Error creating: pods"),
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_what_keeps_a_node_from_training_is_told(name: str) -> None:
    obstacle = find_obstacle(1, STUCK[name]["pods"], STUCK[name]["events"])
    assert obstacle
    assert (obstacle.patience, obstacle.sentence[: len(OBSTACLES[name][1])]) == OBSTACLES[name]
    assert "\n" not in obstacle.sentence


def test_a_pod_that_is_there_and_one_that_is_refused_are_told_apart() -> None:
    running = [{"metadata": {"name": "n"}, "status": {"phase": "Running"}}]
    events = STUCK["refused-by-pod-security"]["events"]
    assert find_obstacle(1, running, events) is None  # an old event: the pod came after all
    assert find_obstacle(2, running, events)
    quota = [{**events[0], "message": "exceeded quota: team"}]
    assert find_obstacle(2, running, quota).patience == FOR_A_NODE  # type: ignore[union-attr]


def test_a_volume_that_cannot_be_mounted_is_told_while_its_pod_waits() -> None:
    event = {"reason": "FailedMount", "message": 'secret "x" not found', "involvedObject": {"name": "n"}}
    for phase, sentence in (("Pending", "a node's volume can't be mounted: secret"), ("Running", None)):
        obstacle = find_obstacle(1, [{"metadata": {"name": "n"}, "status": {"phase": phase}}], [event])
        assert (obstacle and obstacle.sentence[: len(sentence or "")]) == sentence


def test_a_pod_that_failed_is_the_last_to_be_asked_why() -> None:
    assert find_obstacle(1, STUCK["exit-1"]["pods"], STUCK["exit-1"]["events"]) is None  # it may be restarted
    assert last_words(STUCK["exit-1"]["pods"]) == (
        "a node's pod failed: width 30 must be a multiple of heads 4."
    )
    assert last_words([]) == ""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A Kubeflow Trainer, whose pods are stuck at once, and no patience."""
    from kubernetes.config import kube_config

    monkeypatch.setattr(backends.KubernetesBackend, "poll_seconds", 0.01)
    monkeypatch.setattr(launch, "MAX_OUTAGE", 0.0)
    monkeypatch.setattr(obstacles, "SOON", 0.0)
    monkeypatch.setattr(obstacles, "FOR_A_NODE", 0.0)
    with serving_trainer(tmp_path / "cluster") as (trainer, kubeconfig):
        monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
        trainer.stuck = {"pods": [], "events": []}
        yield trainer


def train(folder: Path, **spec: Any) -> None:
    inputs = folder / "inputs"
    if not inputs.exists():
        inputs.mkdir()
        write_inputs(inputs)
    (folder / "states").mkdir(exist_ok=True)
    parts = Inputs(inputs / "dataset", inputs / "codebook", inputs / "catalogue.parquet")
    settings = TrainJobSpec(image="car", claim="car-cache", path=str(folder), **spec)
    run_train_job(settings, parts, RECIPE, folder / "states")


@pytest.mark.parametrize("name", OBSTACLES)
def test_the_step_ends_with_the_obstacle_and_leaves_no_job(
    tmp_path: Path, cluster: Trainer, name: str
) -> None:
    cluster.stuck = STUCK[name]
    with pytest.raises(TrainJobError) as caught:
        train(tmp_path)
    assert OBSTACLES[name][1] in str(caught.value)
    assert cluster.jobs == {}


def test_a_process_own_error_ends_the_job_without_waiting_for_its_restarts(
    tmp_path: Path, cluster: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = FitJob.write

    def write(job: FitJob, *arguments: Any) -> None:
        written(job, *arguments)
        job.fail(0, ValueError("width 30 must be a multiple of heads 4."))

    monkeypatch.setattr(FitJob, "write", write)
    with pytest.raises(TrainJobError, match="process 1 of 1: width 30 must be a multiple of heads 4"):
        train(tmp_path)
    assert cluster.jobs == {}


@pytest.mark.parametrize(
    ("path", "status", "remedy"),
    [
        ("trainjobs", 403, "needs the rights in deploy/cluster/trainer.yaml."),
        ("clustertrainingruntimes", 404, "is not installed, or the job was removed."),
        ("trainjobs", 401, "the token of the step's service account is not accepted."),
    ],
)
def test_a_refusal_is_told_at_once(
    tmp_path: Path, cluster: Trainer, path: str, status: int, remedy: str
) -> None:
    cluster.refused = {path: status}
    with pytest.raises(TrainJobError) as caught:
        train(tmp_path)
    assert str(caught.value).endswith(remedy)
    assert sum(path in request for request in cluster.log_of_requests) == 1


def test_equal_runs_at_once_have_a_job_each_and_other_folders_are_another_job(
    tmp_path: Path, cluster: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.stuck = STUCK["bad-image"]
    names = []
    for run, folder in (("r1", "a"), ("r1", "a"), ("r2", "a"), ("r1", "b")):
        monkeypatch.setenv(RUN_ID, run)
        (tmp_path / folder).mkdir(exist_ok=True)
        with pytest.raises(TrainJobError):
            train(tmp_path / folder)
        names.append(cluster.created[-1]["metadata"]["name"].rsplit("-", 1)[0])
    assert names[0] == names[1]
    assert len(set(names)) == 3


def test_the_nodes_get_the_steps_account_and_annotations(
    tmp_path: Path, cluster: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.stuck = STUCK["bad-image"]
    monkeypatch.setenv(SERVICE_ACCOUNT, "car-runner")
    with pytest.raises(TrainJobError):
        train(tmp_path, annotations={"gke-gcsfuse/volumes": "true"})
    (patch,) = cluster.created[0]["spec"]["runtimePatches"]
    (job,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    template = job["template"]["spec"]["template"]
    assert template["metadata"]["annotations"] == {"gke-gcsfuse/volumes": "true"}
    assert template["spec"]["serviceAccountName"] == "car-runner"


def test_rights_that_lack_are_told_once_and_training_goes_on(
    tmp_path: Path, cluster: Trainer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.refused = {"/events": 403}
    cluster.stuck = STUCK["bad-image"]
    with pytest.raises(TrainJobError, match="cannot be pulled"):
        train(tmp_path)
    (warning,) = [record.getMessage() for record in caplog.records if "can't be seen" in record.message]
    assert warning.startswith("The events of the training job can't be seen")


def test_a_training_that_nobody_waits_for_is_abandoned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from car_model.training import torchrun_job

    job = FitJob(tmp_path)
    assert not job.abandoned()  # before anybody could say so
    job.watch()
    assert not job.abandoned()
    monkeypatch.setattr(torchrun_job, "ABANDONED", -1)
    assert job.abandoned()


def test_a_process_that_is_restarted_in_place_forgets_what_the_one_before_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from car_model.training import torchrun_job

    job = FitJob(tmp_path)
    (tmp_path / "failed").mkdir()
    for rank in (0, 1):
        job.fail(rank, ValueError("the node went away."))
    monkeypatch.setenv("CAR_FIT_JOB", str(tmp_path))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(FitJob, "run", lambda _: None)
    torchrun_job.main()
    assert job.failures().keys() == {0}
