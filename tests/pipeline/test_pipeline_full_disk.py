"""A local run on a disk that is full: told in a sentence, nothing released, and done once there is room."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.channels.channel import head
from registry.store.open import open_store
from serving.torchserve.server import TorchServe
from tests.pipeline.local_runs import command, prepare
from tests.pipeline.test_pipeline_run import steps

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1000)]

SMALL_THEN_LARGE = """
mount -t tmpfs -o size={size} none "$1" || exit 77
cd "$1"
{run}
echo "exit $?"
mount -o remount,size=1g "$1"
{run}
echo "exit $?"
"""


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Path]:
    prepare(tmp_path)
    (tmp_path / "disk").mkdir()
    yield tmp_path
    TorchServe.stop(tmp_path / "serving-disk")


@pytest.mark.parametrize(("size", "place"), [("64k", "There is no room for"), ("1200k", "The step ")])
def test_a_full_disk_is_told_and_a_rerun_completes(workshop: Path, size: str, place: str) -> None:
    script = SMALL_THEN_LARGE.format(size=size, run=shlex.join(command("disk")))
    unshared = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", script, "-"]
    try:
        done = subprocess.run(
            [*unshared, str(workshop / "disk")],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if done.returncode == 77 or "unshare:" in done.stdout:
        pytest.skip("no user namespaces here")
    first, _, second = done.stdout.partition("exit 1\n")
    assert place in first and "No space left on device" in first and "run again" in first
    assert "Traceback" not in done.stdout
    assert second.endswith("exit 0\n"), second
    assert "cached" in steps(second).values() or size == "64k"
    assert head(open_store(workshop / "registry-disk"), "production")
