"""Releases: written once under the digest of their content, the manifest last; found by that digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from car_model.evidence.base import EvidenceError
from car_model.evidence.evaluation import Evaluation
from common.errors import first_problem
from registry.errors import ObjectDamaged, ObjectExists, ObjectMissing, ReleaseError
from registry.releases.bundle_files import read_bundle, record
from registry.releases.gate import VERDICT, Gate, judge
from registry.releases.layout import RELEASES, blob_name, is_manifest, manifest_name
from registry.releases.manifest import FileRecord, Manifest
from registry.store.base import ObjectStore, in_parallel

EVALUATION = "evaluation.json"
MIN_PREFIX = 4


def write_release(
    store: ObjectStore,
    bundle: Path | str,
    evidence: Mapping[str, Path],
    *,
    parent: str | None = None,
    git_commit: str | None = None,
    run_id: str | None = None,
    force: str | None = None,
) -> Manifest:
    """Store a bundle and its evidence as a release and return its manifest.

    Files are written first, each as the blob of its digest unless that exists already, and the manifest
    last: a release is either complete or not there. Writing equal content again returns the existing
    manifest, after restoring missing files. An interrupted write is completed by the next one.

    Args:
        evidence: name -> file. Evidence is stored with the release and named in its manifest, but does not
            count in its digest. `verdict.json` is required; `evaluation.json` gives the release's metrics.
        parent: the release that this one follows, which must be in the registry.
        git_commit, run_id: of the code and the pipeline run that made the release.
        force: the reason to write a release that the gate did not bless.

    Raises:
        ReleaseError: the verdict is not blessed and not forced, the parent is unknown, the bundle holds a
            file that could run code, or a garbage collection took a file that was just written.
        UserError: the bundle is incomplete, or its parts do not belong together.
        StoreError: the store cannot be written.
    """
    checked = read_bundle(bundle)
    gate = _require_blessing(evidence, checked.release, force)
    files = [(stored, checked.folder / path) for path, stored in checked.files.items()]
    if store.refresh_mark(manifest_name(checked.release)):  # a concurrent garbage collection keeps it
        _upload(store, checked.folder, files)
        return _seal(store, read_manifest(store, checked.release))
    if parent is not None:
        read_manifest(store, parent)
    for name, path in evidence.items():
        if not Path(path).is_file():
            raise ReleaseError(f"The evidence {name} is not a file: {path}.")
    metrics, holdout = _read_metrics(evidence, checked.release, gate)
    try:
        manifest = Manifest(
            release=checked.release,
            files=checked.files,
            evidence={name: record(Path(path)) for name, path in evidence.items()},
            versions=checked.versions,
            parent=parent,
            metrics=metrics,
            holdout=holdout,
            forced=None if gate.blessed or not force else force.strip(),
            git_commit=git_commit or None,
            run_id=run_id or None,
            created=datetime.now(UTC),
        )
    except ValidationError as error:
        raise ReleaseError(f"The release cannot be recorded: {first_problem(error)}") from error
    files += [(stored, Path(evidence[name])) for name, stored in manifest.evidence.items()]
    _upload(store, checked.folder, files)
    _seal(store, manifest)
    try:
        store.create(manifest_name(manifest.release), manifest.to_bytes())
    except ObjectExists:  # an equal run was faster; its manifest is the release's
        return read_manifest(store, manifest.release)
    return manifest


def read_manifest(store: ObjectStore, release: str, sha256: str | None = None) -> Manifest:
    """Read the manifest of a release (full digest), and check its SHA-256 in a channel's entry if given.

    Raises ReleaseError if the release is missing, or its manifest is damaged or not the one promoted.
    """
    manifest, digest = load_manifest(store, release)
    if sha256 is not None and digest != sha256:
        raise ReleaseError(
            f"{store.url}/{manifest_name(release)} was changed or written anew after it was promoted: its "
            f"digest is {digest[:12]}, the channel recorded {sha256[:12]}; look at it and promote it again, "
            "to staging first."
        )
    return manifest


def load_manifest(store: ObjectStore, release: str) -> tuple[Manifest, str]:
    """A release's manifest and the SHA-256 of its stored bytes. Raises ReleaseError like `read_manifest`."""
    name = manifest_name(release)
    try:
        data = store.read(name)
    except ObjectMissing as error:
        raise ReleaseError(f"There is no release {release[:12]} in {store.url}.") from error
    except ObjectDamaged as error:
        raise ReleaseError(str(error)) from error
    manifest = Manifest.from_bytes(data, f"{store.url}/{name}", ReleaseError)
    if manifest.release != release:
        raise ReleaseError(f"{store.url}/{name} is the manifest of another release, {manifest.release[:12]}.")
    return manifest, hashlib.sha256(data).hexdigest()


