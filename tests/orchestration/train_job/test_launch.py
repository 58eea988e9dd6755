"""Training handed over to Kubeflow Trainer: as good as one process, seen to fail, and taken up again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file
from torch import testing

from car_model.training.torchrun_job import FitJob, Inputs
from orchestration.train_job.launch import TrainJobError, failure_reason, run_train_job
from orchestration.train_job.spec import VARIABLE, TrainJobSpec, spec_from_env
from tests.orchestration.train_job.fit_inputs import RECIPE, run_step, write_inputs
from tests.orchestration.train_job.trainer_server import SPACE, Trainer, serving_trainer

PATIENCE = 600.0  # the machine is shared, and the SDK makes an environment for every job
TWO_PROCESSES = {"processes": 2}
LONG = {**RECIPE, "epochs": 300, "patience": 300}
pytestmark = [pytest.mark.integration, pytest.mark.timeout(3 * PATIENCE)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def alone(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the step makes by itself."""
    return run_step(inputs, "", tmp_path_factory.mktemp("alone")).parent


def step(
    inputs: Path,
    folder: Path,
    spec: dict[str, Any],
    recipe: dict | None = None,
    backend: str = "process",
    **env: str,
) -> Any:
    """The step as a process of its own, which writes its result to `folder`/log."""
    command = [
        sys.executable,
        "-m",
        "tests.orchestration.train_job.fit_inputs",
        inputs,
        folder / "states",
        folder / "result",
    ]
    environment = {**os.environ, VARIABLE: json.dumps(spec), **env}
    with (folder / "log").open("a") as log:
        return subprocess.Popen(
            [*map(str, command), json.dumps(recipe or RECIPE), backend],
            env=environment,
            stdout=log,
            stderr=log,
        )


def ended(process: subprocess.Popen, folder: Path) -> tuple[int, str]:
    """Its exit code and its log."""
    try:
        code = process.wait(PATIENCE)
    finally:
        process.kill()
    return code, (folder / "log").read_text()


def wait_for(what: Callable[[], bool], process: subprocess.Popen) -> None:
    until = time.monotonic() + PATIENCE
    while not what():
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < until, "it never came"
        time.sleep(0.05)


def state(folder: Path) -> dict[str, Any]:
    """The resumable state; while it changes places there is none."""
    try:
        return json.loads((folder / "states" / "car" / "state.json").read_text())
    except (OSError, ValueError):
        return {"epoch": 0}


def processes(folder: Path) -> dict[int, psutil.Process]:
    """The processes that train in a folder, by rank."""
    by_rank = {}
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except psutil.Error:
            continue
        if environment.get("CAR_FIT_JOB", "").startswith(str(folder)) and "RANK" in environment:
            by_rank[int(environment["RANK"])] = process
    return by_rank


def assert_same(result: Path, alone: Path) -> None:
    """Equal curves and weights, up to the order of float sums."""
    curves = [json.loads((folder / "curves.json").read_text()) for folder in (result, alone)]
    assert curves[0].keys() == curves[1].keys()
    for name, values in curves[0].items():
        assert values == pytest.approx(curves[1][name], abs=1e-5), name
    weights, expected = (
        load_file(folder / "bundle" / "model" / "model.safetensors") for folder in (result, alone)
    )
    assert weights.keys() == expected.keys()
    for name, weight in weights.items():
        if not name.endswith("qkv.bias"):  # the keys' bias has no gradient but rounding
            testing.assert_close(weight, expected[name], rtol=0, atol=1e-4)
    headers = [json.loads((folder / "bundle" / "bundle.json").read_text()) for folder in (result, alone)]
    for part in ("codebook", "catalogue", "data", "popular", "labels"):
        assert headers[0][part] == headers[1][part]


def test_two_processes_of_a_job_train_as_the_step_does(inputs: Path, alone: Path, tmp_path: Path) -> None:
    code, log = ended(step(inputs, tmp_path, TWO_PROCESSES), tmp_path)
    assert code == 0, log
    assert_same(tmp_path / "result", alone)
    assert "1 x 2 processes" in log
    assert [line for line in log.splitlines() if "6/6" in line]  # progress, on lines of its own
    assert not list((tmp_path / "states" / "jobs").iterdir())  # only the state stays


