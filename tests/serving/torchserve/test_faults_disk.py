"""Archives that were damaged while the server was down, and disks that take no log."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.errors import ServingError
from serving.torchserve import process
from serving.torchserve.rollover import restart_if_dead
from serving.torchserve.server import TorchServe
from serving.torchserve.state_dir import DeployedRelease, StateDir
from tests.serving.conftest import REQUESTS, Release
from tests.serving.damage import flip
from tests.serving.torchserve.test_faults import command, roll

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def truncate(archive: Path, other: Path) -> None:
    with archive.open("r+b") as stream:
        stream.truncate(archive.stat().st_size // 2)


def flip_a_bit(archive: Path, other: Path) -> None:
    flip(archive, archive.stat().st_size // 2)


def remove(archive: Path, other: Path) -> None:
    archive.unlink()


def replace(archive: Path, other: Path) -> None:
    shutil.copyfile(other, archive)


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, remove, replace])
def test_a_damaged_archive_is_never_served_and_deploying_mends_it(
    state_dir: Path, first: Release, second: Release, damage: Callable[[Path, Path], None]
) -> None:
    server = roll(first, state_dir)
    archive = server.state.store / DeployedRelease.load(server.state).archive
    TorchServe.stop(state_dir)
    damage(archive, second.archive)
    started = command(server, "start")
    assert started.returncode == 1
    message = " ".join(started.stderr.split())
    assert message.endswith("is missing or not what was deployed; deploy the release again.")
    assert archive.name in message.replace(" ", "")
    with pytest.raises(ServingError, match="missing or not what was deployed"):
        restart_if_dead(state_dir)
    assert process.find_processes(server.state) == []
    assert roll(first, state_dir).predict(REQUESTS[0])["release"] == first.digest


@pytest.mark.parametrize("name", ["server.log", "access.log"])
def test_a_server_whose_log_takes_nothing_answers_all_the_same(
    state_dir: Path, first: Release, second: Release, name: str
) -> None:
    """The file stands for a device that has no room, ever."""
    state = roll(first, state_dir).state
    TorchServe.stop(state_dir)
    (state.logs / name).unlink(missing_ok=True)
    (state.logs / name).symlink_to("/dev/full")
    server = roll(first, state_dir)
    pids = {item.pid for item in process.find_processes(state)}
    assert {server.predict(REQUESTS[0])["release"] for _ in range(50)} == {first.digest}
    assert roll(second, state_dir).predict(REQUESTS[0])["release"] == second.digest
    assert (
        len(pids & {item.pid for item in process.find_processes(state)}) >= 1
    )  # the server, though not its workers
    TorchServe.stop(state_dir)
    (state.logs / name).unlink()


def test_a_state_folder_that_cannot_be_written_is_named(tmp_path: Path, first: Release) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(
        ServingError, match=r"file/state cannot be written: .* Make room or give the rights"
    ) as refused:
        roll(first, tmp_path / "file" / "state")
    assert str(refused.value).count("\n") == 0
    assert process.find_processes(StateDir(tmp_path)) == []
