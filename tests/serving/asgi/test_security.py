"""What docs/security.md claims of a pod, asked of the very command that the manifests start."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from registry.store.open import open_store
from serving.torchserve.config import LOOPBACK
from tests.deploy.lockdown import USER, locked_down
from tests.serving.conftest import REQUESTS, Release
from tests.serving.pods import KEY, Running, in_production, pod, released

pytestmark = pytest.mark.integration
SECRET_ITEM = "what-nobody-may-know-that-i-like"
WRONG = "a-wrong-key-" + "w" * 30


@pytest.fixture(scope="module")
def locked(first: Release) -> Iterator[Running]:
    """A pod as user 10001 without capabilities, where nothing but its scratch folder can be written to."""
    folder = Path(tempfile.mkdtemp(prefix="car-pod-"))
    scratch = folder / "scratch"
    scratch.mkdir()
    store = open_store(folder / "registry")
    in_production(store, released(store, first))
    keys = folder / "keys"
    keys.write_text(f"{KEY}\n")
    arguments = ["production", "--registry", store.url, "--follow", "1", "--keys", str(keys)]
    env = {"HOME": str(scratch), "TMPDIR": str(scratch)}
    try:
        with pod(folder, arguments, locked_down(scratch), env) as server:
            server.wait(lambda: server.get("/ready").status_code == 200)
            yield server
            assert list(scratch.glob("car-*")) == []  # what a release was brought in with is gone
    finally:
        shutil.rmtree(folder)


def test_it_answers_without_rights_on_a_read_only_system(locked: Running, first: Release) -> None:
    expected = json.loads(first.golden.read_text())["answers"]
    for request, answer in zip(REQUESTS, expected, strict=True):
        assert locked.ask(request).json() == answer | {"release": first.digest}
    status = Path(f"/proc/{locked.process.pid}/status").read_text()
    assert "CapEff:\t0000000000000000" in status and "NoNewPrivs:\t1" in status
    # what the process itself is told; from here, the parent namespace's user is seen
    assert f"{USER} {os.getuid()} 1" in " ".join(
        Path(f"/proc/{locked.process.pid}/uid_map").read_text().split()
    )


def test_it_listens_on_loopback_unless_told_otherwise(locked: Running) -> None:
    sockets = psutil.Process(locked.process.pid).net_connections(kind="inet")
    addresses = {
        (connection.laddr.ip, connection.laddr.port)
        for connection in sockets
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses == {(LOOPBACK, locked.port), (LOOPBACK, locked.metrics_port)}


def test_no_key_and_no_request_is_in_its_log_or_on_its_command_line(locked: Running) -> None:
    assert locked.ask({"history": [SECRET_ITEM], "k": 1}).json()["skipped"] == [SECRET_ITEM]
    assert locked.ask({"history": [SECRET_ITEM], "k": 0}).status_code == 400
    assert locked.ask({"history": []}, key=WRONG).status_code == 401
    assert locked.ask({"history": []}, key=None).status_code == 401
    assert locked.get(f"/{KEY}", key=KEY).status_code == 404
    assert locked.get("/", key="broken\theader").status_code == 401
    server = psutil.Process(locked.process.pid)
    written = [locked.log.read_text(), " ".join(server.cmdline()), json.dumps(server.environ())]
    for secret in (KEY, WRONG, SECRET_ITEM):
        assert not [text for text in written if secret in text]
    assert locked.get("/ready").status_code == 200


def test_there_is_nothing_to_manage_in_a_pod(locked: Running) -> None:
    for path in ("/models", "/models/car", "/token", "/predictions", "/docs", "/redoc", "/admin"):
        for verb in ("GET", "POST", "PUT", "DELETE"):
            assert locked.call(verb, path, KEY).status_code == 404
    for verb in ("GET", "PUT", "DELETE"):
        assert locked.call(verb, "/predictions/car", KEY).status_code == 405
