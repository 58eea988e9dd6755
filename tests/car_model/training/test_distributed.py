"""Real processes over gloo: two train as one does, resume as one does, and none waits for the dead."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from car_model.training.distributed import World
from tests.car_model.training.distributed_jobs import CASES, data, trained

SECONDS = 240  # the machine is shared
JOBS = [sys.executable, "-m", "tests.car_model.training.distributed_jobs"]
Result = tuple[dict[str, list], dict[str, Tensor]]
pytestmark = pytest.mark.timeout(2 * SECONDS + 60)  # no test starts more than two runs


def free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return chosen.getsockname()[1]


def start(job: str, folder: Path, processes: int = 2) -> list[subprocess.Popen]:
    """Processes in the environment torchrun gives them, without its watching over them."""
    port, started = free_port(), []
    for rank in range(processes):
        world = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
        env = {**os.environ, **{name: str(value) for name, value in {**world, **where}.items()}}
        with (folder / f"said.{rank}").open("w") as said:
            started.append(subprocess.Popen([*JOBS, job, str(folder)], env=env, stderr=said))
    return started


def run(job: str, folder: Path, patience: float = 60) -> list[int | None]:
    """Exit codes, None of a process that still runs `patience` seconds after the first one has ended."""
    started = start(job, folder)
    try:
        started[0].wait(SECONDS)
        until = time.monotonic() + patience
        while any(process.poll() is None for process in started) and time.monotonic() < until:
            time.sleep(0.05)
        return [process.poll() for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()


def result(folder: Path, name: str, rank: int) -> Result:
    curves = json.loads((folder / f"{name}.{rank}.json").read_text())
    return curves, load_file(folder / f"{name}.{rank}.safetensors")


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes leave that train every case, with a state, and make mistakes."""
    folder = tmp_path_factory.mktemp("together")
    assert run("well", folder) == [0, 0], (folder / "said.0").read_text()
    return folder


def same(one: Result, other: Result) -> bool:
    return one[0] == other[0] and all(torch.equal(one[1][name], other[1][name]) for name in one[1])


def without_key_biases(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Softmax cancels the keys' bias: its gradient is rounding alone, which Adam scales up to a step."""
    changed = dict(weights)
    for name, weight in weights.items():
        if name.endswith("qkv.bias"):
            query, _, value = weight.chunk(3)
            changed[name] = torch.cat([query, value])
    return changed


@pytest.mark.integration
@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_as_one(name: str, together: Path) -> None:
    curves, weights = trained(name)
    by_rank = [result(together, name, rank) for rank in (0, 1)]
    assert same(*by_rank)
    expected = curves.to_json()
    for curve, values in by_rank[0][0].items():
        assert values == pytest.approx(expected[curve], abs=1e-6), curve
    exact = weights["uid.weight"].dtype == torch.float64
    alone, together_weights = (
        (weights, by_rank[0][1]) if exact else map(without_key_biases, (weights, by_rank[0][1]))
    )
    # float32 sums in another order; Adam scales the difference up: 2 % of one step, on whatever CPU
    tolerance = 1e-9 if exact else 0.02 * CASES[name][1].learning_rate
    for weight in alone:
        torch.testing.assert_close(together_weights[weight], alone[weight], rtol=0, atol=tolerance)


@pytest.mark.integration
def test_early_stopping_was_early(together: Path) -> None:
    curves = result(together, "stops early", 0)[0]
    assert 2 <= len(curves["epoch"]) < 12
    assert max(curves["valid_ndcg@10"]) > curves["valid_ndcg@10"][-1]


@pytest.mark.integration
def test_a_finished_run_is_not_trained_again(together: Path) -> None:
    assert same(*(result(together, name, 1) for name in ("resumable", "finished")))


@pytest.mark.integration
def test_processes_drop_units_of_their_own(together: Path) -> None:
    assert len({(together / f"resumable.{rank}.seed").read_text() for rank in (0, 1)}) == 2


@pytest.mark.integration
def test_a_dead_process_ends_the_run_and_the_next_ends_like_one_without_a_death(
    together: Path, tmp_path: Path
) -> None:
    codes = run("dies", tmp_path)
    assert codes[1] == 9
    assert codes[0] not in (0, None)
    assert "connection" in (tmp_path / "said.0").read_text().lower()
    assert json.loads((tmp_path / "state0" / "state.json").read_text())["epoch"] == 2
    said = torchrun(tmp_path)
    for rank in (0, 1):
        assert same(result(tmp_path, "resumable", rank), result(together, "resumable", rank))
    assert not (tmp_path / "state1").exists()  # the state is the first process's alone
    assert said.count("4/4") == 1  # and so is the bar


def torchrun(folder: Path) -> str:
    """Train with torchrun itself; what it says."""
    command = [*JOBS[:1], "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *JOBS[1:]]
    done = subprocess.run(
        [*command, "with_state", str(folder)], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.integration
def test_a_process_that_hangs_ends_the_run(tmp_path: Path) -> None:
    codes = run("hangs", tmp_path, patience=0)
    assert codes[0] not in (0, None)
    assert codes[1] is None  # killed by this test
    assert json.loads((tmp_path / "state0" / "state.json").read_text())["epoch"] == 2


@pytest.mark.integration
@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("broken", "the loss is nan in epoch 1; lower the learning rate."),
        ("differs", "the processes differ in data, model or settings; give all of them the same."),
    ],
)
def test_every_process_says_what_is_wrong(mistake: str, message: str, together: Path) -> None:
    assert [(together / f"{mistake}.{rank}.txt").read_text() for rank in (0, 1)] == [message] * 2


@pytest.mark.parametrize("processes", [2, 3, 5])
def test_shares_part_a_batch_and_their_weights_add_up(processes: int) -> None:
    inputs, targets = (
        torch.arange(1, 13).view(4, 3),
        torch.tensor([[1, 2, 3], [1, 0, 0], [5, 6, 0], [7, 0, 0]]),
    )
    shares = [World(rank, processes).share(inputs, targets) for rank in range(processes)]
    rows = [row for own, _, weight in shares if weight for row in own.tolist()]
    assert sorted(rows) == inputs.tolist()
    for own, wanted, weight in shares:
        assert len(own) == len(wanted) > 0
        assert weight == (0.0 if weight == 0 else pytest.approx(processes * int((wanted != 0).sum()) / 7))
    assert sum(weight for *_, weight in shares) == pytest.approx(processes)


@pytest.mark.parametrize("processes", [1, 2, 3, 40])
def test_every_user_is_measured_by_one_process(processes: int) -> None:
    held = data()
    parts = [World(rank, processes).users(held) for rank in range(processes)]
    assert sorted(user for part in parts for user in part.users) == sorted(held.users)
    for part in parts:
        for user, seq, valid in zip(part.users, part.train, part.valid, strict=True):
            at = held.users.index(user)
            assert (seq.tolist(), valid) == (held.train[at].tolist(), held.valid[at])


@pytest.mark.parametrize(
    ("asked", "processes", "expected"), [(0, 1, 0), (3, 1, 3), (3, 2, 3), (0, 2, 2), (0, 16, 1)]
)
def test_processes_of_a_machine_divide_its_threads(
    asked: int, processes: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert World(0, processes).threads(asked) == expected
