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

GROWING = """
mount -t tmpfs -o size=64k none "$1" || exit 77
cd "$1"
for size in 64k 1200k 1g; do
  mount -o remount,size=$size "$1"
  {run}
  echo "exit $?"
done
"""


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Path]:
    prepare(tmp_path)
    (tmp_path / "disk").mkdir()
    yield tmp_path
    TorchServe.stop(tmp_path / "serving-disk")


def test_a_full_disk_is_told_and_a_rerun_completes(workshop: Path) -> None:
    script = GROWING.format(run=shlex.join(command("disk")))
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
    tiny, small, large = done.stdout.split("exit 1\n")
    assert "There is no room for" in tiny
    assert "The step " in small
    for refusal in (tiny, small):
        assert "No space left on device" in refusal and "run again" in refusal
    assert "Traceback" not in done.stdout
    assert large.endswith("exit 0\n"), large
    assert "cached" in steps(large).values()
    assert head(open_store(workshop / "registry-disk"), "production")
