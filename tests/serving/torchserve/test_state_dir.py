"""The note of what is deployed: whole or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serving.errors import ServingError
from serving.torchserve.state_dir import DeployedRelease, StateDir

GOOD = DeployedRelease("a" * 64, "aaaaaaaaaaaa-bbbbbb", "car-aaaaaaaaaaaa-bbbbbb.mar", "c" * 64)


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    state = StateDir.at(tmp_path)
    state.create()
    return state


def test_what_was_written_is_read(state: StateDir) -> None:
    assert DeployedRelease.read(state) is DeployedRelease.load_or_none(state) is None
    with pytest.raises(ServingError, match="Nothing was deployed to"):
        DeployedRelease.load(state)
    GOOD.write(state)
    assert (
        DeployedRelease.read(state)
        == DeployedRelease.load_or_none(state)
        == DeployedRelease.load(state)
        == GOOD
    )


@pytest.mark.parametrize("field", ["release", "version", "archive", "sha256"])
@pytest.mark.parametrize("value", [None, "", 7, []])
def test_every_field_has_to_be_there(state: StateDir, field: str, value: object) -> None:
    GOOD.write(state)
    found = json.loads(state.deployed.read_text()) | {field: value}
    state.deployed.write_text(json.dumps(found))
    with pytest.raises(ServingError, match=r"deployed\.json is damaged; deploy the release again"):
        DeployedRelease.read(state)
    assert DeployedRelease.load_or_none(state) is None


@pytest.mark.parametrize("archive", ["../car.mar", "/etc/passwd", "a/b.mar"])
def test_no_archive_outside_the_store_is_named(state: StateDir, archive: str) -> None:
    DeployedRelease(GOOD.release, GOOD.version, archive, GOOD.sha256).write(state)
    with pytest.raises(ServingError, match="is damaged"):
        DeployedRelease.read(state)


def test_every_cut_is_seen(state: StateDir) -> None:
    GOOD.write(state)
    whole = state.deployed.read_bytes().rstrip()
    for end in range(len(whole)):
        state.deployed.write_bytes(whole[:end])
        assert DeployedRelease.load_or_none(state) is None


def test_an_archive_that_cannot_be_read_is_refused(state: StateDir) -> None:
    with pytest.raises(ServingError, match="is missing or not what was deployed"):
        GOOD.verify_archive(state)
    (state.store / GOOD.archive).mkdir()
    with pytest.raises(ServingError, match="is missing or not what was deployed"):
        GOOD.verify_archive(state)
