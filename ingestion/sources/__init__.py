"""Datasets by name as DatasetConfigs, and access to their files, whether here or in Google Cloud Storage."""

from __future__ import annotations

from pathlib import Path

from common.digests import file_digest, json_digest, tree_digest
from ingestion.config import DatasetConfig, IngestError, Source, parse_config
from ingestion.sources import amazon2014, gcs, movielens

NAMES = ("movielens", "amazon2014", "custom")
CONFIG = "dataset.json"


def resolve(name: str, data_dir: str | None, cache_dir: Path) -> DatasetConfig:
    """The configuration of a named dataset.

    Args:
        name: `movielens` (fetched), `amazon2014` (`data_dir` is one of its sets' folders) or `custom`
            (`data_dir` holds dataset.json, a DatasetConfig whose relative paths start in that folder).
        cache_dir: a folder that survives between runs, for what is fetched or converted.

    Raises:
        IngestError: unknown name, wrong setting, or data that is missing or cannot be fetched.
    """
    cache_dir = cache_dir.resolve()  # the configuration travels to processes with another working folder
    if name == "movielens":
        return movielens.dataset(cache_dir)
    if name not in NAMES:
        raise IngestError(f"There is no dataset '{name}'; choose one of {', '.join(NAMES)}.")
    if not data_dir:
        raise IngestError(f"Dataset '{name}' needs DATA_DIR, the folder that holds its files.")
    folder = Path(data_dir)
    if name == "amazon2014":
        return amazon2014.dataset(folder, cache_dir)
    path = folder / CONFIG
    if not path.is_file():
        raise IngestError(f"{path} does not exist; docs/data.md describes it.")
    config = parse_config(path.read_bytes(), str(path))
    sources = {}
    for part, source in (("interactions", config.interactions), ("items", config.items)):
        absolute = source.location if gcs.is_gcs(source.location) else str(folder.resolve() / source.location)
        sources[part] = source.model_copy(update={"location": absolute})
    return config.model_copy(update=sources)


def local_file(source: Source, cache_dir: Path) -> Path:
    """The path to read a source from; a gs:// object is fetched into `cache_dir`.

    Raises:
        IngestError: the source is missing or cannot be fetched.
    """
    if gcs.is_gcs(source.location):
        return gcs.download(source.location, cache_dir)
    path = Path(source.location)
    if not path.is_file() and not path.is_dir():
        raise IngestError(f"{path} does not exist or is not a file; check its location in the configuration.")
    return path


def source_digest(config: DatasetConfig) -> str:
    """The cache key of the ingest step: settings and content, but not locations, engine or data policy.

    Equal digests mean equal datasets.

    Raises:
        IngestError: a source is missing.
    """
    settings = config.model_dump(mode="json", exclude={"engine", "spark", "data_policy"})
    for part, source in (("interactions", config.interactions), ("items", config.items)):
        if gcs.is_gcs(source.location):
            content = gcs.identity(source.location)
        elif (path := local_file(source, Path())).is_dir():
            content = f"sha256:{tree_digest(path)}"
        else:
            content = f"sha256:{file_digest(path)}"
        settings[part] |= {"location": content, "format": source.resolved_format()}
    return json_digest(settings)
