"""Step: which data there is now."""

from orchestration.step import step


@step
def resolve_source(source: str, source_digest: str) -> str:
    """Return `source_digest`, or if it is "" the digest of what `source` (a DatasetConfig as JSON) holds now.

    A single run names its content and gets that or an error. A recurring run cannot know the content in
    advance and takes what is there. Never cached, since the source may have changed; later steps are cached
    by the answer.
    """
    from ingestion.config import parse_config
    from ingestion.sources import source_digest as current_digest

    return source_digest or current_digest(parse_config(source))
