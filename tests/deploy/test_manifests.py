"""The manifests are what a cluster takes, start a command that exists, and are as locked down as they say."""

from __future__ import annotations

import importlib.util
import ipaddress
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import pipeline
from common.code_digest import code_digest
from serving.asgi.connections import DRAIN_SECONDS
from serving.asgi.server import HUNG_SECONDS, Pod
from tests.deploy.manifests import FOLDER, ManifestError, Tree, check, render

PLAIN = ("staging", "production")
KSERVE = ("staging-kserve", "production-kserve")
OVERLAYS = (*PLAIN, *KSERVE)
DOCKERFILE = FOLDER.parents[1] / "Dockerfile"
REFERENCE = re.compile(r"\$\((\w+)\)")
PYTHONS_OWN = {"HOME", "TMPDIR"}  # read by the standard library: where a home and scratch files are


def only(objects: list[Tree], kind: str) -> Tree:
    matching = [item for item in objects if item["kind"] == kind]
    assert len(matching) == 1
    return matching[0]


def pod_of(objects: list[Tree]) -> Tree:
    """The pod's spec, whoever runs it."""
    for item in objects:
        if item["kind"] == "Deployment":
            return dict(item["spec"]["template"]["spec"])
        if item["kind"] == "InferenceService":
            return dict(item["spec"]["predictor"])
    raise AssertionError("nothing runs a pod")


def container_of(objects: list[Tree]) -> Tree:
    (container,) = pod_of(objects)["containers"]
    return dict(container)


def environment(objects: list[Tree]) -> dict[str, str]:
    container, config = container_of(objects), only(objects, "ConfigMap")
    assert container["envFrom"] == [{"configMapRef": {"name": config["metadata"]["name"]}}]
    return config["data"] | {item["name"]: item["value"] for item in container["env"]}


def arguments(objects: list[Tree]) -> list[str]:
    """The words after `pipeline`, as the container gets them."""
    container, variables = container_of(objects), environment(objects)
    assert container["command"][:3] == ["python", "-m", "pipeline"]
    return [
        REFERENCE.sub(lambda match: variables[match[1]], word)
        for word in (*container["command"][3:], *container["args"])
    ]


def parsed(words: list[str]) -> dict[str, Any]:
    """What the project's own command line makes of words; an unknown one is an error."""
    command = typer.main.get_group(pipeline.app).commands[words[0]]
    try:
        return dict(command.make_context(words[0], list(words[1:])).params)
    except Exception as error:  # typer's own class for it is not public
        raise ManifestError(str(error)) from error


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_cluster_takes_every_object(overlay: str) -> None:
    objects = render(overlay)
    for item in objects:
        check(item)
    kinds = sorted(item["kind"] for item in objects)
    shared = ["ConfigMap", "Namespace", "NetworkPolicy", "PodDisruptionBudget", "ServiceAccount"]
    own = ["Deployment", "HorizontalPodAutoscaler", "Service"] if overlay in PLAIN else ["InferenceService"]
    assert kinds == sorted(shared + own)
    name = f"car-{overlay.removesuffix('-kserve')}"
    assert only(objects, "Namespace")["metadata"]["name"] == name
    assert {item["metadata"]["namespace"] for item in objects if item["kind"] != "Namespace"} == {name}


def test_there_is_no_overlay_that_is_not_tested() -> None:
    assert {folder.name for folder in (FOLDER / "overlays").iterdir()} == set(OVERLAYS)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_container_starts_a_command_of_this_project(overlay: str) -> None:
    objects = render(overlay)
    options = parsed(arguments(objects))
    container, pod = container_of(objects), pod_of(objects)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert options["channel"] == overlay.removesuffix("-kserve")
    assert options["registry"].startswith("gs://")
    assert (options["port"], options["metrics_port"]) == (ports["http"], ports["metrics"])
    assert options["host"] == options["metrics_host"] == "0.0.0.0"  # noqa: S104 - the pod's own network
    keys = next(volume for volume in pod["volumes"] if volume["name"] == "keys")["secret"]
    mount = next(item for item in container["volumeMounts"] if item["name"] == "keys")
    assert str(options["keys"]) == f"{mount['mountPath']}/{keys['items'][0]['path']}"
    assert importlib.util.find_spec(container["command"][2])


