"""Renders serving/kserve with the real kustomize and checks every object strictly, InferenceServices too."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import kubernetes_validate
import yaml
from kubernetes import client as kubernetes

Tree = dict[str, Any]
FOLDER = Path(__file__).parents[2] / "deploy" / "kserve"
KUBECTL = Path(sys.executable).with_name("kubectl")
KUBERNETES = "1.37"
SCALARS = {"str": str, "int": int, "bool": bool}
KINDS = {
    "ConfigMap", "Deployment", "HorizontalPodAutoscaler", "Namespace", "NetworkPolicy", "PodDisruptionBudget",
    "Service", "ServiceAccount",
}  # fmt: skip


class ManifestError(ValueError):
    """An object that a cluster would refuse, or a part of it silently drop."""


@cache
def _rendered(folder: Path) -> str:
    result = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, check=False)
    if result.returncode or result.stderr:  # a warning is a mistake as well
        raise ManifestError(f"{folder.name}: {result.stderr}")
    return result.stdout


def render(overlay: str, folder: Path = FOLDER) -> list[Tree]:
    """All objects of an overlay."""
    return list(yaml.safe_load_all(_rendered(folder / "overlays" / overlay)))


def check(tree: Tree) -> None:
    """Hold an object to Kubernetes' or KServe's own schema; raises ManifestError."""
    if tree["kind"] == "InferenceService":
        check_inference_service(tree)
    elif tree["kind"] in KINDS:  # the validator lets kinds pass that it does not know
        _strictly(tree)
    else:
        raise ManifestError(f"Nothing here checks a {tree['kind']}.")


def check_inference_service(tree: Tree) -> None:
    """Hold an InferenceService to KServe's models, and the pod in it to Kubernetes' schema."""
    models = _kserve_models()
    if (
        set(tree) != {"apiVersion", "kind", "metadata", "spec"}
        or tree["apiVersion"] != "serving.kserve.io/v1beta1"
    ):
        raise ManifestError("An InferenceService has apiVersion, kind, metadata and spec.")
    _strictly({"apiVersion": "v1", "kind": "ConfigMap", "metadata": tree["metadata"]})
    _walk(tree["spec"], "V1beta1InferenceServiceSpec", "spec", models)
    predictor = tree["spec"]["predictor"]
    of_pods = set(kubernetes.V1PodSpec.attribute_map.values())
    pod = {name: value for name, value in predictor.items() if name in of_pods}
    _strictly({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "car"}, "spec": pod})
    if strategy := predictor.get("deploymentStrategy"):
        match = {"matchLabels": {"a": "b"}}
        template = {"metadata": {"labels": {"a": "b"}}, "spec": pod}
        spec = {"selector": match, "template": template, "strategy": strategy}
        _strictly({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "car"}, "spec": spec})


def _strictly(tree: Tree) -> None:
    try:
        kubernetes_validate.validate(tree, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        raise ManifestError(f"{tree['kind']}: {error.message} at {list(error.path)}") from error


def _walk(value: Any, kind: str, where: str, models: ModuleType) -> None:
    """Check a value against a type of KServe's generated models; Kubernetes' own are checked apart."""
    if items := re.fullmatch(r"list\[(.+)\]", kind):
        _expect(value, list, where)
        for index, item in enumerate(value):
            _walk(item, items[1], f"{where}[{index}]", models)
    elif values := re.fullmatch(r"dict\(str, (.+)\)", kind):
        _expect(value, dict, where)
        for name, item in value.items():
            _walk(item, values[1], f"{where}.{name}", models)
    elif kind in SCALARS:
        _expect(value, SCALARS[kind], where)
    elif model := getattr(models, kind, None):
        _expect(value, dict, where)
        types = {model.attribute_map[name]: kind for name, kind in model.openapi_types.items()}
        if unknown := sorted(set(value) - set(types)):
            raise ManifestError(f"{where} has the unknown {', '.join(unknown)}")
        for name, item in value.items():
            _walk(item, types[name], f"{where}.{name}", models)


def _expect(value: Any, kind: type, where: str) -> None:
    if type(value) is not kind:
        raise ManifestError(f"{where} is {type(value).__name__}, not {kind.__name__}")


@cache
def _kserve_models() -> ModuleType:
    """`kserve.models` alone: `import kserve` starts with a server whose dependencies are not installed."""
    spec = importlib.util.find_spec("kserve")
    assert spec and spec.submodule_search_locations, "kserve is not installed: run make dev"
    parent = ModuleType("kserve")
    parent.__path__ = list(spec.submodule_search_locations)
    sys.modules["kserve"] = parent
    return importlib.import_module("kserve.models")
