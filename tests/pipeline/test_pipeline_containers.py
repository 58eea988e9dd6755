"""The whole pipeline in containers: it makes and serves the release that a run without containers makes."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker import DockerClient

from orchestration.local.docker import DRIVER
from registry.channels.channel import head
from registry.releases.fetch import fetch_release
from registry.store.open import open_store
from serving.torchserve.server import TorchServe
from tests.docker_engine import client, docker, image
from tests.pipeline.test_pipeline_run import PIPELINE, POLICY, steps
from tests.pipeline.tiny_shop import write_shop

__all__ = ["client", "image"]  # fixtures
pytestmark = [docker, pytest.mark.integration, pytest.mark.timeout(1800)]
Ended = subprocess.CompletedProcess[str]


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Path]:
    write_shop(tmp_path / "shop")
    (tmp_path / "policy.yaml").write_text(POLICY.format(name="finds something", bound=0.01))
    yield tmp_path
    for state in tmp_path.glob("serving-*"):
        TorchServe.stop(state)


def run(workshop: Path, name: str, *options: str, shop: str = "shop") -> Ended:
    """A run with a registry, a server and a folder of its own, below the workshop."""
    (workshop / name).mkdir(exist_ok=True)
    words = f"--data custom --data-dir ../{shop} --codebook-size 4 --levels 2 --epochs 2 --bootstrap"
    words += f" --gate-policy ../policy.yaml --registry ../registry-{name} --serving ../serving-{name}"
    recipe = shlex.split("--set d_model=16 --set n_layers=1 --set max_history=10 --set threads=1")
    return subprocess.run(
        [sys.executable, str(PIPELINE), "run", *shlex.split(words), *recipe, *options],
        cwd=workshop / name,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def released(workshop: Path, name: str) -> tuple[str, dict]:
    """The digest in production, and its bundle's header."""
    store = open_store(str(workshop / f"registry-{name}"))
    entry = head(store, "production")
    assert entry
    fetch_release(store, entry.release, workshop / f"bundle-{name}")
    return entry.release, json.loads((workshop / f"bundle-{name}" / "bundle.json").read_text())


@pytest.mark.usefixtures("image")
def test_a_run_in_containers_makes_and_serves_the_same_release(workshop: Path, client: DockerClient) -> None:
    contained = run(workshop, "contained", "--containers")
    assert contained.returncode == 0, contained.stdout + contained.stderr
    plain = run(workshop, "plain")
    assert plain.returncode == 0, plain.stdout + plain.stderr
    assert steps(contained.stdout).keys() == steps(plain.stdout).keys()

    (digest, header), (expected, expected_header) = (
        released(workshop, "contained"),
        released(workshop, "plain"),
    )
    assert header == expected_header
    assert digest == expected
    answer = TorchServe.attach(workshop / "serving-contained").predict({"history": ["t0", "t4"], "k": 3})
    assert answer["release"] == digest
    assert digest in contained.stdout

    assert client.containers.list(all=True, filters={"label": DRIVER}) == []


@pytest.mark.usefixtures("image")
def test_a_broken_row_stops_the_containers_too(workshop: Path) -> None:
    write_shop(workshop / "broken", extra=[("c1", "t1", 1_700_000_000, 9)])
    ended = run(workshop, "stopped", "--containers", shop="broken")
    assert ended.returncode == 1
    assert steps(ended.stdout)["validate"] == "failed"
    assert ended.stderr.startswith("The step validate failed: ")
    assert "Traceback" not in ended.stderr
    assert head(open_store(str(workshop / "registry-stopped")), "production") is None
    assert not (workshop / "serving-stopped").exists()