def test_a_flag_that_does_not_exist_would_be_seen() -> None:
    words = arguments(render("production"))
    for wrong in ("--folow=30", "--metrics-port=0", "--follow=often"):
        with pytest.raises(ManifestError):
            parsed([*words, wrong])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_variable_is_used(overlay: str) -> None:
    container = container_of(render(overlay))
    variables = environment(render(overlay))
    used = {name for word in container["args"] for name in REFERENCE.findall(word)}
    assert used <= set(variables)
    assert set(variables) == used | PYTHONS_OWN
    assert not any("KEY" in name or "TOKEN" in name or "SECRET" in name for name in variables)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_may_do_next_to_nothing(overlay: str) -> None:
    objects = render(overlay)
    pod, container = pod_of(objects), container_of(objects)
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert f"--uid {pod['securityContext']['runAsUser']}" in DOCKERFILE.read_text()
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    for field in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "initContainers"):
        assert field not in pod
    assert not any("hostPath" in volume or "hostPort" in str(volume) for volume in pod["volumes"])
    assert pod["automountServiceAccountToken"] is pod["enableServiceLinks"] is False
    assert only(objects, "ServiceAccount")["automountServiceAccountToken"] is False
    labels = only(objects, "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_written_goes_to_a_volume_with_a_limit(overlay: str) -> None:
    objects = render(overlay)
    container, variables = container_of(objects), environment(objects)
    scratch = next(volume for volume in pod_of(objects)["volumes"] if volume["name"] == "scratch")
    assert scratch["emptyDir"]["sizeLimit"]
    writable = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert writable == [variables["HOME"]] == [variables["TMPDIR"]]
    for kind in ("requests", "limits"):
        assert set(container["resources"][kind]) == {"cpu", "memory", "ephemeral-storage"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_are_named_by_digest(overlay: str) -> None:
    assert re.fullmatch(r"[^:@]+@sha256:[0-9a-f]{64}", container_of(render(overlay))["image"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_ask_what_the_server_has_and_the_end_leaves_time_to_drain(overlay: str) -> None:
    objects = render(overlay)
    container = container_of(objects)
    paths = {route.path for route in Pod(None)._probes.routes}  # type: ignore[attr-defined]
    probes = {probe: container[f"{probe}Probe"]["httpGet"] for probe in ("startup", "readiness", "liveness")}
    assert {item["path"] for item in probes.values()} == paths
    assert probes["readiness"] == {"path": "/ready", "port": "http"}
    assert probes["startup"] == probes["liveness"] == {"path": "/live", "port": "http"}
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = pod_of(objects)["terminationGracePeriodSeconds"]
    assert pause + DRAIN_SECONDS < grace
    readiness = container["readinessProbe"]
    assert pause >= readiness["periodSeconds"] * readiness["failureThreshold"]
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] > HUNG_SECONDS


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_selects_pods_selects_these(overlay: str) -> None:
    objects = render(overlay)
    runner = next(item for item in objects if item["kind"] in ("Deployment", "InferenceService"))
    template = runner["spec"].get("template", runner)["metadata"]
    labels = {"app.kubernetes.io/name": "car-serving"}
    assert labels.items() <= template["labels"].items()
    assert only(objects, "PodDisruptionBudget")["spec"]["selector"] == {"matchLabels": labels}
    assert only(objects, "NetworkPolicy")["spec"]["podSelector"] == {"matchLabels": labels}
    for spread in pod_of(objects)["topologySpreadConstraints"]:
        assert spread["labelSelector"] == {"matchLabels": labels}
    options = parsed(arguments(objects))
    assert template["annotations"]["prometheus.io/scrape"] == "true"
    assert template["annotations"]["prometheus.io/port"] == str(options["metrics_port"])
    if overlay in PLAIN:
        service, scaler = only(objects, "Service")["spec"], only(objects, "HorizontalPodAutoscaler")["spec"]
        assert service["selector"] == runner["spec"]["selector"]["matchLabels"] == labels
        assert [port["targetPort"] for port in service["ports"]] == ["http"]  # metrics are not behind it
        assert scaler["scaleTargetRef"] == {
            "apiVersion": runner["apiVersion"],
            "kind": runner["kind"],
            "name": runner["metadata"]["name"],
        }
        assert "replicas" not in runner["spec"]  # or every apply would undo the autoscaler


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_network_lets_in_callers_and_prometheus_each_to_their_port(overlay: str) -> None:
    objects = render(overlay)
    policy, options = only(objects, "NetworkPolicy")["spec"], parsed(arguments(objects))
    assert sorted(policy["policyTypes"]) == ["Egress", "Ingress"]
    assert all(rule.get("from") and rule.get("ports") for rule in policy["ingress"])
    ports = [[port["port"] for port in rule["ports"]] for rule in policy["ingress"]]
    assert ports == [[options["port"]], [options["metrics_port"]]]
    assert all(rule.get("to") and rule.get("ports") for rule in policy["egress"])
    web = next(rule for rule in policy["egress"] if rule["ports"][0]["port"] == 443)
    reached = ipaddress.ip_network(web["to"][0]["ipBlock"]["cidr"])
    excluded = [ipaddress.ip_network(block) for block in web["to"][0]["ipBlock"]["except"]]
    assert all(block.subnet_of(reached) for block in excluded)
    inside = "10.1.2.3 100.64.1.1 172.17.0.1 192.168.1.1 169.254.169.254 127.0.0.1"
    for address in map(ipaddress.ip_address, inside.split()):  # the cluster's own services, and the node's
        assert any(address in block for block in excluded)


@pytest.mark.parametrize(("plain", "kserve"), list(zip(PLAIN, KSERVE, strict=True)))
def test_kserve_runs_the_same_pod(plain: str, kserve: str) -> None:
    first, second = render(plain), render(kserve)
    container = container_of(second)
    assert container.pop("name") == "kserve-container"  # by this name KServe knows the predictor
    expected = container_of(first)
    assert expected.pop("name") == "car"
    assert container == expected
    predictor, pod = pod_of(second), pod_of(first)
    pod.pop("containers")
    scaler, runner = only(first, "HorizontalPodAutoscaler")["spec"], only(first, "Deployment")["spec"]
    assert predictor.pop("containers")
    assert predictor == pod | {
        "deploymentStrategy": runner["strategy"],
        "minReplicas": scaler["minReplicas"],
        "maxReplicas": scaler["maxReplicas"],
        "scaleMetric": "cpu",
        "scaleTarget": scaler["metrics"][0]["resource"]["target"]["averageUtilization"],
    }
    annotations = only(second, "InferenceService")["metadata"]["annotations"]
    assert annotations["serving.kserve.io/deploymentMode"] == "Standard"


def test_production_is_never_smaller_than_staging() -> None:
    sizes = []
    for overlay in PLAIN:
        scaler = only(render(overlay), "HorizontalPodAutoscaler")["spec"]
        sizes.append((scaler["minReplicas"], scaler["maxReplicas"]))
    assert sizes[0][0] < sizes[1][0] and sizes[0][1] < sizes[1][1]
    assert sizes[1][0] >= 2  # a node may go without production going


def test_a_change_of_settings_rolls_the_pods_over(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "kserve"))
    config = folder / "overlays" / "production" / "kustomization.yaml"
    config.write_text(config.read_text().replace("CAR_CHANNEL=production", "CAR_CHANNEL=canary"))
    for overlay in ("production", "production-kserve"):
        old, new = only(render(overlay), "ConfigMap"), only(render(overlay, folder), "ConfigMap")
        assert old["metadata"]["name"] != new["metadata"]["name"]
        assert environment(render(overlay, folder))["CAR_CHANNEL"] == "canary"


def test_manifests_name_no_secret_and_make_none() -> None:
    for overlay in OVERLAYS:
        assert not any(item["kind"] == "Secret" for item in render(overlay))
    for path in FOLDER.rglob("*.yaml"):
        for item in yaml.safe_load_all(path.read_text()):
            assert "secretGenerator" not in item and item.get("kind") != "Secret"


def test_an_image_in_a_manifest_changes_no_digest_of_the_code(tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(FOLDER.parent, root / "deploy")
    (root / "serving").mkdir()
    old = code_digest(root)
    overlay = root / "deploy" / "kserve" / "overlays" / "production" / "kustomization.yaml"
    overlay.write_text(overlay.read_text().replace("sha256:0", "sha256:1"))
    assert code_digest(root) == old
    (root / "serving" / "pod.py").write_text("# other code\n")
    assert code_digest(root) != old