def test_a_killed_process_fails_the_step_and_a_rerun_resumes(inputs: Path, tmp_path: Path) -> None:
    running = step(inputs, tmp_path, TWO_PROCESSES, LONG)
    wait_for(lambda: state(tmp_path)["epoch"] >= 3, running)
    processes(tmp_path)[1].kill()
    code, log = ended(running, tmp_path)
    assert code == 1
    (sentence,) = [
        line for line in log.splitlines() if line.startswith("orchestration.train_job.launch.TrainJobError")
    ]
    assert "failed: process 2 of 2 was killed (SIGKILL; out of memory?)." in sentence
    left = state(tmp_path)
    assert 3 <= left["epoch"] < LONG["epochs"]
    assert not processes(tmp_path)

    code, log = ended(step(inputs, tmp_path, TWO_PROCESSES, LONG), tmp_path)
    assert code == 0, log
    curves = json.loads((tmp_path / "result" / "curves.json").read_text())
    assert curves["train_loss"][: left["epoch"]] == left["curves"]["train_loss"]
    assert len(curves["epoch"]) == LONG["epochs"]
    assert f"| {left['epoch']}/{LONG['epochs']} [00:00<?" in log  # the bar goes on from there


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_step_that_is_ended_ends_its_job(inputs: Path, tmp_path: Path, how: signal.Signals) -> None:
    running = step(inputs, tmp_path, TWO_PROCESSES, LONG)
    wait_for(lambda: state(tmp_path)["epoch"] >= 1, running)
    assert processes(tmp_path).keys() == {0, 1}
    running.send_signal(how)
    ended(running, tmp_path)
    until = time.monotonic() + PATIENCE
    while processes(tmp_path):
        assert time.monotonic() < until
        time.sleep(0.1)


def test_what_the_training_says_is_what_the_step_says(inputs: Path, tmp_path: Path) -> None:
    code, log = ended(step(inputs, tmp_path, TWO_PROCESSES, {**RECIPE, "learning_rate": 1e30}), tmp_path)
    assert code == 1
    assert "of 2: the loss is nan in epoch 1; lower the learning rate." in log.splitlines()[-1]


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[tuple[Trainer, Path]]:
    with serving_trainer(tmp_path / "cluster") as server:
        yield server


def on_kubernetes(folder: Path, **changed: Any) -> dict[str, Any]:
    return {
        "nodes": 2, "image": "registry.example/car@sha256:1",
        "resources": {"cpu": "2", "nvidia.com/gpu": "1"},
        "claim": "car-cache", "path": str(folder), "selector": {"pool": "train"}, "seconds": 3600,
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}], "pull_secrets": ["car-registry"],
        **changed,
    }  # fmt: skip


