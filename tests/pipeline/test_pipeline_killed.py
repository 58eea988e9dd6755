"""A local run that is killed in any of its steps, and run again, makes what an undisturbed one makes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from orchestration.local.watchdog import RUN
from registry.channels.channel import head, history
from registry.store.open import open_store
from serving.torchserve.server import TorchServe
from tests.pipeline.local_runs import prepare, start
from tests.pipeline.test_pipeline_run import steps

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1000)]


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Path]:
    prepare(tmp_path)
    yield tmp_path
    for state in tmp_path.glob("serving-*"):
        TorchServe.stop(state)


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

    names = [step.replace("-", "_") for step in steps(output)]
    before, after = set(names[: names.index("train")]), set(names[names.index("train") :])
    while before:
        before.remove(killed_in_one_of(start(workshop, "killed"), before))
    step_is_killed(workshop)
    while after:
        after.remove(killed_in_one_of(start(workshop, "killed"), after))
    until = time.monotonic() + 20
    while left := left_of(workshop):
        assert time.monotonic() < until, left
        time.sleep(0.1)

    last = start(workshop, "killed")
    output, _ = last.communicate()
    assert last.returncode == 0, output
    assert steps(output)["ingest"] == "cached"
    store = open_store(workshop / "registry-killed")
    assert [one.release for one in history(store, "production")] == [expected.release]
    answer = TorchServe.attach(workshop / "serving-killed").predict({"history": ["t0", "t4"], "k": 3})
    assert answer["release"] == expected.release


def step_is_killed(workshop: Path) -> None:
    """The system kills a step, not the run, as the kernel does where memory runs out: a sentence says so."""
    run = start(workshop, "killed")
    killed = False
    while not killed and run.poll() is None:
        for child in psutil.Process(run.pid).children(recursive=True):
            with suppress(psutil.Error):
                if "train" in (line := child.cmdline()) and "-m" in line:
                    child.kill()
                    killed = True
        time.sleep(0.02)
    output, _ = run.communicate()
    assert run.returncode == 1
    assert "The step train failed: " in output and "out of memory?" in output
    assert "Traceback" not in output
    assert head(open_store(workshop / "registry-killed"), "production") is None
