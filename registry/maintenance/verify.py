"""Verify a registry: hash every stored file again and follow every channel's log."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from registry.channels.channel import list_channels
from registry.channels.log import Entry, read_log
from registry.errors import ObjectDamaged, ObjectMissing, RegistryError, ReleaseError, StoreError
from registry.releases.gate import later_verdicts, read_gate
from registry.releases.layout import (
    BLOBS,
    CHANNELS,
    RELEASES,
    blob_name,
    is_object,
    is_validation,
    manifest_name,
    validations_folder,
    verdict_name,
)
from registry.releases.manifest import FileRecord, Manifest
from registry.releases.release import load_manifest, release_digests
from registry.releases.validations import read_validation
from registry.store.base import ObjectStore, in_parallel


@dataclass(frozen=True)
class Damage:
    """An object that is not what it should be."""

    object: str  # its name in the store
    what: str  # one sentence that names it


@dataclass
class Findings:
    """What was verified, and every damaged or missing object."""

    releases: int = 0
    blobs: int = 0  # number of files hashed
    size: int = 0  # bytes hashed
    channels: int = 0
    damage: list[Damage] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)  # files that are no objects of a registry, and do no harm


def verify(store: ObjectStore, release: str | None = None) -> Findings:
    """Verify a release (full digest), or without one every release and every channel.

    A log may name releases that were garbage collected since. The release in use must exist, and every
    release that channels used must have a manifest that one of them recorded: one that was changed, or
    written anew, is named until somebody promotes it again.

    Raises StoreError if the store cannot be reached. Damage is returned instead of raised.
    """
    findings = Findings()
    entries: list[Entry] = []
    in_use: list[tuple[str, Entry]] = []
    for channel in list_channels(store):
        try:
            log = read_log(store, channel)
        except StoreError:
            raise
        except RegistryError as error:
            findings.damage.append(Damage(f"channels/{channel}", str(error)))
            continue
        entries += log.entries
        in_use += [(channel, log.head)] if log.head else []
    if release is None:
        findings.channels = len(list_channels(store))
        for channel, entry in in_use:
            if not store.exists(manifest_name(entry.release)):
                problem = f"is missing, but {channel} uses this release"
                findings.damage.append(_damage(store, manifest_name(entry.release), problem))
        names = [name for prefix in (BLOBS, CHANNELS, RELEASES) for name in store.list(prefix)]
        findings.strays = [name for name in names if not is_object(name)]
    releases = release_digests(store) if release is None else [release]
    manifests = [_verify_manifest(store, digest, entries, in_use, findings) for digest in releases]
    _verify_blobs(store, manifests, findings)
    return findings


def _verify_manifest(
    store: ObjectStore,
    release: str,
    entries: Iterable[Entry],
    in_use: Iterable[tuple[str, Entry]],
    findings: Findings,
) -> Manifest | None:
    """Verify a release's manifest, also against the channels' entries, and what was added to it later."""
    findings.releases += 1
    for name in filter(is_validation, store.list(validations_folder(release))):
        try:
            read_validation(store, name)
        except ReleaseError as error:
            findings.damage.append(Damage(name, str(error)))
    for name, data in later_verdicts(store, release):
        if data is None or name != verdict_name(release, hashlib.sha256(data).hexdigest()):
            findings.damage.append(_damage(store, name, "is damaged"))
    try:
        manifest, sha256 = load_manifest(store, release)
    except StoreError:  # says nothing about the release
        raise
    except RegistryError as error:
        findings.damage.append(Damage(manifest_name(release), str(error)))
        return None
    recorded = [entry for entry in entries if entry.release == release]
    users = [
        channel for channel, entry in in_use if entry.release == release and entry.manifest_sha256 != sha256
    ]
    problem = ""
    if users:
        problem = f"was changed after it was promoted, and {' and '.join(users)} will not deploy it"
    elif recorded and all(entry.manifest_sha256 != sha256 for entry in recorded):
        problem = "was changed or written anew after it was promoted: look at it and promote it again"
    elif any(entry.action == "promote" and entry.manifest_sha256 == sha256 for entry in recorded):
        gate = read_gate(store, manifest)
        if not gate.blessed:
            problem = f"was promoted without force, but is not blessed ({'; '.join(gate.failing)})"
    if problem:
        findings.damage.append(_damage(store, manifest_name(release), problem))
    return manifest


def _verify_blobs(store: ObjectStore, manifests: Iterable[Manifest | None], findings: Findings) -> None:
    """Hash each file once, however many releases share it."""
    sizes = {state.name: state.size for state in store.scan(BLOBS)}
    users: dict[FileRecord, list[str]] = {}
    for manifest in filter(None, manifests):
        for path, record in manifest.all_files():
            users.setdefault(record, []).append(f"{path} of {manifest.release[:12]}")

    def find_problem(record: FileRecord) -> str:
        """What is wrong with a blob; "" if nothing is."""
        name = blob_name(record.sha256)
        if name not in sizes:
            return "is missing"
        if sizes[name] != record.size:
            return f"is damaged: it has {sizes[name]} bytes instead of {record.size}"
        try:
            digest = store.sha256(name)
        except ObjectMissing:  # deleted since it was listed
            return "is missing"
        except ObjectDamaged:
            return "is damaged: it does not come back as it is stored"
        return "" if digest == record.sha256 else f"is damaged: its digest is {digest[:12]}"

    problems = in_parallel(find_problem, [(record,) for record in users])
    for (record, names), problem in zip(users.items(), problems, strict=True):
        findings.blobs += 1
        findings.size += record.size
        if problem:
            sentence = f"{problem}; it is {', '.join(names)}"
            findings.damage.append(_damage(store, blob_name(record.sha256), sentence))


def _damage(store: ObjectStore, name: str, problem: str) -> Damage:
    return Damage(name, f"{store.url}/{name} {problem}.")
