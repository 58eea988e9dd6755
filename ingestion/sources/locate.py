"""Where a source lies: a file here, or an object that has to be fetched first."""

from __future__ import annotations

from pathlib import Path

from common.digests import file_digest, json_digest
from ingestion.config import DatasetConfig, IngestError, Source
from ingestion.sources import gcs


def local_file(source: Source, cache_dir: Path) -> Path:
    """The path to read a source from; a gs:// object is fetched into `cache_dir`.

    Raises:
        IngestError: the source is missing or cannot be fetched.
    """
    if gcs.is_gcs(source.location):
        return gcs.download(source.location, cache_dir)
    return _existing(source)


def source_digest(config: DatasetConfig) -> str:
    """Name what would be ingested: settings and content, not where the sources lie or what reads them.

    Equal digests mean equal datasets, so this is the cache key of the ingest step.

    Raises:
        IngestError: a source is missing.
    """
    settings = config.model_dump(mode="json", exclude={"engine", "spark"})
    for name, source in (("interactions", config.interactions), ("items", config.items)):
        settings[name]["location"] = _content(source)
        settings[name]["format"] = source.resolved_format()
    return json_digest(settings)


def _existing(source: Source) -> Path:
    path = Path(source.location)
    if not path.is_file():
        raise IngestError(f"{path} does not exist or is not a file; check its location in the configuration.")
    return path


def _content(source: Source) -> str:
    if gcs.is_gcs(source.location):
        return gcs.identity(source.location)
    return f"sha256:{file_digest(_existing(source))}"
