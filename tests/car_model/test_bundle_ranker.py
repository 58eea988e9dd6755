"""A bundle's ranker by action is held to its header as every other part is."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from car_model.bundle import HEADER, Bundle, BundleError
from car_model.weights import CheckpointError
from common.digests import tree_digest
from tests.car_model.action_ranker.liking import liking

NAMES = ("ranker/model.safetensors", "ranker/config.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    liking()[0].save(tmp_path / "bundle")
    return tmp_path / "bundle"


def refuse(folder: Path) -> None:
    with pytest.raises((BundleError, CheckpointError)) as caught:
        Bundle.load(folder)
    assert str(folder) in str(caught.value)


def test_loading_and_saving_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    Bundle.load(folder).save(tmp_path / "again")
    assert tree_digest(tmp_path / "again") == tree_digest(folder)


def test_without_a_ranker_the_bundle_says_nothing_of_one(folder: Path, tmp_path: Path) -> None:
    replace(Bundle.load(folder), ranker=None).save(tmp_path / "plain")
    assert not (tmp_path / "plain" / "ranker").exists()
    assert not {"ranker", "action_weight"} & set(json.loads((tmp_path / "plain" / HEADER).read_text()))


@pytest.mark.parametrize("name", NAMES)
def test_any_flipped_bit_and_a_missing_file_are_refused(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    for offset in np.linspace(0, len(content) - 1, 12).astype(int):
        damaged = bytearray(content)
        damaged[offset] ^= 1
        (folder / name).write_bytes(damaged)
        refuse(folder)
    (folder / name).unlink()
    refuse(folder)


def test_a_ranker_that_is_lost_or_that_the_header_does_not_name_is_refused(folder: Path) -> None:
    header = json.loads((folder / HEADER).read_text())
    stray = {name: value for name, value in header.items() if name not in ("ranker", "action_weight")}
    (folder / HEADER).write_text(json.dumps(stray))
    refuse(folder)
    (folder / HEADER).write_text(json.dumps(header))
    shutil.rmtree(folder / "ranker")
    refuse(folder)


@pytest.mark.parametrize("field", ["ranker", "action_weight"])
@pytest.mark.parametrize("value", [None, [], {"a": 1}, -1, 10**400], ids=lambda value: repr(value)[:9])
def test_a_wrong_or_missing_field_is_refused(folder: Path, field: str, value: Any) -> None:
    header = json.loads((folder / HEADER).read_text())
    (folder / HEADER).write_text(json.dumps({**header, field: value}))
    refuse(folder)
    header.pop(field)
    (folder / HEADER).write_text(json.dumps(header))
    refuse(folder)
