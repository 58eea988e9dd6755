"""What tests of runs on Kubeflow ask: a cluster's pods, an API of Kubeflow Pipelines, an empty registry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.orchestration.kubeflow.kfp_server import Pipelines, serving_pipelines
from tests.orchestration.kubeflow.pods_server import Cluster, serving_cluster


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    cluster = Cluster()
    with serving_cluster(cluster, tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        yield cluster


@pytest.fixture
def pipelines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipelines]:
    pipelines = Pipelines({"": set()}, multi_user=False)
    with serving_pipelines(pipelines) as host:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", host)
        yield pipelines
