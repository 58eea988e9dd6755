"""A local run that is killed in any of its steps, and run again, makes what an undisturbed one makes."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from components.guard import RUN
from registry.channel import head, history
from registry.store import open_store
from serving.server import TorchServe
from tests.pipeline.test_pipeline_run import PIPELINE, POLICY, steps
from tests.pipeline.tiny_shop import write_shop

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1000)]


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Path]:
    write_shop(tmp_path / "shop")
    (tmp_path / "policy.yaml").write_text(POLICY.format(name="finds something", bound=0.0))
    yield tmp_path
    for state in tmp_path.glob("serving-*"):
        TorchServe.stop(state)


def start(workshop: Path, name: str) -> subprocess.Popen[str]:
    """A run whose caches, registry and server are those of its name."""
    (workshop / name).mkdir(exist_ok=True)
    words = "--data custom --data-dir ../shop --codes 4 --levels 2 --epochs 2 --bootstrap"
    words += f" --gate-policy ../policy.yaml --registry ../registry-{name} --serving ../serving-{name}"
    recipe = ["--recipe", json.dumps({"width": 16, "layers": 1, "history": 10, "threads": 1})]
    return subprocess.Popen(
        [sys.executable, str(PIPELINE), "run", *shlex.split(words), *recipe],
        cwd=workshop / name,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def killed_in_one_of(process: subprocess.Popen[str], wanted: set[str]) -> str:
    """Kill a run (-9) as soon as a process of a wanted step is there; gives the step."""
    while process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.Error):
                if found := wanted.intersection(child.cmdline()):
                    process.send_signal(signal.SIGKILL)
                    process.communicate()
                    return found.pop()
        time.sleep(0.02)
    pytest.fail(f"A run ended before it was seen in {', '.join(wanted)}: {process.communicate()[0]}")


def left_of(workshop: Path) -> list[list[str]]:
    """Processes of steps whose run is below the workshop; a server has a session of its own."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            run = process.environ().get(RUN, "")
            if run.startswith(str(workshop)) and os.getsid(process.pid) == os.getsid(0):
                found.append(process.cmdline())
    return found


def test_killed_in_every_step_it_still_makes_the_same_release(workshop: Path) -> None:
    plain = start(workshop, "plain")
    output, _ = plain.communicate()
    assert plain.returncode == 0, output
    expected = head(open_store(workshop / "registry-plain"), "production")
    assert expected

    wanted = {step.replace("-", "_") for step in steps(output)}
    while wanted:
        wanted.remove(killed_in_one_of(start(workshop, "killed"), wanted))
    until = time.monotonic() + 20
    while left := left_of(workshop):
        assert time.monotonic() < until, left
        time.sleep(0.1)

    last = start(workshop, "killed")
    output, _ = last.communicate()
    assert last.returncode == 0, output
    store = open_store(workshop / "registry-killed")
    assert [one.release for one in history(store, "production")] == [expected.release]
    answer = TorchServe.attach(workshop / "serving-killed").predict({"history": ["t0", "t4"], "k": 3})
    assert answer["release"] == expected.release
