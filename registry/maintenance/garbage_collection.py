"""Garbage collection: delete the releases that fell out of use, then the blobs that no release names.

Writers may go on meanwhile. Three rules keep what they rely on:
- A writer marks an existing object before it relies on it, and a deletion applies to the state that was
  scanned before the logs and manifests were read. An object marked since then stays.
- Objects written or marked within the grace period stay, because a release's blobs are written before its
  manifest, and the manifest before the channel entry. The period is measured by the store's clock.
- Manifests are deleted before blobs, and blobs are compared with the manifests that exist *after* that. A
  garbage collection that is killed in between leaves blobs without a manifest, which the next one deletes.
  A release's later validations and verdicts are treated like its blobs.

Files that are no objects of a registry stay. While a manifest that stays is damaged, so do all blobs, because
nobody can tell which it needs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

from registry.channels.channel import list_channels
from registry.channels.log import read_log
from registry.errors import RegistryError, ReleaseError
from registry.releases.layout import (
    BLOBS,
    RELEASES,
    blob_name,
    is_later,
    is_manifest,
    is_object,
    manifest_name,
    manifest_of,
)
from registry.releases.release import read_manifest
from registry.store.base import ObjectState, ObjectStore, in_parallel

GRACE = timedelta(hours=24)


@dataclass(frozen=True)
class Garbage:
    """What a garbage collection deletes, or deleted, as scanned."""

    manifests: tuple[ObjectState, ...]
    blobs: tuple[ObjectState, ...]  # that no remaining manifest names, and what was added to deleted releases
    leftovers: tuple[ObjectState, ...]  # temporary files of writers that were killed
    n_remaining: int  # releases that stay
    problems: tuple[str, ...]  # a sentence for each damaged manifest that stays

    @property
    def objects(self) -> tuple[ObjectState, ...]:
        """Manifests, blobs, later validations and verdicts, and temporary files."""
        return self.manifests + self.blobs + self.leftovers

    @property
    def size(self) -> int:
        """Total size in bytes."""
        return sum(state.size for state in self.objects)


def find_garbage(store: ObjectStore, keep: int, grace: timedelta = GRACE) -> Garbage:
    """Find what `garbage_collect` would delete now, without changing anything.

    Args:
        keep: a release stays if one of the last `keep` entries of any channel names it.
        grace: objects written or marked as used within this time stay.

    Raises:
        RegistryError: `keep` or `grace` makes no sense, or a log is damaged: nobody can tell then what is in
            use.
    """
    if keep < 1 or grace < timedelta(0):
        raise RegistryError("Keep at least the last entry of each channel, and a grace period of 0 or more.")
    # Scan before reading logs and manifests: an object marked in between has another state than scanned.
    below_releases, leftovers = store.scan(RELEASES), store.leftovers()
    blobs = [state for state in store.scan(BLOBS) if is_object(state.name)]
    blobs += [state for state in below_releases if is_later(state.name)]
    if not (below_releases or blobs or leftovers):
        return Garbage((), (), (), 0, ())
    deadline = store.now() - grace
    manifests = [state for state in below_releases if is_manifest(state.name)]
    logs = [read_log(store, channel, last=keep + 1) for channel in list_channels(store)]
    in_use = {manifest_name(entry.release) for log in logs for entry in log.entries[-keep:]}
    unused = tuple(state for state in manifests if state.name not in in_use and state.last_used <= deadline)
    remaining = {state.name for state in manifests} - {state.name for state in unused}
    unneeded, problems = _unneeded(store, blobs, remaining)
    return Garbage(
        manifests=unused,
        blobs=tuple(state for state in unneeded if state.last_used <= deadline),
        leftovers=tuple(state for state in leftovers if state.last_used <= deadline),
        n_remaining=len(remaining),
        problems=problems,
    )


def garbage_collect(store: ObjectStore, keep: int, grace: timedelta = GRACE) -> Garbage:
    """Delete what `find_garbage` finds and return what was deleted. If it is killed, run it again.

    Raises RegistryError like `find_garbage`, or if the store cannot be changed.
    """
    garbage = find_garbage(store, keep, grace)
    manifests = _delete(store, garbage.manifests)
    # Read again: some manifests were marked meanwhile and stayed, and there may be new ones.
    remaining = {name for name in store.list(RELEASES) if is_manifest(name)}
    unneeded, problems = _unneeded(store, garbage.blobs, remaining)
    blobs, leftovers = _delete(store, unneeded), _delete(store, garbage.leftovers)
    n_remaining = garbage.n_remaining + len(garbage.manifests) - len(manifests)
    return Garbage(manifests, blobs, leftovers, n_remaining, problems)


def _delete(store: ObjectStore, states: Sequence[ObjectState]) -> tuple[ObjectState, ...]:
    """Delete the objects that are still in the given states; return those that were deleted."""
    deleted = in_parallel(store.delete, [(state,) for state in states])
    return tuple(state for state, success in zip(states, deleted, strict=True) if success)


def _unneeded(
    store: ObjectStore, states: Sequence[ObjectState], manifests: Collection[str]
) -> tuple[list[ObjectState], tuple[str, ...]]:
    """The blobs and validations that belong to none of the manifests (object names), and what is damaged.

    A damaged manifest may name any blob. One that was deleted meanwhile names none.
    """
    named, problems = set(), []
    for name in sorted(manifests):
        try:
            manifest = read_manifest(store, name.split("/")[1])
        except ReleaseError as error:
            if store.exists(name):
                problems.append(f"{error} No blob is deleted while it stays.")
            continue
        named |= {blob_name(record.sha256) for _, record in manifest.all_files()}
    unneeded = [
        state
        for state in states
        if (is_later(state.name) and manifest_of(state.name) not in manifests)
        or not (problems or is_later(state.name) or state.name in named)
    ]
    return unneeded, tuple(problems)
