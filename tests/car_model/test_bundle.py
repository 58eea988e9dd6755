"""Bundles: parts that do not belong together are refused with a sentence, before anything is served."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from car_model.bundle import HEADER, Bundle, BundleError, popularity_priors
from car_model.codebook.codebook import CodebookError
from car_model.data.catalogue import Catalogue, CatalogueError
from car_model.weights import CheckpointError
from common.digests import tree_digest
from tests.fixtures import tiny_bundle

ERRORS = (BundleError, CodebookError, CatalogueError, CheckpointError)
FILES = (
    "bundle.json",
    "catalogue.parquet",
    "popular.json",
    "codebook/codebook.json",
    "codebook/centroids.npy",
    "codebook/axes.npy",
    "codebook/mean.npy",
    "codebook/labels.json",
    "model/model.safetensors",
    "model/config.json",
)


@pytest.fixture
def folder(bundle: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def second_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("other") / "bundle", seed=3, epochs=1)


def refuse(folder: Path) -> None:
    with pytest.raises(ERRORS) as caught:
        Bundle.load(folder)
    assert str(folder) in str(caught.value)


def test_the_files_are_those_the_contract_names(bundle: Path) -> None:
    files = [path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()]
    assert sorted(files) == sorted(FILES)


def test_loading_and_saving_gives_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    header = Bundle.load(bundle).save(tmp_path / "again")
    assert tree_digest(tmp_path / "again") == tree_digest(bundle)
    assert json.loads((bundle / HEADER).read_text()) == header.model_dump(exclude_none=True)


def test_two_trainings_give_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    assert tree_digest(tiny_bundle(tmp_path / "again")) == tree_digest(bundle)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refuse(folder)


@pytest.mark.parametrize("name", FILES)
def test_an_empty_or_cut_file_is_refused(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    for size in (0, len(content) // 2, len(content) - 2):
        (folder / name).write_bytes(content[:size])
        refuse(folder)


@pytest.mark.parametrize(
    "name", sorted(set(FILES) - {"bundle.json", "catalogue.parquet", "codebook/codebook.json"})
)
def test_any_flipped_bit_is_refused(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    for offset in np.linspace(0, len(content) - 1, 12).astype(int):
        damaged = bytearray(content)
        damaged[offset] ^= 1
        (folder / name).write_bytes(damaged)
        refuse(folder)


def test_a_flipped_byte_of_the_catalogue_is_refused_or_changes_nothing(folder: Path) -> None:
    """Parquet holds bytes that mean nothing; those that do are covered by the catalogue's digest."""
    path, digest = folder / "catalogue.parquet", Bundle.load(folder).catalogue.digest
    content, refused = path.read_bytes(), 0
    for offset in range(0, len(content), 31):
        damaged = bytearray(content)
        damaged[offset] ^= 0xFF
        path.write_bytes(damaged)
        try:
            assert Bundle.load(folder).catalogue.digest == digest
        except ERRORS:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize(
    "name", ["catalogue.parquet", "codebook", "model", "popular.json", "codebook/labels.json", HEADER]
)
def test_parts_of_two_bundles_do_not_mix(folder: Path, second_folder: Path, name: str) -> None:
    if (folder / name).is_dir():
        shutil.rmtree(folder / name)
        shutil.copytree(second_folder / name, folder / name)
    else:
        assert (folder / name).read_bytes() != (second_folder / name).read_bytes()
        shutil.copyfile(second_folder / name, folder / name)
    refuse(folder)


FIELDS = ("format", "codebook", "catalogue", "encoder", "model", "labels", "popular", "think_scale", "data")


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [None, [], {"a": 1}, 10**400], ids=lambda value: repr(value)[:9])
def test_a_wrong_or_missing_field_is_refused(folder: Path, field: str, value: Any) -> None:
    header = json.loads((folder / HEADER).read_text())
    assert set(header) - set(FIELDS) == {"similarity_scale"}
    (folder / HEADER).write_text(json.dumps({**header, field: value}))
    refuse(folder)
    header.pop(field)
    (folder / HEADER).write_text(json.dumps(header))
    refuse(folder)


@pytest.mark.parametrize("scale", ["NaN", "Infinity"])
def test_a_scale_that_is_no_number_is_refused(folder: Path, scale: str) -> None:
    header = json.loads((folder / HEADER).read_text())
    (folder / HEADER).write_text(json.dumps(header).replace('"think_scale": 0.1', f'"think_scale": {scale}'))
    refuse(folder)


@pytest.mark.parametrize("content", ["[]", "null", "{}", "{", "\x00", '"bundle"'])
def test_a_header_that_says_nothing_is_refused(folder: Path, content: str) -> None:
    (folder / HEADER).write_text(content)
    refuse(folder)


def test_priors_count_interactions_not_items() -> None:
    sids = np.array([[0, 1], [0, 0], [1, 1]], dtype=np.int32)
    catalogue = Catalogue(["a", "b", "c"], ["A", "B", "C"], sids)
    popular, share = popularity_priors(np.array([9, 1, 3, 3]), catalogue, codebook_size=3)
    assert popular == [2, 3, 1]  # padding never; ties to the older item
    assert share.tolist() == pytest.approx(np.array([[4, 3, 0], [3, 4, 0]]) / 7)
    nobody, nothing = popularity_priors(np.zeros(4, dtype=int), catalogue, codebook_size=3)
    assert (nobody, nothing.tolist()) == ([], [[0, 0, 0], [0, 0, 0]])
