"""The container of the production overlay, run by a Docker engine as the manifest says it is to run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient
from docker.models.containers import Container
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from registry.store.open import open_store
from tests.deploy.manifests import render
from tests.deploy.test_manifests import arguments, container_of, environment, only, pod_of
from tests.docker_engine import client, docker, image
from tests.serving.conftest import REQUESTS, Release, first
from tests.serving.pods import KEY, in_production, released

__all__ = ["client", "first", "image"]  # fixtures
pytestmark = [pytest.mark.integration, docker]
ASK = """
import sys, urllib.error, urllib.request
path, key, body = sys.argv[1:]
headers = {"Authorization": f"Bearer {key}"} if key else {}
asked = urllib.request.Request(f"http://127.0.0.1:8080{path}", body.encode() or None, headers)
try:
    with urllib.request.urlopen(asked) as reply:
        print(reply.status, reply.read().decode())
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
except OSError as error:
    print(0, error)
"""
UNITS = {"Mi": "m", "Gi": "g"}


def settings(objects: list[dict[str, Any]]) -> dict[str, Any]:
    """What Docker is to be told so that a container has what the manifest gives it, and no more."""
    pod, container = pod_of(objects), container_of(objects)
    rights, user = container["securityContext"], pod["securityContext"]
    memory = container["resources"]["limits"]["memory"]
    scratch = next(mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "scratch")
    return {
        "user": f"{user['runAsUser']}:{user['runAsGroup']}",
        "read_only": rights["readOnlyRootFilesystem"],
        "cap_drop": rights["capabilities"]["drop"],
        "security_opt": [] if rights["allowPrivilegeEscalation"] else ["no-new-privileges"],
        "mem_limit": memory[:-2] + UNITS[memory[-2:]],
        "tmpfs": {scratch: f"uid={user['runAsUser']},mode=0700,noexec"},
        "network_mode": "none",
    }


def ask(server: Container, path: str, key: str = "", body: Any = None) -> tuple[int, str]:
    data = json.dumps(body) if body is not None else ""
    _, output = server.exec_run(["python", "-c", ASK, path, key, data])
    status, _, text = output.decode().partition(" ")
    return int(status), text


@pytest.fixture
def server(client: DockerClient, image: str, tmp_path: Path, first: Release) -> Iterator[Container]:
    """The production overlay's container, with a registry in a folder in place of the bucket."""
    store = open_store(tmp_path / "registry")
    in_production(store, released(store, first))
    (tmp_path / "keys").write_text(f"{KEY}\n")
    for path in (tmp_path, *tmp_path.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    objects = render("production")
    bucket = only(objects, "ConfigMap")["data"]["CAR_REGISTRY"]
    words = [
        "/registry" if word == bucket else word.replace(bucket, "/registry") for word in arguments(objects)
    ]
    container = client.containers.run(
        image,
        [*container_of(objects)["command"][:3], *words],
        environment=environment(objects) | {"CAR_REGISTRY": "/registry"},
        volumes={
            store.url: {"bind": "/registry", "mode": "ro"},
            str(tmp_path / "keys"): {"bind": "/var/run/secrets/car/keys", "mode": "ro"},
        },
        detach=True,
        **settings(objects),
    )
    try:
        yield container
    finally:
        container.remove(force=True)


def test_the_manifest_s_container_answers_under_its_own_limits(server: Container, first: Release) -> None:
    @retry(stop=stop_after_delay(240), wait=wait_fixed(1), retry=retry_if_result(lambda ready: not ready))
    def ready() -> bool:
        server.reload()
        assert server.status == "running", server.logs().decode()
        return ask(server, "/ready")[0] == 200

    ready()
    expected = json.loads(first.golden.read_text())["answers"][0] | {"release": first.digest}
    status, answer = ask(server, "/predictions/car", KEY, REQUESTS[0])
    assert (status, json.loads(answer)) == (200, expected)
    assert ask(server, "/predictions/car", "", REQUESTS[0])[0] == 401
    _, identity = server.exec_run(["sh", "-c", "id -u; touch /opt/x /home/car/x; grep CapEff /proc/1/status"])
    output = identity.decode()
    assert output.startswith("10001\n") and output.count("Read-only file system") == 2
    assert "CapEff:\t0000000000000000" in output
    used = server.stats(stream=False)["memory_stats"]
    assert used["usage"] < used["limit"]
    assert KEY not in server.logs().decode()
    server.stop(timeout=60)
    assert server.wait()["StatusCode"] in (0, 143)
    assert "Traceback" not in server.logs().decode()
