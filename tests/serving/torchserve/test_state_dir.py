"""The note of what is deployed: whole or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serving.errors import ServingError
from serving.torchserve.state_dir import Deployed, StateDir

GOOD = Deployed("a" * 64, "aaaaaaaaaaaa-bbbbbb", "car-aaaaaaaaaaaa-bbbbbb.mar", "c" * 64)


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    state = StateDir.at(tmp_path)
    state.create()
    return state


def test_what_was_written_is_read(state: StateDir) -> None:
    assert Deployed.read(state) is Deployed.legible(state) is None
    with pytest.raises(ServingError, match="Nothing was deployed to"):
        Deployed.required(state)
    GOOD.write(state)
    assert Deployed.read(state) == Deployed.legible(state) == Deployed.required(state) == GOOD


@pytest.mark.parametrize("field", ["release", "version", "archive", "sha256"])
@pytest.mark.parametrize("value", [None, "", 7, []])
def test_every_field_has_to_be_there(state: StateDir, field: str, value: object) -> None:
    GOOD.write(state)
    found = json.loads(state.deployed.read_text()) | {field: value}
    state.deployed.write_text(json.dumps(found))
    with pytest.raises(ServingError, match=r"deployed\.json is damaged; deploy the release again"):
        Deployed.read(state)
    assert Deployed.legible(state) is None


@pytest.mark.parametrize("archive", ["../car.mar", "/etc/passwd", "a/b.mar"])
def test_no_archive_outside_the_store_is_named(state: StateDir, archive: str) -> None:
    Deployed(GOOD.release, GOOD.version, archive, GOOD.sha256).write(state)
    with pytest.raises(ServingError, match="is damaged"):
        Deployed.read(state)


def test_every_cut_is_seen(state: StateDir) -> None:
    GOOD.write(state)
    whole = state.deployed.read_bytes().rstrip()
    for end in range(len(whole)):
        state.deployed.write_bytes(whole[:end])
        assert Deployed.legible(state) is None


def test_an_archive_that_cannot_be_read_is_refused(state: StateDir) -> None:
    with pytest.raises(ServingError, match="is missing or not what was deployed"):
        GOOD.checked(state)
    (state.store / GOOD.archive).mkdir()
    with pytest.raises(ServingError, match="is missing or not what was deployed"):
        GOOD.checked(state)