def mark_in_use(store: ObjectStore, release: str) -> None:
    """Mark a release that is about to be used, so that no garbage collection deletes it."""
    if not store.refresh_mark(manifest_name(release)):
        raise ReleaseError(f"There is no release {release[:12]} in {store.url}.")


def release_digests(store: ObjectStore) -> list[str]:
    """Full digests of all complete releases, sorted."""
    return [name.split("/")[1] for name in store.list(RELEASES) if is_manifest(name)]


def list_releases(store: ObjectStore, problems: list[str] | None = None) -> list[Manifest]:
    """Manifests of all complete releases, newest first.

    Damaged ones are left out, with a sentence each in `problems`; without that list, ReleaseError is raised.
    """
    manifests = []
    for digest in release_digests(store):
        try:
            manifests.append(read_manifest(store, digest))
        except ReleaseError as error:
            if problems is None:
                raise
            problems.append(str(error))
    return sorted(manifests, key=lambda manifest: (manifest.created, manifest.release), reverse=True)


def find_release(store: ObjectStore, prefix: str) -> str:
    """Return the full digest of the only release whose digest starts with a prefix.

    Raises ReleaseError if the prefix has fewer than four characters, or fits no complete release or several.
    """
    if len(prefix) < MIN_PREFIX:
        raise ReleaseError(f"{prefix!r} is too short for a release: give at least {MIN_PREFIX} characters.")
    matches = [digest for digest in release_digests(store) if digest.startswith(prefix.lower())]
    if not matches:
        raise ReleaseError(f"There is no release {prefix} in {store.url}.")
    if len(matches) > 1:
        shortened = ", ".join(digest[:16] for digest in matches)
        raise ReleaseError(f"{prefix} fits {len(matches)} releases ({shortened}): give more characters.")
    return matches[0]


def _require_blessing(evidence: Mapping[str, Path], release: str, force: str | None) -> Gate:
    """The gate's answer in verdict.json. Raises ReleaseError without a blessing or a reason to force it."""
    path = Path(evidence[VERDICT]) if VERDICT in evidence else None
    gate = judge(path.read_bytes() if path and path.is_file() else None, release)
    if not gate.blessed and not (force and force.strip()):
        raise ReleaseError(
            f"The gate did not bless this release ({'; '.join(gate.failing)}): it is not written. "
            "Fix what fails, or force it with a reason."
        )
    return gate


def _read_metrics(
    evidence: Mapping[str, Path], release: str, gate: Gate
) -> tuple[dict[str, float], str | None]:
    """The challenger's mean metrics in evaluation.json and their holdout; none without that file."""
    if EVALUATION not in evidence:
        return {}, None
    path = evidence[EVALUATION]
    try:
        evaluation = Evaluation.read(path)
    except EvidenceError as error:
        raise ReleaseError(str(error)) from error
    holdout = evaluation.holdout.digest if evaluation.holdout else None
    if gate.blessed and (evaluation.release, holdout) != (release, gate.holdout):
        raise ReleaseError(f"{path} is of another bundle or holdout than the verdict: run the gate again.")
    challenger = evaluation.models.get("challenger", {})
    metrics = {str(name): interval.mean for name, interval in challenger.items() if interval.mean is not None}
    if not metrics:
        raise ReleaseError(f"{path} has no metrics of the form models.challenger.<metric>.mean.")
    return metrics, holdout


def _seal(store: ObjectStore, manifest: Manifest) -> Manifest:
    """Mark every blob that a manifest names, right before somebody relies on it.

    Raises ReleaseError if one is gone: a garbage collection whose grace period is too short took it.
    """
    blobs = {blob_name(stored.sha256): path for path, stored in manifest.all_files()}
    present = in_parallel(store.refresh_mark, [(name,) for name in blobs], store.workers)
    for (name, path), exists in zip(blobs.items(), present, strict=True):
        if not exists:
            raise ReleaseError(
                f"{path} of release {manifest.release[:12]} is missing: there is no {store.url}/{name}. If a "
                "garbage collection took it, give it a longer --grace-hours and run again."
            )
    return manifest


def _upload(store: ObjectStore, bundle: Path, files: Sequence[tuple[FileRecord, Path]]) -> None:
    """Store files (record from when they were checked, path) unless their blobs exist."""
    try:
        store.upload_many({blob_name(stored.sha256): path for stored, path in files})
    except ObjectExists as error:
        raise ReleaseError(f"{error} It is damaged: delete that object and run again.") from error
    if all(path.is_file() and record(path) == stored for stored, path in files):
        return
    # A file changed during the upload. Delete blobs with the wrong bytes: they would block the next run.
    for folder in {blob_name(stored.sha256).rpartition("/")[0] for stored, _ in files}:
        for state in store.scan(f"{folder}/"):
            if store.sha256(state.name) != state.name.rpartition("/")[2]:
                store.delete(state)
    raise ReleaseError(f"{bundle} or its evidence changed while it was being released: run again.")
