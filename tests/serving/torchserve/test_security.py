"""What docs/security.md claims of the server on one machine, asked of a live TorchServe."""

from __future__ import annotations

import json
import shlex
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
import requests

from common.digests import file_digest
from serving.answering.golden import GoldenRequests
from serving.archive.build import MODEL_NAME
from serving.errors import RequestRefusedError, ServingError
from serving.torchserve import process
from serving.torchserve.config import LOOPBACK, UNREACHABLE
from serving.torchserve.rollover import DeployError, curl_line, restore, roll_over
from serving.torchserve.server import TorchServe
from serving.torchserve.state_dir import StateDir
from serving.torchserve.versions import replay_on_server
from tests.deploy.lockdown import locked_down
from tests.serving.conftest import Release

pytestmark = pytest.mark.integration
SECRET_ITEM = "what-nobody-may-know-that-i-like"
HOSTILE_SETTINGS = {  # TorchServe would read them, were it allowed to
    "TS_INSTALL_PY_DEP_PER_MODEL": "true",
    "TS_ALLOWED_URLS": ".*",
    "TS_DISABLE_TOKEN_AUTHORIZATION": "true",
    "TS_INFERENCE_ADDRESS": "http://0.0.0.0:8080",
    "AWS_SECRET_ACCESS_KEY": "a-credential-of-the-operator",
}


