"""Which promotions by force a comparison with the release in use has to mention."""

from __future__ import annotations

from typing import Any

from registry.channel import RECENT
from registry.errors import ReleaseError
from registry.log import Entry, read_log
from registry.release import read_manifest
from registry.store import ObjectStore


def forced_promotions(
    store: ObjectStore, channel: str, entry: Entry, last: int = RECENT
) -> list[dict[str, Any]]:
    """Forced promotions, newest first: the one that put the release in use, and any among the last entries.

    Args:
        entry: the channel's last entry as the caller read it; entries after it are left out.
        last: how many entries up to it are looked at. For a release that a rollback put back, all are: it may
            have come by force long ago.

    Returns:
        Of each, plain JSON values: `number`, `release`, `who`, `when`, `why`, `in_use` (whether it brought
        the release that `entry` names), and `failing`: what the gate had against it (empty where it had
        nothing, so that the release was merely never staged, or where the manifest is gone).

    Raises:
        ChannelError: the log is damaged.
    """
    far = None if entry.action == "rollback" else last + 1  # one more: somebody may have moved it since
    until = [one for one in read_log(store, channel, far).entries[::-1] if one.number <= entry.number]
    came = (one for one in until if one.release == entry.release and one.action != "rollback")
    brought = next(came, None)
    return [
        {**_told(one), "in_use": one == brought, "failing": _failing(store, one)}
        for one in until
        if one.action == "force" and (one == brought or one.number > entry.number - last)
    ]


def _told(entry: Entry) -> dict[str, Any]:
    return entry.model_dump(mode="json", include={"number", "release", "who", "when", "why"})


def _failing(store: ObjectStore, entry: Entry) -> list[str]:
    try:
        return list(read_manifest(store, entry.release).gate.failing)
    except ReleaseError:  # collected since, or written anew: who and why are in the log all the same
        return []
