"""The record of what is deployed is either whole or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serving.errors import ServingError
from serving.torchserve.state_dir import DeployedRelease, StateDir

DEPLOYED = DeployedRelease(
    release="a" * 64, version="aaaaaaaaaaaa-bbbbbb", archive="car-aaaaaaaaaaaa-bbbbbb.mar", sha256="c" * 64
)


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    state = StateDir(tmp_path)
    state.create()
    return state


def test_a_written_record_is_read_back(state: StateDir) -> None:
    assert DeployedRelease.load_or_none(state) is None
    with pytest.raises(ServingError, match="Nothing was deployed to"):
        DeployedRelease.load(state)
    DEPLOYED.write(state)
    assert DeployedRelease.load_or_none(state) == DeployedRelease.load(state) == DEPLOYED


@pytest.mark.parametrize("field", ["release", "version", "archive", "sha256"])
@pytest.mark.parametrize("value", [None, "", 7, []])
def test_every_field_is_required(state: StateDir, field: str, value: object) -> None:
    DEPLOYED.write(state)
    record = json.loads(state.deployed.read_text()) | {field: value}
    state.deployed.write_text(json.dumps(record))
    with pytest.raises(ServingError, match=r"deployed\.json is damaged; deploy the release again"):
        DeployedRelease.load(state)
    assert DeployedRelease.load_or_none(state) is None


@pytest.mark.parametrize("archive", ["../car.mar", "/etc/passwd", "a/b.mar"])
def test_an_archive_outside_the_store_is_refused(state: StateDir, archive: str) -> None:
    record = DEPLOYED.model_dump() | {"archive": archive}
    state.deployed.write_text(json.dumps(record))
    with pytest.raises(ServingError, match="is damaged"):
        DeployedRelease.load(state)


def test_a_record_that_is_cut_short_is_refused(state: StateDir) -> None:
    DEPLOYED.write(state)
    content = state.deployed.read_bytes().rstrip()
    for end in range(len(content)):
        state.deployed.write_bytes(content[:end])
        assert DeployedRelease.load_or_none(state) is None


def test_an_archive_that_cannot_be_read_is_refused(state: StateDir) -> None:
    with pytest.raises(ServingError, match="is missing or not what was deployed"):
        DEPLOYED.verify_archive(state)
    (state.store / DEPLOYED.archive).mkdir()
    with pytest.raises(ServingError, match="is missing or not what was deployed"):
        DEPLOYED.verify_archive(state)