@pytest.fixture(scope="module")
def deployed(state_dir: Path, first: Release) -> Iterator[TorchServe]:
    """A server that was deployed to from an environment that wants it open."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in HOSTILE_SETTINGS.items():
            patch.setenv(name, value)
        roll_over(
            first.archive, first.digest, state_dir, first.golden, validated_sha256=file_digest(first.archive)
        )
    yield TorchServe.attach(state_dir)
    TorchServe.stop(state_dir)


def keys_of(state: StateDir) -> list[str]:
    keys = [entry["key"] for entry in json.loads(state.keys.read_text()).values()]
    assert len(keys) == 3
    return keys


def test_every_socket_that_listens_is_on_loopback(deployed: TorchServe) -> None:
    addresses = set()
    for item in process.find_processes(deployed.state):
        for listener in item.net_connections(kind="inet"):
            if listener.status == psutil.CONN_LISTEN or listener.type != 1:
                addresses.add((listener.laddr.ip.removeprefix("::ffff:"), listener.laddr.port))
    grpc = {address for address in addresses if address[0] == UNREACHABLE}
    assert addresses - grpc == {(LOOPBACK, port) for port in asdict(deployed.ports).values()}
    assert len(grpc) == 2
    for address in grpc:
        with socket.socket() as caller, pytest.raises(OSError, match="Network is unreachable"):
            caller.connect(address)


def test_the_live_server_says_that_it_is_closed(deployed: TorchServe) -> None:
    """Its own account at the start, not the file that it was given."""
    log = (deployed.state.logs / "server.log").read_text()
    for line in (
        "Custom python dependency for model allowed: false",
        "Allowed Urls: [file://none/.*]",
        f"Model Store: {deployed.state.store}",
        f"Inference address: http://{LOOPBACK}:{deployed.ports.inference}",
        f"Management address: http://{LOOPBACK}:{deployed.ports.management}",
        f"Metrics address: http://{LOOPBACK}:{deployed.ports.metrics}",
    ):
        assert line in log
    for item in process.find_processes(deployed.state):
        assert not set(HOSTILE_SETTINGS) & set(item.environ())


@pytest.mark.parametrize(
    ("method", "of", "path"),
    [
        ("POST", "inference", "/predictions/car"),
        ("GET", "inference", "/ping"),
        ("GET", "management", "/models"),
        ("POST", "management", "/models?url=car.mar"),
        ("DELETE", "management", "/models/car"),
        ("GET", "management", "/token?type=inference"),
    ],
)
def test_nothing_is_answered_without_its_own_key(
    deployed: TorchServe, method: str, of: str, path: str
) -> None:
    url = f"http://{LOOPBACK}:{getattr(deployed.ports, of)}{path}"
    keys = json.loads(deployed.state.keys.read_text())
    other_key = keys["management" if of == "inference" else "inference"]["key"]
    for authorization in (None, "Bearer", "Bearer wrong", f"Bearer {other_key}", f"Basic {other_key}"):
        headers = {"Authorization": authorization} if authorization else {}
        refused = requests.request(method, url, headers=headers, data=b'{"history": []}', timeout=30)
        assert refused.status_code == 400
        assert refused.json()["type"] == "InvalidKeyException"
    assert deployed.client.default_version() is not None


def test_no_key_and_no_request_is_in_a_log_or_on_a_command_line(deployed: TorchServe) -> None:
    state = deployed.state
    request = {"history": [SECRET_ITEM], "k": 2, "exclude": [SECRET_ITEM]}
    line = curl_line(deployed, request)
    curl = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert json.loads(curl.stdout)["skipped"] == [SECRET_ITEM]
    command = [sys.executable, "-m", "serving", "ask", "--history", "i1", "--serving", str(state.root)]
    ask = subprocess.run(command, capture_output=True, text=True, check=True)
    for body in (b"{", json.dumps({"history": [SECRET_ITEM], "k": 0}).encode(), SECRET_ITEM.encode()):
        assert deployed.client.send(body).status_code == 400
    url = deployed.client.prediction_url
    assert (
        requests.post(url, data=b"{}", headers={"Authorization": "Bearer wrong-key"}, timeout=30).status_code
        == 400
    )
    requests.post(f"{url}?token={keys_of(state)[0][:4]}", data=b"{}", timeout=30)
    written = [curl.stderr, ask.stdout, ask.stderr, line]
    written += [path.read_bytes().decode("latin-1") for path in state.logs.iterdir()]
    for item in psutil.process_iter():
        try:
            written.append(" ".join(item.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    written += [json.dumps(item.environ()) for item in process.find_processes(state)]
    for key in (*keys_of(state), "wrong-key"):
        assert not [text for text in written if key in text]
    logs = [path.read_bytes().decode("latin-1") for path in state.logs.iterdir()]
    assert not [log for log in logs if SECRET_ITEM in log]  # who likes what is in no log


def test_only_the_owner_may_look_into_the_state(deployed: TorchServe) -> None:
    assert stat.S_IMODE(deployed.state.root.stat().st_mode) == 0o700
    keys = keys_of(deployed.state)
    holders = {
        path.relative_to(deployed.state.root).as_posix()
        for path in deployed.state.root.rglob("*")
        if path.is_file() and any(key.encode() in path.read_bytes() for key in keys)
    }
    assert holders == {"key_file.json", "inference.header"}
    for name in holders:
        assert stat.S_IMODE((deployed.state.root / name).stat().st_mode) == 0o600


@pytest.fixture
def elsewhere(first: Release) -> Iterator[tuple[str, list[str]]]:
    """A web server that offers an archive, and what was asked of it."""
    paths: list[str] = []

    class Offer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(first.archive.read_bytes())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((LOOPBACK, 0), Offer) as offering:
        threading.Thread(target=offering.serve_forever, daemon=True).start()
        yield f"http://{LOOPBACK}:{offering.server_port}", paths
        offering.shutdown()


def test_archives_come_from_the_model_store_and_nowhere_else(
    deployed: TorchServe, second: Release, elsewhere: tuple[str, list[str]], tmp_path: Path
) -> None:
    base, paths = elsewhere
    foreign = Path(shutil.copy(second.archive, tmp_path / "foreign.mar"))
    registered = deployed.client.versions()
    relative = f"../../../../../../../../../..{foreign}"
    sources = [
        f"{base}/car.mar",
        foreign.as_uri(),
        str(foreign),
        relative,
        "s3://bucket/car.mar",
        "file://none/../x",
    ]
    for source in sources:
        with pytest.raises(RequestRefusedError):
            deployed.client.register(source)
    assert paths == []  # not even looked at
    assert deployed.client.versions() == registered
    assert not list(deployed.state.store.glob("*foreign*"))


def changed(archive: Path, target: Path) -> Path:
    """The archive with one bit changed."""
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    target.write_bytes(content)
    return target


def with_requirements(archive: Path, target: Path) -> Path:
    """The archive, asking for a package: a whole zip, a valid model, and not what was validated."""
    shutil.copy(archive, target)
    with zipfile.ZipFile(target) as opened:
        manifest = json.loads(opened.read("MAR-INF/MANIFEST.json"))
    manifest["model"]["requirementsFile"] = "requirements.txt"
    manifest["model"]["modelVersion"] = "with-requirements"
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(target, "w") as sink:
        for name in source.namelist():
            if name != "MAR-INF/MANIFEST.json":
                sink.writestr(name, source.read(name))
        sink.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        sink.writestr("requirements.txt", "./no-such-package\n")
    return target


@pytest.mark.parametrize("spoil", [changed, with_requirements])
def test_an_archive_that_was_not_validated_is_not_served(
    deployed: TorchServe, first: Release, second: Release, tmp_path: Path, spoil: object
) -> None:
    registered = deployed.client.versions()
    spoiled = spoil(second.archive, tmp_path / "spoiled.mar")  # type: ignore[operator]
    validated = file_digest(second.archive)
    with pytest.raises(DeployError, match=r"has digest|is not|damaged"):
        roll_over(spoiled, second.digest, deployed.state.root, second.golden, validated_sha256=validated)
    assert deployed.client.versions() == registered
    assert deployed.predict({"history": ["i1"], "k": 1})["release"] == first.digest


def test_no_archive_installs_packages(deployed: TorchServe, first: Release) -> None:
    """Even one in the model store, registered with the management key: pip never runs."""
    stored = with_requirements(first.archive, deployed.state.store / "asks.mar")
    position = process.log_position(deployed.state)
    try:
        deployed.client.register(stored.name)
        deployed.wait_for_workers("with-requirements", position)
        log = (deployed.state.logs / "server.log").read_bytes()[position:].decode()
        assert "no-such-package" not in log and "pip" not in log
    finally:
        if "with-requirements" in deployed.client.versions():
            deployed.client.unregister("with-requirements")
        stored.unlink()


def test_a_stored_archive_that_was_changed_does_not_come_back(first: Release, tmp_path: Path) -> None:
    roll_over(
        first.archive, first.digest, tmp_path, first.golden, validated_sha256=file_digest(first.archive)
    )
    TorchServe.stop(tmp_path)
    [stored] = StateDir(tmp_path).store.glob(f"{MODEL_NAME}*.mar")
    changed(stored, stored)
    with pytest.raises(ServingError, match="deploy the release again"):
        restore(tmp_path)
    assert process.find_processes(StateDir(tmp_path)) == []


def test_it_runs_without_rights_on_a_read_only_system(first: Release) -> None:
    """As user 10001 without capabilities, where only the state folder can be written to."""
    folder = Path(tempfile.mkdtemp(prefix="car-"))  # a short path: sockets lie in the folder itself
    try:
        prefix = locked_down(folder)
        state = StateDir(folder / "state")
        assert state.scratch.is_relative_to(state.root)
        roll_over(
            first.archive, first.digest, state.root, first.golden, validated_sha256=file_digest(first.archive)
        )
        TorchServe.stop(state.root)
        command = [*prefix, sys.executable, "-m", "serving", "start", "--serving", str(state.root)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result
        server = TorchServe.attach(state.root)
        report = replay_on_server(server.client, GoldenRequests.read(first.golden), first.digest, samples=0)
        assert report.passed, report.sentence()
        for item in process.find_processes(state):
            status = Path(f"/proc/{item.pid}/status").read_text()
            assert "CapEff:\t0000000000000000" in status and "NoNewPrivs:\t1" in status
        assert "Traceback" not in (state.logs / "server.log").read_text()
    finally:
        TorchServe.stop(folder / "state")
        shutil.rmtree(folder)


def test_the_key_is_quoted_into_no_shell(deployed: TorchServe) -> None:
    words = shlex.split(curl_line(deployed, {"history": ["'; touch /tmp/x; '"], "k": 1}))
    assert words[words.index("-H") + 1] == f"@{deployed.state.header}"
    assert "touch" in words[words.index("--data") + 1]  # one word still
