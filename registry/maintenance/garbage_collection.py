"""Garbage collection: delete the releases that fell out of use, then the blobs that no release names.

Writers may go on meanwhile. Three rules keep what they rely on:
- A writer marks an existing object before it relies on it, and a deletion applies to the state that was
  scanned before the logs and manifests were read. An object marked since then stays.
- Objects written or marked within the grace period stay, because a release's blobs are written before its
  manifest, and the manifest before the channel entry.
- Manifests are deleted before blobs, and blobs are compared with the manifests that exist *after* that. A
  garbage collection that is killed in between leaves blobs without a manifest, which the next one deletes.
  A release's later validations are treated like its blobs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from registry.channels.channel import list_channels
from registry.channels.log import read_log
from registry.errors import RegistryError, ReleaseError
from registry.releases.layout import (
    BLOBS,
    RELEASES,
    blob_name,
    is_manifest,
    is_validation,
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
    blobs: tuple[ObjectState, ...]  # that no remaining manifest names, and validations of deleted releases
    n_remaining: int  # releases that stay

    @property
    def objects(self) -> tuple[ObjectState, ...]:
        """Manifests, blobs and validations."""
        return self.manifests + self.blobs

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
        RegistryError: `keep` or `grace` makes no sense, or a log or manifest is damaged: nobody can tell then
            what is needed.
    """
    if keep < 1 or grace < timedelta(0):
        raise RegistryError("Keep at least the last entry of each channel, and a grace period of 0 or more.")
    deadline = datetime.now(UTC) - grace
    # Scan before reading logs and manifests: an object marked in between has another state than scanned.
    below_releases = store.scan(RELEASES)
    blobs = [*store.scan(BLOBS), *(state for state in below_releases if is_validation(state.name))]
    manifests = [state for state in below_releases if is_manifest(state.name)]
    logs = [read_log(store, channel, last=keep + 1) for channel in list_channels(store)]
    in_use = {manifest_name(entry.release) for log in logs for entry in log.entries[-keep:]}
    unused = tuple(state for state in manifests if state.name not in in_use and state.last_used < deadline)
    remaining = {state.name for state in manifests} - {state.name for state in unused}
    needed = _blobs_of(store, remaining)
    _blobs_of(store, {state.name for state in unused})  # stop if any of the manifests is damaged
    return Garbage(
        manifests=unused,
        blobs=tuple(state for state in _unneeded(blobs, remaining, needed) if state.last_used < deadline),
        n_remaining=len(remaining),
    )


def garbage_collect(store: ObjectStore, keep: int, grace: timedelta = GRACE) -> Garbage:
    """Delete what `find_garbage` finds and return what was deleted. If it is killed, run it again.

    Raises RegistryError like `find_garbage`, or if the store cannot be changed.
    """
    garbage = find_garbage(store, keep, grace)
    manifests = _delete(store, garbage.manifests)
    # Read again: some manifests were marked meanwhile and stayed, and there may be new ones.
    remaining = {name for name in store.list(RELEASES) if is_manifest(name)}
    blobs = _delete(store, _unneeded(garbage.blobs, remaining, _blobs_of(store, remaining)))
    return Garbage(manifests, blobs, garbage.n_remaining + len(garbage.manifests) - len(manifests))


def _delete(store: ObjectStore, states: Sequence[ObjectState]) -> tuple[ObjectState, ...]:
    """Delete the objects that are still in the given states; return those that were deleted."""
    deleted = in_parallel(store.delete, [(state,) for state in states])
    return tuple(state for state, success in zip(states, deleted, strict=True) if success)


def _blobs_of(store: ObjectStore, manifests: Collection[str]) -> set[str]:
    """Names of the blobs that manifests (object names) list; manifests deleted meanwhile list none."""
    names = set()
    for name in sorted(manifests):
        try:
            manifest = read_manifest(store, name.split("/")[1])
        except ReleaseError:
            if store.exists(name):
                raise
            continue
        names |= {blob_name(record.sha256) for _, record in manifest.all_files()}
    return names


def _unneeded(
    states: Sequence[ObjectState], manifests: Collection[str], blobs: Collection[str]
) -> list[ObjectState]:
    """The blobs and validations that belong to none of the manifests; `blobs` are those that they list."""
    return [
        state
        for state in states
        if state.name not in blobs
        and not (is_validation(state.name) and manifest_of(state.name) in manifests)
    ]