def test_a_trainjob_on_kubernetes_trains_as_the_step_does(
    inputs: Path, alone: Path, tmp_path: Path, trainer: tuple[Trainer, Path]
) -> None:
    api, kubeconfig = trainer
    spec = on_kubernetes(tmp_path)
    code, log = ended(
        step(inputs, tmp_path, spec, backend="kubernetes", KUBECONFIG=str(kubeconfig)), tmp_path
    )
    assert code == 0, log
    assert_same(tmp_path / "result", alone)
    assert "6/6" in log
    assert api.jobs == {}  # removed when it had ended
    (body,) = api.created
    job_spec = body["spec"]
    assert job_spec["runtimeRef"] == {"kind": "ClusterTrainingRuntime", "name": "torch-distributed"} | {
        key: value for key, value in job_spec["runtimeRef"].items() if key == "apiGroup"
    }
    assert job_spec["activeDeadlineSeconds"] == 3600
    assert job_spec["trainer"]["image"] == "registry.example/car@sha256:1"
    assert job_spec["trainer"]["resourcesPerNode"]["limits"] == {"cpu": "2", "nvidia.com/gpu": "1"}
    (patch,) = job_spec["runtimePatches"]
    (job,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]["spec"]
    assert pod["volumes"] == [{"name": "car-shared", "persistentVolumeClaim": {"claimName": "car-cache"}}]
    assert pod["containers"][0]["volumeMounts"] == [{"name": "car-shared", "mountPath": str(tmp_path)}]
    assert pod["nodeSelector"] == {"pool": "train"}
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert pod["imagePullSecrets"] == [{"name": "car-registry"}]
    assert pod["securityContext"] == {
        "runAsUser": 10001,
        "runAsNonRoot": True,
        "fsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = pod["containers"][0]["securityContext"]
    assert container == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_a_step_that_is_tried_again_takes_up_its_job(
    inputs: Path, tmp_path: Path, trainer: tuple[Trainer, Path]
) -> None:
    api, kubeconfig = trainer
    spec = on_kubernetes(tmp_path)
    recipe = {**RECIPE, "epochs": 1500, "patience": 1500}  # it outlasts the start of a second step
    first = step(inputs, tmp_path, spec, recipe, backend="kubernetes", KUBECONFIG=str(kubeconfig))
    wait_for(lambda: state(tmp_path)["epoch"] >= 1, first)
    first.kill()  # as a lost node does: its job goes on
    first.wait()
    code, log = ended(
        step(inputs, tmp_path, spec, recipe, backend="kubernetes", KUBECONFIG=str(kubeconfig)), tmp_path
    )
    assert code == 0, log
    assert "still runs; waiting for it" in log
    assert len(api.created) == 1


def test_a_job_that_may_not_be_created_is_told(
    inputs: Path, tmp_path: Path, trainer: tuple[Trainer, Path]
) -> None:
    api, kubeconfig = trainer
    api.refuse = "team may not create trainjobs"
    code, log = ended(
        step(inputs, tmp_path, on_kubernetes(tmp_path), backend="kubernetes", KUBECONFIG=str(kubeconfig)),
        tmp_path,
    )
    assert code == 1
    assert f"could not be given a job: Failed to create TrainJob: {SPACE}/car-" in log.splitlines()[-1]
    assert "Forbidden" in log.splitlines()[-1]


def inputs_in(folder: Path) -> Inputs:
    return Inputs(folder / "dataset", folder / "codebook", folder / "catalogue.parquet")


def test_a_job_needs_a_folder_that_is_shared(inputs: Path) -> None:
    with pytest.raises(TrainJobError, match="needs a folder that its nodes and this step share"):
        run_train_job(TrainJobSpec(processes=2), inputs_in(inputs), RECIPE, None)


def test_other_inputs_are_another_job(inputs: Path) -> None:
    assert inputs_in(inputs).digest(RECIPE) == inputs_in(inputs).digest(dict(RECIPE))
    assert inputs_in(inputs).digest(RECIPE) != inputs_in(inputs).digest(LONG)


REPORT = """
Root Cause (first observed failure):
[0]:
  time      : 2026-01-01_00:00:00
  host      : node
  rank      : 1 (local_rank: 1)
  exitcode  : -9 (pid: 7)
  error_file: <N/A>
  traceback : Signal 9 (SIGKILL) received by PID 7
"""


@pytest.mark.parametrize(
    ("errors", "written", "sentence"),
    [
        (
            {0: RuntimeError("Connection closed by peer"), 1: ValueError("no data.")},
            "",
            "process 2 of 3: no data.",
        ),
        ({0: RuntimeError("Connection closed by peer")}, REPORT, "process 2 of 3 was killed (SIGKILL;"),
        (
            {0: RuntimeError("gloo: timed out"), 2: RuntimeError("NCCL")},
            REPORT.replace("SIGKILL", "SIGTERM"),
            "process 2 of 3 ended without a message; was it killed?",
        ),
        (dict.fromkeys(range(3), RuntimeError("socket")), "", "process 1 of 3: RuntimeError: socket"),
        ({}, "pulling\n\nno space left\n", "no process said why; the last line was: no space left"),
        ({}, "", "nothing was written."),
        ({0: KeyError("x")}, "", "process 1 of 3: KeyError: 'x'"),
    ],
)
def test_the_process_that_failed_by_itself_is_named(
    tmp_path: Path, errors: dict[int, Exception], written: str, sentence: str
) -> None:
    job = FitJob(tmp_path)
    (tmp_path / "failed").mkdir()
    for rank, error in errors.items():
        job.fail(rank, error)
    assert failure_reason(job, 3, written).startswith(sentence)


def test_the_spec_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert spec_from_env() is None
    monkeypatch.setenv(VARIABLE, '{"nodes": 2, "processes": 4}')
    assert spec_from_env() == TrainJobSpec(nodes=2, processes=4)
    assert TrainJobSpec(nodes=2, processes=4).world == 8
