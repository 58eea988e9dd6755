"""Compare two releases."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue

from car_model.evidence.codebook import Churn
from common.files import read_json_object
from registry.errors import ReleaseError
from registry.releases.fetch import FetchedRelease
from registry.store.base import ObjectStore

CONFIG = "model/config.json"
CATALOGUE = "catalogue.parquet"
PARTS = {"codebook", "catalogue", "model", "data"}  # of a release's versions


class Change(BaseModel):
    """A value that differs between two releases."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    before: JsonValue
    """The value in the first release; null if it has none."""
    after: JsonValue
    """The value in the second release; null if it has none."""
    difference: float | None = None
    """`after - before`, if both are numbers."""


class FileChange(BaseModel):
    """A file that differs between two releases."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    before: int | None
    """Bytes in the first release; null if it has no such file."""
    after: int | None
    """Bytes in the second release; null if it has no such file."""


class Difference(BaseModel):
    """Everything that differs between two releases. A part without differences is empty."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    before: str
    """Digest of the first release."""
    after: str
    """Digest of the second release."""
    versions: dict[str, Change]
    encoder: dict[str, Change]
    """Settings of the text encoder."""
    config: dict[str, Change]
    """Settings of the model."""
    metrics: dict[str, Change]
    """Mean metrics, with a difference only if both releases were evaluated on the same holdout."""
    incomparable: str
    """Why no difference of metrics is given, as a sentence; empty if it is."""
    churn: Churn
    """Semantic IDs that changed, and items that came or went."""
    files: dict[str, FileChange]


def compare(store: ObjectStore, before: str, after: str) -> Difference:
    """Compare two releases (full digests), downloading their catalogues and model configurations.

    Raises ReleaseError if a release is missing or damaged, or its catalogue or configuration cannot be read.
    """
    from car_model.data.catalogue import Catalogue, CatalogueError
    from car_model.metrics.codebook import churn as catalogue_churn

    old, new = FetchedRelease.read(store, before), FetchedRelease.read(store, after)
    with tempfile.TemporaryDirectory() as folder:
        for release, name in ((old, "before"), (new, "after")):
            release.fetch_files({path: Path(folder) / name / path for path in (CONFIG, CATALOGUE)})
        config = _changes(
            read_json_object(Path(folder) / "before" / CONFIG, ReleaseError),
            read_json_object(Path(folder) / "after" / CONFIG, ReleaseError),
        )
        try:
            old_catalogue = Catalogue.load(Path(folder) / "before" / CATALOGUE)
            churn = catalogue_churn(old_catalogue, Catalogue.load(Path(folder) / "after" / CATALOGUE))
        except CatalogueError as error:
            raise ReleaseError(f"{CATALOGUE} cannot be compared: {str(error).rstrip('.')}.") from error
    metrics, incomparable = _changes(old.manifest.metrics, new.manifest.metrics), _incomparable(old, new)
    if incomparable:
        metrics = {name: change.model_copy(update={"difference": None}) for name, change in metrics.items()}
    old_files, new_files = old.manifest.files, new.manifest.files
    return Difference(
        before=before,
        after=after,
        versions=_changes(
            old.manifest.versions.model_dump(include=PARTS), new.manifest.versions.model_dump(include=PARTS)
        ),
        encoder=_changes(old.manifest.versions.encoder, new.manifest.versions.encoder),
        config=config,
        metrics=metrics,
        incomparable=incomparable,
        churn=churn,
        files={
            path: FileChange(
                before=old_files[path].size if path in old_files else None,
                after=new_files[path].size if path in new_files else None,
            )
            for path in sorted({*old_files, *new_files})
            if old_files.get(path) != new_files.get(path)
        },
    )


def _incomparable(old: FetchedRelease, new: FetchedRelease) -> str:
    """Why the metrics of two releases can't be compared; "" if they can."""
    if old.digest == new.digest:
        return ""
    if unmeasured := [release.digest[:12] for release in (old, new) if not release.manifest.metrics]:
        return f"Never evaluated itself, so there is nothing to compare: {' and '.join(unmeasured)}."
    before, after = (release.manifest.holdout or "none" for release in (old, new))
    if before != after or before == "none":
        return (
            f"The holdouts differ ({before[:12]}, {after[:12]}): these metrics are of different users, and "
            "their difference would say nothing. A run of the pipeline evaluates both on one holdout."
        )
    return ""


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Change]:
    changes = {}
    for name in sorted({*before, *after}):
        old: Any = before.get(name)
        new: Any = after.get(name)
        if old != new:
            numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (old, new))
            changes[name] = Change(before=old, after=new, difference=new - old if numbers else None)
    return changes
