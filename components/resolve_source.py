"""Step: which data there is now."""

from orchestration.step import step


@step
def resolve_source(source: str, source_digest: str) -> str:
    """The digest of what `source` (a DatasetConfig as JSON) names now; `source_digest` where it is given.

    Whoever asks for one run names the content and gets that or an error. A recurring run can't name what is
    yet to come: "" takes what is there. Never cached: it asks about the world. What follows is cached by its
    answer.
    """
    from ingestion.config import parse_config
    from ingestion.sources import source_digest as digest_now

    return source_digest or digest_now(parse_config(source))
