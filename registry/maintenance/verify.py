"""Checking a registry: every file hashed again, every channel's log followed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from registry.channels.channel import list_channels
from registry.channels.log import Entry, read_log
from registry.errors import ObjectDamaged, ObjectMissing, RegistryError, ReleaseError, StoreError
from registry.releases.layout import BLOBS, blob_name, manifest_name, validations_folder
from registry.releases.manifest import FileRecord, Manifest
from registry.releases.release import load_manifest, release_digests
from registry.releases.validations import read_validation
from registry.store.base import ObjectStore
from registry.store.parallel import in_parallel


@dataclass(frozen=True)
class Damage:
    """An object that is not what it should be.

    Attributes:
        object: its name in the store.
        what: one sentence that names it.
    """

    object: str
    what: str


@dataclass
class Findings:
    """What a check looked at and what it found."""

    releases: int = 0
    blobs: int = 0
    size: int = 0  # bytes hashed
    channels: int = 0
    damage: list[Damage] = field(default_factory=list)


def verify_releases(store: ObjectStore, releases: Iterable[str]) -> Findings:
    """Check some releases (full digests): their manifests and every file they name. Raises StoreError."""
    findings = Findings()
    manifests = [_checked_manifest(store, release, findings)[0] for release in releases]
    _check_blobs(store, [one for one in manifests if one], findings)
    return findings


def verify_all(store: ObjectStore) -> Findings:
    """Check every release and every channel.

    A log may name releases that were collected since, and perhaps written anew; the one in use must be there,
    and those that were not written anew must have the manifests that were promoted.

    Raises:
        StoreError: the store cannot be reached. Damage is not raised but returned.
    """
    findings = Findings()
    entries = [entry for name in list_channels(store) for entry in _log(store, name, findings)]
    manifests = []
    for release in release_digests(store):
        manifest, sha256 = _checked_manifest(store, release, findings)
        manifests += [manifest] if manifest else []
        if manifest and any(_contradicts(entry, manifest, sha256) for entry in entries):
            _note(store, findings, manifest_name(release), "was changed after it was promoted")
    _check_blobs(store, manifests, findings)
    return findings


def _contradicts(entry: Entry, manifest: Manifest, sha256: str) -> bool:
    """Whether an entry put this release in use as it is there, but with another manifest."""
    same = entry.release == manifest.release and manifest.created <= entry.when
    return same and entry.manifest_sha256 != sha256


def _log(store: ObjectStore, channel: str, findings: Findings) -> tuple[Entry, ...]:
    """A channel's entries, or none where its log is damaged."""
    findings.channels += 1
    try:
        log = read_log(store, channel)
    except StoreError:
        raise
    except RegistryError as error:
        findings.damage.append(Damage(f"channels/{channel}", str(error)))
        return ()
    if log.head and not store.exists(manifest_name(log.head.release)):
        what = f"is missing, but {channel} uses this release"
        _note(store, findings, manifest_name(log.head.release), what)
    return log.entries


def _checked_manifest(store: ObjectStore, release: str, findings: Findings) -> tuple[Manifest | None, str]:
    findings.releases += 1
    _check_validations(store, release, findings)
    try:
        return load_manifest(store, release)
    except StoreError:  # says nothing of the release
        raise
    except RegistryError as error:
        findings.damage.append(Damage(manifest_name(release), str(error)))
        return None, ""


def _check_validations(store: ObjectStore, release: str, findings: Findings) -> None:
    for name in store.list(validations_folder(release)):
        try:
            read_validation(store, name)
        except ReleaseError as error:
            findings.damage.append(Damage(name, str(error)))


def _check_blobs(store: ObjectStore, manifests: Iterable[Manifest], findings: Findings) -> None:
    """Hash each file once, however many releases share it."""
    sizes = {seen.name: seen.size for seen in store.scan(BLOBS)}
    users: dict[FileRecord, list[str]] = {}
    for manifest in manifests:
        for path, stored in (*manifest.files.items(), *manifest.evidence.items()):
            users.setdefault(stored, []).append(f"{path} of {manifest.release[:12]}")
    wrong = in_parallel(_wrong, [(store, stored, sizes.get(blob_name(stored.sha256))) for stored in users])
    for (stored, names), what in zip(users.items(), wrong, strict=True):
        findings.blobs += 1
        findings.size += stored.size
        if what:
            _note(store, findings, blob_name(stored.sha256), f"{what}; it is {', '.join(names)}")


def _wrong(store: ObjectStore, stored: FileRecord, size: int | None) -> str:
    """What is wrong with a blob of this size (None: not listed); "" where nothing is."""
    if size is None:
        return "is missing"
    if size != stored.size:
        return f"is damaged: it has {size} bytes instead of {stored.size}"
    try:
        found = store.sha256(blob_name(stored.sha256))
    except ObjectMissing:  # since it was listed
        return "is missing"
    except ObjectDamaged:
        return "is damaged: it does not come back as it is stored"
    return "" if found == stored.sha256 else f"is damaged: its digest is {found[:12]}"


def _note(store: ObjectStore, findings: Findings, name: str, what: str) -> None:
    findings.damage.append(Damage(name, f"{store.url}/{name} {what}."))
