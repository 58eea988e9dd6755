"""Collecting what nobody needs: releases that fell out of use, then the blobs that no release names.

Writers go on meanwhile. Three things keep what they rely on:
- whoever finds an object there and relies on it marks it first, and a deletion is bound to the state seen
  before the logs and manifests were read: an object marked since stays;
- what was written or marked within the grace period stays, because a release's blobs are there before its
  manifest, and a manifest before the entry that puts it in use;
- manifests go before blobs, and blobs are compared with the manifests that are there *after* that. Killed in
  the middle, a collection leaves blobs without a manifest, which the next one takes. A release's later
  validations go like its blobs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from registry.channels.channel import list_channels
from registry.channels.log import read_log
from registry.errors import RegistryError, ReleaseError
from registry.releases.layout import BLOBS, RELEASES, blob_name, is_validation, manifest_name, owner
from registry.releases.release import read_manifest
from registry.store.base import ObjectStore, Stored
from registry.store.parallel import in_parallel

GRACE = timedelta(hours=24)


@dataclass(frozen=True)
class Collection:
    """What a collection takes, or took.

    Attributes:
        releases: manifests, as seen.
        blobs: blobs that no remaining manifest names and validations of releases that go, as seen.
        kept: number of releases that stay.
    """

    releases: tuple[Stored, ...]
    blobs: tuple[Stored, ...]
    kept: int

    @property
    def size(self) -> int:
        """Bytes of all of it."""
        return sum(one.size for one in (*self.releases, *self.blobs))


def plan(store: ObjectStore, keep: int, grace: timedelta = GRACE) -> Collection:
    """What `collect` would take now; nothing is changed.

    Args:
        keep: a release stays if one of the last `keep` entries of any channel names it.
        grace: what was written or marked as used since then stays.

    Raises:
        RegistryError: `keep` or `grace` makes no sense, or a log or manifest is damaged: then nobody can tell
            what is needed, and nothing is taken.
    """
    if keep < 1 or grace < timedelta(0):
        raise RegistryError("Keep at least the last entry of each channel, and a grace period of 0 or more.")
    old = datetime.now(UTC) - grace
    # States first, reasons to stay after: what is marked in between can no longer be deleted by its state.
    released = store.scan(RELEASES)
    seen = {one.name: one for one in released if _is_manifest(one.name)}
    blobs = [*store.scan(BLOBS), *(one for one in released if is_validation(one.name))]
    wanted = {manifest_name(release) for release in _in_use(store, keep)}
    going = tuple(one for one in seen.values() if one.name not in wanted and one.used < old)
    staying = set(seen) - {one.name for one in going}
    named = _named(store, staying)
    _named(store, {one.name for one in going})  # a damaged manifest stops everything before it begins
    unnamed = tuple(one for one in blobs if not _needed(one, staying, named) and one.used < old)
    return Collection(going, unnamed, len(staying))


def collect(store: ObjectStore, keep: int, grace: timedelta = GRACE) -> Collection:
    """Delete what `plan` finds; return what went. Killed in the middle and run again, it completes.

    Raises:
        RegistryError: like `plan`; or the store cannot be changed.
    """
    planned = plan(store, keep, grace)
    releases = _delete(store, planned.releases)
    # Read again: a manifest that was marked meanwhile stayed, and new ones came.
    manifests = {name for name in store.list(RELEASES) if _is_manifest(name)}
    named = _named(store, manifests)
    blobs = _delete(store, [one for one in planned.blobs if not _needed(one, manifests, named)])
    kept = planned.kept + len(planned.releases) - len(releases)
    return replace(planned, releases=releases, blobs=blobs, kept=kept)


def _delete(store: ObjectStore, objects: Sequence[Stored]) -> tuple[Stored, ...]:
    """Delete what is still as it was seen; return what went."""
    gone = in_parallel(store.delete, [(one,) for one in objects])
    return tuple(one for one, went in zip(objects, gone, strict=True) if went)


def _in_use(store: ObjectStore, keep: int) -> set[str]:
    """Releases that the last entries of the channels name."""
    logs = [read_log(store, channel, last=keep + 1) for channel in list_channels(store)]
    return {entry.release for log in logs for entry in log.entries[-keep:]}


def _named(store: ObjectStore, manifests: set[str]) -> set[str]:
    """Names of the blobs that manifests (object names) list; one that went meanwhile lists none."""
    names = set()
    for name in sorted(manifests):
        try:
            manifest = read_manifest(store, name.split("/")[1])
        except ReleaseError:
            if store.exists(name):
                raise
            continue
        names |= {blob_name(one.sha256) for one in (*manifest.files.values(), *manifest.evidence.values())}
    return names


def _needed(one: Stored, manifests: set[str], named: set[str]) -> bool:
    """Whether a blob or a validation belongs to a manifest; `named` are the blobs that they list."""
    return one.name in named or (is_validation(one.name) and owner(one.name) in manifests)


def _is_manifest(name: str) -> bool:
    return name == owner(name)
