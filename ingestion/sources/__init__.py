"""Datasets by name: what to read, and how, as a DatasetConfig."""

from __future__ import annotations

from pathlib import Path

from ingestion.config import DatasetConfig, IngestError
from ingestion.sources import amazon2014, custom, movielens
from ingestion.sources.locate import source_digest

NAMES = ("movielens", "amazon2014", "custom")

__all__ = ["NAMES", "resolve", "source_digest"]


def resolve(name: str, data_dir: str | None, cache_dir: Path) -> DatasetConfig:
    """The configuration of a named dataset.

    Args:
        name: `movielens` (fetched), `amazon2014` (`data_dir` is one of its sets' folders) or `custom`
            (`data_dir` holds dataset.json).
        cache_dir: a folder that survives between runs, for what is fetched or converted.

    Raises:
        IngestError: unknown name, or data that is missing or cannot be fetched.
    """
    cache_dir = cache_dir.resolve()  # the configuration travels to processes with another working folder
    if name == "movielens":
        return movielens.dataset(cache_dir)
    if name not in NAMES:
        raise IngestError(f"There is no dataset '{name}'; choose one of {', '.join(NAMES)}.")
    if not data_dir:
        raise IngestError(f"Dataset '{name}' needs DATA_DIR, the folder that holds its files.")
    if name == "amazon2014":
        return amazon2014.dataset(Path(data_dir), cache_dir)
    return custom.dataset(Path(data_dir))
