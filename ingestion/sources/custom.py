"""Your own data: a folder with dataset.json, a DatasetConfig whose relative paths start in that folder."""

from __future__ import annotations

from pathlib import Path

from ingestion.config import DatasetConfig, IngestError, Source, parse_config
from ingestion.sources.gcs import is_gcs

CONFIG = "dataset.json"


def dataset(folder: Path) -> DatasetConfig:
    """Read `folder`/dataset.json.

    Raises:
        IngestError: no such file, or a setting in it is wrong.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise IngestError(f"{path} does not exist; docs/data.md says what goes into it.")
    config = parse_config(path.read_text(encoding="utf-8"), str(path))
    return config.model_copy(
        update={
            "interactions": _anchored(config.interactions, folder),
            "items": _anchored(config.items, folder),
        }
    )


def _anchored(source: Source, folder: Path) -> Source:
    if is_gcs(source.location):
        return source
    return source.model_copy(update={"location": str(folder.resolve() / source.location)})
