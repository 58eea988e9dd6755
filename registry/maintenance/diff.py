"""What changed between two releases."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, JsonValue

from registry.errors import ReleaseError
from registry.releases.fetch import FetchedRelease
from registry.releases.manifest import FileRecord, Manifest
from registry.releases.release import read_manifest
from registry.store.base import ObjectStore

CONFIG = "model/config.json"
CATALOGUE = "catalogue.parquet"
VERSIONS = ("codebook", "catalogue", "model", "data")
T = TypeVar("T")


class Change(BaseModel):
    """A value in either release; None where one has none."""

    before: JsonValue
    after: JsonValue
    difference: float | None = None  # of two numbers


class FileChange(BaseModel):
    """A file that is not the same in both; None where one has none. Sizes in bytes."""

    before: int | None
    after: int | None


class Difference(BaseModel):
    """All that differs; an empty part is equal in both."""

    before: str
    after: str
    versions: dict[str, Change]
    encoder: dict[str, Change]
    config: dict[str, Change]
    metrics: dict[str, Change]
    churn: dict[str, Any]  # of the catalogues, see car_model.churn
    files: dict[str, FileChange]


def compare(store: ObjectStore, before: str, after: str) -> Difference:
    """Compare two releases (full digests), fetching their catalogues and model configurations.

    Raises:
        ReleaseError: one of them is missing or damaged, or its catalogue or configuration cannot be read.
    """
    one, other = read_manifest(store, before), read_manifest(store, after)
    with tempfile.TemporaryDirectory() as folder:
        parts = [_fetch(store, each, Path(folder) / str(at)) for at, each in enumerate((one, other))]
        config = _changes(*(_read(each, CONFIG, _json) for each in parts))
        churn = _churn(*parts)
    return Difference(
        before=before,
        after=after,
        versions=_changes(
            *({name: getattr(each.versions, name) for name in VERSIONS} for each in (one, other))
        ),
        encoder=_changes(one.versions.encoder, other.versions.encoder),
        config=config,
        metrics=_changes(one.metrics, other.metrics),
        churn=churn,
        files=_files(one.files, other.files),
    )


def _fetch(store: ObjectStore, manifest: Manifest, folder: Path) -> Path:
    FetchedRelease(store, manifest).fetch_files({path: folder / path for path in (CONFIG, CATALOGUE)})
    return folder


def _churn(before: Path, after: Path) -> dict[str, Any]:
    from car_model.data.catalogue import Catalogue
    from car_model.metrics.codebook import churn

    return churn(*(_read(folder, CATALOGUE, Catalogue.load) for folder in (before, after)))


def _json(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_bytes())
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    return value


def _read(folder: Path, path: str, load: Callable[[Path], T]) -> T:
    try:
        return load(folder / path)
    except ValueError as error:
        raise ReleaseError(f"{path} cannot be compared: {error}.") from error


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Change]:
    names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    return {name: _change(before.get(name), after.get(name)) for name in names}


def _change(before: Any, after: Any) -> Change:
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in (before, after))
    return Change(before=before, after=after, difference=after - before if numbers else None)


def _files(before: Mapping[str, FileRecord], after: Mapping[str, FileRecord]) -> dict[str, FileChange]:
    changed = sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
    sizes = [{path: one.size for path, one in files.items()} for files in (before, after)]
    return {path: FileChange(before=sizes[0].get(path), after=sizes[1].get(path)) for path in changed}
