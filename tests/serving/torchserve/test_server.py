"""One real TorchServe with the first release."""

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import requests
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from serving.answering.golden import GoldenRequests
from serving.errors import RequestRefusedError, ServingError
from serving.torchserve import process
from serving.torchserve.config import Ports, ServerConfig
from serving.torchserve.infra_validation import BAD_REQUESTS
from serving.torchserve.server import TorchServe
from serving.torchserve.state_dir import StateDir
from serving.torchserve.versions import replay_on_server
from tests.serving.conftest import Release

pytestmark = pytest.mark.integration


def test_golden_requests_give_the_evaluated_answers(server: TorchServe, first: Release) -> None:
    report = replay_on_server(server.client, GoldenRequests.read(first.golden), first.digest, samples=20)
    assert report.passed, report.sentence()
    assert 0 < report.p50_ms <= report.p99_ms
    wrong = replay_on_server(server.client, GoldenRequests.read(first.golden), "another release", samples=0)
    assert not wrong.passed
    assert 'expected "another release"' in wrong.sentence()


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_bad_request_gets_400_and_a_sentence(server: TorchServe, name: str) -> None:
    reply = server.client.send(BAD_REQUESTS[name])
    assert reply.status_code == 400
    assert reply.json()["error"].endswith(".")
    with pytest.raises(RequestRefusedError, match=r"'k'") as refused:
        server.predict({"history": [], "k": 0})
    assert refused.value.status == 400


def test_good_and_bad_requests_in_one_batch_keep_apart(server: TorchServe) -> None:
    bodies = [b'{"history": ["i1"], "k": 2}', b"{", b'{"history": []}', b""] * 10
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda body: server.client.send(body).status_code, bodies))
    assert statuses == [200, 400, 200, 400] * 10


def test_nobody_gets_in_without_the_key(server: TorchServe) -> None:
    url = server.client.prediction_url
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        reply = requests.post(url, data=b'{"history": []}', headers=headers, timeout=10)
        assert reply.status_code == 400
        assert reply.json()["type"] == "InvalidKeyException"


def test_archives_come_from_the_store_only(server: TorchServe, first: Release) -> None:
    for source in (first.archive.as_uri(), "https://example.com/car.mar", "../car.mar"):
        with pytest.raises(RequestRefusedError):
            server.client.register(source)


def test_keys_are_private_and_in_no_log_or_command_line(server: TorchServe) -> None:
    state = server.state
    server.client.refresh_header()
    keys = [entry["key"] for entry in json.loads(state.keys.read_text()).values()]
    for path in (state.keys, state.header):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.root.stat().st_mode) == 0o700
    texts = [path.read_text() for path in state.logs.glob("*.log")]
    for child in process.find_processes(state):
        texts += [" ".join(child.cmdline()), json.dumps(child.environ())]
    assert len(keys) == 3
    assert not [key for key in keys for text in texts if key in text]


def test_a_second_server_in_the_folder_is_refused(server: TorchServe) -> None:
    with pytest.raises(ServingError, match=r"runs in .* already; stop it first"):
        TorchServe.start(server.state.root)
    assert server.is_up()


def test_a_taken_port_is_named_before_anything_starts(server: TorchServe, tmp_path: Path) -> None:
    with pytest.raises(ServingError, match=rf"Port {server.ports.inference} .*is taken"):
        TorchServe.start(tmp_path, ports=server.ports)
    assert process.find_processes(StateDir(tmp_path)) == []


def test_a_killed_worker_comes_back(server: TorchServe) -> None:
    version = server.client.default_version()
    assert version is not None
    workers = [
        item
        for item in process.find_processes(server.state)
        if item != process.frontend_process(server.state)
    ]
    workers[0].kill()
    psutil.wait_procs(workers, timeout=10)

    @retry(stop=stop_after_delay(90), wait=wait_fixed(0.2), retry=retry_if_result(lambda good: not good))
    def recovered() -> bool:
        try:
            return server.client.send(b'{"history": ["i1"]}').status_code == 200
        except ServingError:  # the request that the worker took with it
            return False

    assert recovered()


def test_logs_stay_small(server: TorchServe) -> None:
    log_bytes = (server.state.logs / "server.log").stat().st_size
    for _ in range(50):
        server.predict({"history": ["i1"], "k": 1})
    assert (server.state.logs / "server.log").stat().st_size == log_bytes


def test_it_outlives_the_process_that_started_it(server: TorchServe) -> None:
    leader = process.frontend_process(server.state)
    assert leader is not None
    assert os.getsid(leader.pid) == leader.pid != os.getsid(0)
    assert TorchServe.attach(server.state.root).ports == server.ports


def test_expired_keys_are_renewed(tmp_path: Path) -> None:
    server = TorchServe.start(tmp_path, ServerConfig(token_minutes=0.02))
    try:
        old = dict([server.state.header.read_text().strip().split(": ", 1)])
        ping = f"http://127.0.0.1:{server.ports.inference}/ping"

        @retry(stop=stop_after_delay(30), wait=wait_fixed(0.1), retry=retry_if_result(lambda gone: not gone))
        def refused() -> bool:
            return requests.get(ping, headers=old, timeout=10).status_code == 400

        assert refused()
        assert server.client.ping()
        assert server.client.versions() == {}
        assert dict([server.state.header.read_text().strip().split(": ", 1)]) != old
    finally:
        assert TorchServe.stop(tmp_path) == 1
    assert not server.state.keys.exists()
    assert not server.state.header.exists()
    with pytest.raises(ServingError, match=r"no keys in .*not running"):
        server.client.ping()


def test_a_server_that_dies_at_its_start_shows_its_log(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match=r"ended at its start; its log ends with:\n(.*\n)*.*heap"):
        TorchServe.start(tmp_path, ServerConfig(heap_mb=1), ports=Ports.choose())
    assert process.find_processes(StateDir(tmp_path)) == []


def test_a_server_is_stopped_from_the_place_that_its_folder_was_moved_to(tmp_path: Path) -> None:
    server = TorchServe.start(tmp_path / "before")
    try:
        (tmp_path / "before").rename(tmp_path / "after")
        assert TorchServe.stop(tmp_path / "after") == 1
        assert process.frontend_process(server.state) is None
    finally:
        process.stop_processes(server.state)
