"""Which bundles may become a release, and what the release digest depends on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from car_model.bundle import FILES
from common.digests import tree_digest
from common.errors import UserError
from registry.errors import ReleaseError
from registry.releases.bundle_files import hash_folder, read_bundle, release_digest
from registry.releases.manifest import FileRecord, Manifest, Versions, release_identity
from tests.registry.bundles import make_bundle, write_json

NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\\x7f", min_codepoint=32), min_size=1, max_size=8
)
PATHS = st.lists(NAMES.filter(lambda n: n not in (".", "..")), min_size=1, max_size=3).map("/".join)
SAFE_PATHS = PATHS.filter(lambda path: not path.startswith(".")).map(lambda path: f"{path}.json")
DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)
RECORDS = st.builds(FileRecord, sha256=DIGESTS, size=st.integers(0, 2**60))
FILE_RECORDS = st.dictionaries(SAFE_PATHS, RECORDS, min_size=1, max_size=5)
WORDS = st.text(st.characters(codec="utf-8"), min_size=1)
JSON = st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | WORDS, st.lists, max_leaves=4)
VERSIONS = st.builds(
    Versions,
    codebook=WORDS,
    catalogue=WORDS,
    model=WORDS,
    data=WORDS,
    encoder=st.dictionaries(WORDS, JSON, min_size=1, max_size=3),
    format=st.just(1),
)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Any manifest that names itself rightly."""
    files, versions = draw(FILE_RECORDS), draw(VERSIONS)
    return Manifest(
        release=release_identity(files, versions),
        files=files,
        evidence=draw(st.dictionaries(SAFE_PATHS, RECORDS, max_size=3)),
        versions=versions,
        parent=draw(st.none() | DIGESTS),
        metrics=draw(st.dictionaries(WORDS, st.floats(allow_nan=False, allow_infinity=False), max_size=3)),
        holdout=draw(st.none() | WORDS),
        forced=draw(st.none() | WORDS),
        git_commit=draw(st.none() | WORDS),
        run_id=draw(st.none() | WORDS),
        created=draw(st.datetimes(datetime(1970, 1, 1), timezones=st.timezones())),
    )


@settings(max_examples=50, deadline=None)
@given(manifests())
def test_a_manifest_survives_a_round_trip(manifest: Manifest) -> None:
    data = manifest.to_bytes()
    parsed = Manifest.from_bytes(data, "manifest.json", ReleaseError)
    assert parsed == manifest
    assert parsed.to_bytes() == data


@settings(deadline=None)
@given(FILE_RECORDS, VERSIONS, st.randoms())
def test_identity_ignores_order(files: dict[str, FileRecord], versions: Versions, random: object) -> None:
    order = list(files.items())
    random.shuffle(order)
    assert release_identity(dict(order), versions) == release_identity(files, versions)


@settings(deadline=None)
@given(FILE_RECORDS, VERSIONS, st.data())
def test_identity_follows_every_name_and_version(
    files: dict[str, FileRecord], versions: Versions, data: st.DataObject
) -> None:
    before = release_identity(files, versions)
    old = data.draw(st.sampled_from(sorted(files)))
    new = data.draw(SAFE_PATHS.filter(lambda path: path not in files))
    renamed = {new if path == old else path: record for path, record in files.items()}
    part = data.draw(st.sampled_from(["codebook", "catalogue", "model", "data"]))
    other = versions.model_copy(update={part: getattr(versions, part) + "x"})
    assert len({before, release_identity(renamed, versions), release_identity(files, other)}) == 3


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "bundle")


@settings(max_examples=20, deadline=None)
@given(
    order=st.permutations(FILES),
    times=st.lists(st.integers(0, 2**31), min_size=len(FILES), max_size=len(FILES)),
)
def test_the_digest_ignores_order_of_creation_and_times(
    bundle: Path, order: list[str], times: list[int]
) -> None:
    copy = bundle.parent / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    for path, when in zip(order, times, strict=True):
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle / path, copy / path)
        os.utime(copy / path, (when, when))
    assert release_digest(copy) == release_digest(bundle)


