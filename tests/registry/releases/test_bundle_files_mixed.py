"""Bundles whose parts do not belong together: refused when released, or when the model is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from car_model.bundle import FILES, Bundle, BundleError
from car_model.weights import save_model
from registry.errors import ReleaseError
from registry.releases.fetch import fetch_release
from registry.releases.layout import blob_name
from registry.releases.release import write_release
from registry.store.base import ObjectStore
from registry.store.open import open_store
from tests.fixtures import tiny_bundle, tiny_parts
from tests.registry.bundles import make_evidence, make_release, reseal_model, write_json
from tests.registry.damage import Change

pytestmark = pytest.mark.integration
CODEBOOK = [path for path in FILES if path.startswith("codebook/")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("trained") / "bundle")


@pytest.fixture
def bundle(trained: Path, tmp_path: Path) -> Path:
    """A trained bundle, to be damaged."""
    return shutil.copytree(trained, tmp_path / "bundle")


def test_a_release_without_its_codebook(store: ObjectStore, url: str, tmp_path: Path, remove: Change) -> None:
    release = make_release(store, tmp_path)
    for path in CODEBOOK:
        name = blob_name(release.files[path].sha256)
        data = store.read(name)
        remove(url, name)
        with pytest.raises(ReleaseError, match=f"{path} of release {release.release[:12]} is missing"):
            fetch_release(store, release.release, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        store.create(name, data)
    fetch_release(store, release.release, tmp_path / "out")


def test_a_codebook_of_another_encoder(bundle: Path, tmp_path: Path) -> None:
    path = bundle / "bundle.json"
    header = json.loads(path.read_text())
    write_json(path, header | {"encoder": header["encoder"] | {"name": "another"}})
    with pytest.raises(BundleError, match="names another encoder"):
        write_release(open_store(tmp_path / "registry"), bundle, make_evidence(tmp_path / "evidence", None))
    assert not (tmp_path / "registry").exists()


def test_a_codebook_of_another_fit(bundle: Path, tmp_path: Path) -> None:
    other = tiny_bundle(tmp_path / "other", seed=5)
    shutil.rmtree(bundle / "codebook")
    shutil.copytree(other / "codebook", bundle / "codebook")
    with pytest.raises(BundleError, match=r"codebook in .* parts of different releases were mixed"):
        write_release(open_store(tmp_path / "registry"), bundle, make_evidence(tmp_path / "evidence", None))


def model_of_another_catalogue(bundle: Path) -> None:
    shutil.rmtree(bundle / "model")
    save_model(tiny_parts(items=40).model, bundle / "model")


def settings_of_another_model(bundle: Path) -> None:
    path = bundle / "model/config.json"
    config = json.loads(path.read_text())
    write_json(path, config | {"d_model": 2 * config["d_model"]})


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (model_of_another_catalogue, r"the SID table is \(49, 3\), expected \(41, 3\)"),
        (settings_of_another_model, r"model.safetensors does not fit its config.json"),
    ],
)
def test_a_model_of_other_sizes(
    bundle: Path, tmp_path: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    store = open_store(tmp_path / "registry")
    damage(bundle)
    with pytest.raises(BundleError, match=r"model in .* parts of different releases were mixed"):
        write_release(store, bundle, make_evidence(tmp_path / "evidence", None))
    # If the header fits, only loading the model shows it.
    evidence = make_evidence(tmp_path / "evidence", reseal_model(bundle))
    release = write_release(store, bundle, evidence).release
    fetch_release(store, release, tmp_path / "served")
    with pytest.raises(ValueError, match=sentence):
        Bundle.load(tmp_path / "served")
