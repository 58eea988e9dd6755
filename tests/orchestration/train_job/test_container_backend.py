"""Training handed over to containers: as good as one process, seen to fail, and taken up again."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient
from docker.models.containers import Container

from orchestration.step import IMAGE
from tests.docker_engine import client, docker, image
from tests.orchestration.train_job.test_launch import (
    LONG,
    PATIENCE,
    alone,
    assert_same,
    ended,
    inputs,
    state,
    step,
    wait_for,
)

__all__ = ["alone", "client", "image", "inputs"]  # fixtures
pytestmark = [docker, pytest.mark.integration, pytest.mark.timeout(3 * PATIENCE)]
TWO_NODES = {"nodes": 2, "image": IMAGE}


def engine_of(client: DockerClient) -> dict[str, str]:
    """Where the SDK finds the engine that the tests use."""
    return {"DOCKER_HOST": os.environ.get("DOCKER_HOST", client.api.base_url)}


def nodes(client: DockerClient) -> list[Container]:
    """The containers of training jobs, ended ones too."""
    return [container for container in client.containers.list(all=True) if container.name.startswith("car-")]


@pytest.mark.usefixtures("image")
def test_two_containers_train_as_the_step_does(
    inputs: Path, alone: Path, tmp_path: Path, client: DockerClient
) -> None:
    code, log = ended(step(inputs, tmp_path, TWO_NODES, backend="container", **engine_of(client)), tmp_path)
    assert code == 0, log
    assert_same(tmp_path / "result", alone)
    assert "2 x 1 processes" in log
    assert [line for line in log.splitlines() if "6/6" in line]
    assert nodes(client) == []


@pytest.mark.usefixtures("image")
def test_a_killed_container_fails_the_step_and_a_rerun_resumes(
    inputs: Path, tmp_path: Path, client: DockerClient
) -> None:
    running = step(inputs, tmp_path, TWO_NODES, LONG, "container", **engine_of(client))
    wait_for(lambda: state(tmp_path)["epoch"] >= 3, running)
    containers = sorted(nodes(client), key=lambda container: str(container.name))
    assert len(containers) == 2
    containers[1].kill()
    code, log = ended(running, tmp_path)
    assert code == 1
    assert "orchestration.train_job.launch.TrainJobError: The training job car-" in log
    left: dict[str, Any] = state(tmp_path)
    assert 3 <= left["epoch"] < LONG["epochs"]
    assert nodes(client) == []

    code, log = ended(step(inputs, tmp_path, TWO_NODES, LONG, "container", **engine_of(client)), tmp_path)
    assert code == 0, log
    curves = json.loads((tmp_path / "result" / "curves.json").read_text())
    assert curves["train_loss"][: left["epoch"]] == left["curves"]["train_loss"]
