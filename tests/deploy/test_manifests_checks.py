"""The checks of manifests see what a cluster would refuse or silently drop."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.manifests import FOLDER, ManifestError, Tree, check, check_inference_service, render
from tests.deploy.test_manifests import only


def spoiled(tree: Tree, path: list[Any], value: Any) -> Tree:
    """A copy with one value changed or added."""
    changed = copy.deepcopy(tree)
    node: Any = changed
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["spec", "predictor", "minReplica"], 1),
        (["spec", "predictor", "minReplicas"], "3"),
        (["spec", "predictor", "containers", 0, "readynessProbe"], {}),
        (["spec", "predictor", "containers", 0, "securityContext", "readOnly"], True),
        (["spec", "predictor", "containers", 0, "ports", 0, "containerPort"], "8080"),
        (["spec", "predictor", "deploymentStrategy", "typ"], "Recreate"),
        (["spec", "predictor", "logger"], {"mode": "all", "uri": "http://sink"}),
        (["spec", "predicter"], {}),
        (["spec", "predictor", "terminationGracePeriodSeconds"], True),
        (["apiVersion"], "serving.kserve.io/v1"),
        (["metadata", "lables"], {}),
    ],
    ids=str,
)
def test_the_check_of_inference_services_sees_mistakes(path: list[Any], value: Any) -> None:
    tree = only(render("production-kserve"), "InferenceService")
    check_inference_service(tree)
    with pytest.raises(ManifestError):
        check_inference_service(spoiled(tree, path, value))


def test_the_check_of_objects_sees_mistakes_and_kinds_that_it_does_not_know() -> None:
    for tree in render("production"):
        with pytest.raises(ManifestError):
            check(spoiled(tree, ["sepc"], {}))
    with pytest.raises(ManifestError, match="Nothing here checks a PodMonitor"):
        check({"kind": "PodMonitor"})


def test_a_kustomization_that_does_not_render_is_seen(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "kserve"))
    (folder / "base" / "service.yaml").unlink()
    with pytest.raises(ManifestError, match=r"service\.yaml"):
        render("staging", folder)
