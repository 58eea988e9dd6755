"""Step: which release is in production now."""

from typing import NamedTuple

from components.base import step


@step
def resolve_champion(registry: str, channel: str) -> NamedTuple("C", [("release", str), ("entry", int)]):  # type: ignore[valid-type]
    """The release that a channel names, and the number of the entry that says so; "" and 0 where none is.

    Never cached: it asks about the world. What follows is cached by its answer.
    """
    from registry.channel import head
    from registry.store import open_store

    entry = head(open_store(registry), channel)
    return (entry.release, entry.number) if entry else ("", 0)