@settings(max_examples=40, deadline=None)
@given(path=st.sampled_from(FILES), offset=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_the_digest_follows_every_bit(bundle: Path, path: str, offset: int, bit: int) -> None:
    versions = read_bundle(bundle).versions
    before = release_identity(hash_folder(bundle), versions)
    original = (bundle / path).read_bytes()
    changed = bytearray(original)
    changed[offset % len(changed)] ^= 1 << bit
    (bundle / path).write_bytes(changed)
    try:
        assert release_identity(hash_folder(bundle), versions) != before
    finally:
        (bundle / path).write_bytes(original)


@pytest.mark.parametrize("missing", FILES)
def test_every_required_file_must_exist(tmp_path: Path, missing: str) -> None:
    folder = make_bundle(tmp_path / "bundle")
    (folder / missing).unlink()
    with pytest.raises(UserError, match=f"has no {missing}; assemble it again"):
        read_bundle(folder)


def edit(path: str, **changes: object) -> Callable[[Path], None]:
    """A change to a JSON file of a bundle; None removes a key."""

    def apply(folder: Path) -> None:
        value = json.loads((folder / path).read_text()) | changes
        write_json(folder / path, {key: item for key, item in value.items() if item is not None})

    return apply


def write(path: str, data: bytes) -> Callable[[Path], None]:
    """A file of a bundle with these bytes."""
    return lambda folder: (folder / path).write_bytes(data) and None


def pickled_centroids(folder: Path) -> None:
    """An array that only a pickle can read."""
    np.save(folder / "codebook/centroids.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


BROKEN = [
    (edit("bundle.json", codebook="f" * 64), "codebook in .* its bundle.json says 'ffffffffffff'"),
    (edit("bundle.json", model="0" * 64), "model in .* its bundle.json says '000000000000'"),
    (edit("codebook/codebook.json", encoder={"name": "other"}), "codebook.*(can't be read|do not match)"),
    (edit("bundle.json", encoder={"name": "other"}), "names another encoder"),
    (edit("bundle.json", data=None), "bundle.json has no proper 'data'"),
    (edit("bundle.json", format=2), "bundle.json has format 2"),
    (write("model/config.json", b'{"d_model": 16}'), "model in .* parts of different releases were mixed"),
    (write("bundle.json", b"not json"), "bundle.json (is not valid JSON|can't be read)"),
    (write("bundle.json", b"[]"), "bundle.json (must hold a JSON object|is no JSON object)"),
    (write("codebook/codebook.json", b"\xff"), "codebook.* can't be read"),
    (write("model/weights.pkl", b"x"), "weights.pkl may not be in a release: only .json, .npy"),
    (write("model/pytorch_model.bin", b"x"), "may not be in a release"),
    (write("README", b"x"), "may not be in a release"),
    (pickled_centroids, "without pickled objects"),
    (write("codebook/centroids.npy", b""), "without pickled objects"),
    (lambda folder: (folder / "link.json").symlink_to("/etc/hostname"), "link.json is not a plain file"),
    (lambda folder: os.mkfifo(folder / "pipe.json"), "pipe.json is not a plain file"),
]


@pytest.mark.parametrize(("damage", "sentence"), BROKEN)
def test_broken_bundles_are_refused_by_name(
    tmp_path: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    folder = make_bundle(tmp_path / "bundle")
    damage(folder)
    with pytest.raises(UserError, match=sentence):
        read_bundle(folder)


def with_ranker(folder: Path) -> Path:
    """A bundle with a ranker by action."""
    make_bundle(folder)
    (folder / "ranker").mkdir()
    (folder / "ranker/model.safetensors").write_bytes(bytes(range(99)))
    write_json(folder / "ranker/config.json", {"d_model": 8})
    header = json.loads((folder / "bundle.json").read_text())
    write_json(
        folder / "bundle.json", header | {"ranker": tree_digest(folder / "ranker"), "action_weight": 1.0}
    )
    return folder


def test_a_ranker_counts_in_the_release(tmp_path: Path) -> None:
    plain, ranked = release_digest(make_bundle(tmp_path / "plain")), with_ranker(tmp_path / "ranked")
    assert plain != release_digest(ranked) == release_digest(with_ranker(tmp_path / "again"))
    assert "ranker/model.safetensors" in read_bundle(ranked).files


def remove_ranker(folder: Path) -> None:
    shutil.rmtree(folder / "ranker")


def change_ranker(folder: Path) -> None:
    (folder / "ranker/model.safetensors").write_bytes(b"another")


def remove_ranker_version(folder: Path) -> None:
    header = json.loads((folder / "bundle.json").read_text())
    header.pop("ranker")
    write_json(folder / "bundle.json", header)


@pytest.mark.parametrize("damage", [remove_ranker, change_ranker, remove_ranker_version])
def test_a_ranker_and_its_header_belong_together(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    folder = with_ranker(tmp_path / "bundle")
    damage(folder)
    with pytest.raises(UserError, match=r"ranker in .* is .*, its bundle.json says"):
        read_bundle(folder)
