"""Step: which release is in production now."""

from typing import NamedTuple

from orchestration.step import step


@step
def resolve_champion(registry: str, channel: str, new_channel: bool) -> NamedTuple(  # type: ignore[valid-type]
    "Champion", [("release", str), ("entry", int), ("forced", list)]
):
    """Return the release that a channel uses, its entry's number, and the forced promotions to mention.

    An empty channel gives "", 0 and []. A champion whose manifest is not the one that was promoted ends the
    run, and so does a registry that can't be read and written: such a run would train and leave nothing.
    Never cached, since the registry may have changed; later steps are cached by the answer.

    Args:
        new_channel: make the channel; without it, a channel that is not there ends the run.
    """
    from orchestration.shared_registry import open_proven_store
    from registry.channels.channel import forced_promotions, head, require_channel
    from registry.releases.release import read_manifest

    store = open_proven_store(registry)
    require_channel(store, channel, new=new_channel)
    entry = head(store, channel)
    if entry is None:
        return "", 0, []
    read_manifest(store, entry.release, entry.manifest_sha256)
    return (
        entry.release,
        entry.number,
        [promotion.model_dump(mode="json") for promotion in forced_promotions(store, channel, entry)],
    )
