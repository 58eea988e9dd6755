"""A server without a follower: its supervisor brings it back, keeps its header valid, and ends with it."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import psutil
import pytest
import requests

from common.digests import file_digest
from serving.torchserve import process
from serving.torchserve.config import ServerConfig
from serving.torchserve.process import supervisor_process
from serving.torchserve.rollover import restart_if_dead, roll_over
from serving.torchserve.server import TorchServe
from serving.torchserve.state_dir import StateDir
from tests.serving.conftest import REQUESTS, SUPERVISE, Release
from tests.serving.deployment.following import wait_until
from tests.serving.torchserve.test_faults import command

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


@pytest.fixture
def supervised(state_dir: Path, first: Release, monkeypatch: pytest.MonkeyPatch) -> TorchServe:
    """A deployed server with its supervisor."""
    monkeypatch.setattr(process, "supervise", SUPERVISE)
    deploy(first, state_dir)
    return TorchServe.attach(state_dir)


def deploy(release: Release, state_dir: Path, config: ServerConfig | None = None) -> None:
    validated = file_digest(release.archive)
    roll_over(release.archive, release.digest, state_dir, release.golden, config, validated_sha256=validated)


def supervisor(server: TorchServe) -> psutil.Process:
    found = supervisor_process(server.state)
    assert found is not None
    return found


def kill(server: TorchServe) -> None:
    for item in process.find_processes(server.state):
        item.kill()


def answers(server: TorchServe) -> str | None:
    try:
        return str(TorchServe.attach(server.state.root).predict(REQUESTS[0])["release"])
    except Exception:
        return None


def test_a_killed_server_comes_back_by_itself(supervised: TorchServe, first: Release) -> None:
    watcher = supervisor(supervised)
    assert os.getsid(watcher.pid) == watcher.pid  # it outlives the terminal
    kill(supervised)
    status = command(supervised, "status")
    assert status.returncode == 1
    assert f"its supervisor (process {watcher.pid}) starts it soon" in " ".join(status.stderr.split())
    wait_until(lambda: answers(supervised) == first.digest)
    assert TorchServe.attach(supervised.state.root).ports == supervised.ports
    log = supervised.state.logs / "supervisor.log"
    wait_until(lambda: "deployed last, answers again." in log.read_text())
    assert str(watcher.pid) in command(supervised, "status").stdout
    assert supervisor(supervised) == watcher


def test_a_server_that_hangs_is_replaced(supervised: TorchServe, first: Release) -> None:
    front_end = process.frontend_process(supervised.state)
    assert front_end is not None
    front_end.suspend()
    wait_until(lambda: not process.is_living(front_end))
    wait_until(lambda: answers(supervised) == first.digest)


def test_a_header_file_that_is_lost_or_wrong_comes_back(supervised: TorchServe) -> None:
    header = supervised.state.header
    valid = header.read_text()
    header.write_text("Authorization: Bearer an-old-key\n")
    wait_until(lambda: header.read_text() == valid)
    header.unlink()
    wait_until(lambda: header.is_file() and header.read_text() == valid)


def test_deploying_again_starts_no_second_supervisor(
    supervised: TorchServe, first: Release, second: Release
) -> None:
    watcher = supervisor(supervised)
    deploy(second, supervised.state.root)
    deploy(first, supervised.state.root)
    assert supervisor(supervised) == watcher
    watcher.kill()
    wait_until(lambda: supervisor_process(supervised.state) is None)
    deploy(first, supervised.state.root)
    assert supervisor(supervised) != watcher


def test_it_waits_while_a_follower_runs(supervised: TorchServe, first: Release) -> None:
    with supervised.state.watch(follower=True) as alone:
        assert alone
        kill(supervised)
        watcher = supervisor(supervised)
        sleeps = watcher.num_ctx_switches().voluntary
        wait_until(lambda: watcher.num_ctx_switches().voluntary > sleeps + 1)  # it has looked twice
        assert process.find_processes(supervised.state) == []
        with supervised.state.watch(follower=True):  # two followers do not stop each other
            pass
    wait_until(lambda: answers(supervised) == first.digest)


def test_stop_ends_the_supervisor_even_if_the_server_hangs(supervised: TorchServe) -> None:
    front_end, watcher = process.frontend_process(supervised.state), supervisor(supervised)
    assert front_end is not None
    front_end.send_signal(signal.SIGSTOP)
    assert command(supervised, "stop").returncode == 0
    assert not process.is_living(watcher)
    assert process.find_processes(supervised.state) == []
    assert supervised.state.deployed.is_file()
    started = command(supervised, "start")
    assert started.returncode == 0, started.stderr
    assert supervisor(supervised) != watcher


def test_a_removed_folder_leaves_no_process_behind(
    tmp_path: Path, first: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "supervise", SUPERVISE)
    state = StateDir(tmp_path / "state")
    deploy(first, state.root)
    shutil.rmtree(state.root)
    wait_until(lambda: supervisor_process(state) is None)
    wait_until(lambda: process.find_processes(state) == [])


def test_a_key_is_renewed_before_it_expires(tmp_path: Path, first: Release) -> None:
    """A look is enough, whoever looks; callers that read the header file never get to see an expired key"""
    deploy(first, tmp_path, ServerConfig(token_minutes=0.9))  # within the minute before its end
    try:
        server = TorchServe.attach(tmp_path)
        old = server.state.header.read_text()
        assert restart_if_dead(tmp_path) == (first.digest, False)
        new = server.state.header.read_text()
        assert new != old
        header = dict([new.strip().split(": ", 1)])
        ping = f"http://127.0.0.1:{server.ports.inference}/ping"
        assert requests.get(ping, headers=header, timeout=30).status_code == 200
    finally:
        TorchServe.stop(tmp_path)
