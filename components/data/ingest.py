"""Step: raw sources to canonical tables."""

from kfp.dsl import Output

from orchestration import artifact_types
from orchestration.step import step


@step
def ingest(source: str, source_digest: str, cache: str, dataset: Output[artifact_types.Dataset]) -> None:
    """Read what `source` (a DatasetConfig as JSON) describes; its content must have `source_digest`.

    Args:
        cache: folder that survives runs, for fetched files; "" for none.
    """
    from pathlib import Path

    from ingestion.config import IngestError, parse_config
    from ingestion.ingest import ingest as read
    from orchestration.step_folder import writable_folder

    report = read(parse_config(source), Path(dataset.path), writable_folder(cache, "sources"))
    if report.source_digest != source_digest:
        raise IngestError(f"The source of {report.name} changed since this run was asked for; run it again.")
    dataset.metadata.update(digest=report.dataset_digest, source=source_digest)
    dataset.metadata.update(users=report.users, items=report.items, interactions=report.kept.interactions)
