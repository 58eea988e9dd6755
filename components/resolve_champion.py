"""Step: which release is in production now."""

from typing import NamedTuple

from orchestration.step import step


@step
def resolve_champion(registry: str, channel: str) -> NamedTuple(  # type: ignore[valid-type]
    "C", [("release", str), ("entry", int), ("forced", list)]
):
    """The release that a channel names, and the number of the entry that says so; "" and 0 where none is.

    With it come the promotions by force that a comparison with this champion has to mention.

    Never cached: it asks about the world. What follows is cached by its answer.
    """
    from registry.channels.channel import forced_promotions, head
    from registry.store.open import open_store

    store = open_store(registry)
    entry = head(store, channel)
    if entry is None:
        return "", 0, []
    return (
        entry.release,
        entry.number,
        [promotion.model_dump(mode="json") for promotion in forced_promotions(store, channel, entry)],
    )
