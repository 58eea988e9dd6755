"""From the registry to a server: fetch a release's bundle, make its validated archive, roll over.

A release stores no archive. It says which digest the validated one has: in the infra report that it was
written with, and in those that it got later. A release without any (onboarded items) is validated before it
is deployed.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from common.digests import file_digest
from registry.channels.channel import head
from registry.channels.log import Entry
from registry.errors import ReleaseError
from registry.releases.fetch import fetch_evidence, fetch_release
from registry.releases.manifest import Manifest
from registry.releases.release import read_manifest
from registry.releases.validations import add_validation, read_validations
from registry.store.base import ObjectStore
from serving.archive.build import build_archive
from serving.archive.verify import StaleValidationError, ValidatedArchive, rebuild_archive
from serving.torchserve.infra_validation import InfraReport, infra_validate
from serving.torchserve.rollover import DeployError, Deployment, roll_over
from serving.torchserve.state_dir import StateDir, writing

REPORT = "infra.json"
GOLDEN = "golden.json"


def deploy_channel(store: ObjectStore, channel: str, state_dir: Path | str, who: str) -> Deployment:
    """Serve the release that a channel uses, from the archive that was validated and no other.

    Args:
        state_dir: folder of the TorchServe to roll over, started where it is down.
        who: signs the validation of a release that has none yet.

    Raises:
        DeployError: the release is not the default afterwards; what was served before still is.
        InfraValidationError: the release had no validation and does not pass it; nothing was deployed.
        RegistryError: the channel is empty, or the release is missing or damaged.
    """
    entry = head(store, channel)
    if entry is None:
        raise ReleaseError(f"The channel {channel} in {store.url} is empty: promote a release to it first.")
    manifest = read_manifest(store, entry.release, entry.manifest_sha256)
    with tempfile.TemporaryDirectory(prefix="car-deploy-") as place, writing(Path(place)):
        folder = Path(place)
        golden = fetch_evidence(store, manifest, GOLDEN, folder / GOLDEN)
        if not (proofs := read_validated_archives(store, manifest)):
            validate_release(store, entry.release, who)
            proofs = read_validated_archives(store, manifest)
        archive, digest = _archive(store, entry, proofs, folder, StateDir.at(state_dir))
        return roll_over(archive, entry.release, state_dir, golden, validated=digest)


def fetch_validated(store: ObjectStore, entry: Entry, folder: Path) -> tuple[Path, Path]:
    """Make the archive of a channel's entry in a folder, without writing to the registry.

    Returns:
        The archive, whose digest is a validated one, and the golden requests.

    Raises:
        DeployError: the release was not validated, or not with this code.
        RegistryError: the release is missing or damaged.
    """
    manifest = read_manifest(store, entry.release, entry.manifest_sha256)
    golden = fetch_evidence(store, manifest, GOLDEN, folder / GOLDEN)
    if not (proofs := read_validated_archives(store, manifest)):
        raise DeployError(
            f"Release {entry.release[:12]} was never validated: run python pipeline.py infra-validate "
            f"{entry.release[:12]} --registry {store.url}."
        )
    archive, _ = _archive(store, entry, proofs, folder)
    return archive, golden


def validate_release(store: ObjectStore, release: str, who: str) -> InfraReport:
    """Prove that this machine's code serves a release as it was evaluated, and note that beside the release.

    Args:
        release: full digest.
        who: signs it.

    Raises:
        InfraValidationError: it does not; nothing is noted.
        RegistryError: the release is missing, damaged or without golden requests, or cannot be added to.
    """
    with tempfile.TemporaryDirectory(prefix="car-validate-") as place:
        folder = Path(place)
        manifest = fetch_release(store, release, folder / "bundle")
        golden = fetch_evidence(store, manifest, GOLDEN, folder / GOLDEN)
        archive = build_archive(folder / "bundle", folder, release)
        report = infra_validate(archive, golden, release, folder / "server")
    add_validation(store, release, report.as_dict(), who)
    return report


def record_validation(store: ObjectStore, manifest: Manifest, report: Path, who: str) -> None:
    """Note a validation beside a release that was there already, unless it says nothing new."""
    first = manifest.evidence.get(REPORT)
    if first and first.sha256 == file_digest(report):
        return
    content = _read(report)
    known = {proof.archive_sha256 for proof in read_validated_archives(store, manifest)}
    if ValidatedArchive.from_report(content).archive_sha256 not in known:
        add_validation(store, manifest.release, content, who)


def read_validated_archives(store: ObjectStore, manifest: Manifest) -> list[ValidatedArchive]:
    """What a release's infra reports say, the newest first; none where it was never validated."""
    reports: list[dict[str, Any]] = [one.report for one in read_validations(store, manifest.release)]
    if REPORT in manifest.evidence:
        with tempfile.TemporaryDirectory() as place:
            path = fetch_evidence(store, manifest, REPORT, Path(place) / REPORT)
            reports.append(_read(path))
    return [ValidatedArchive.from_report(one) for one in reports]


def _read(report: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(report.read_text()))
    except (ValueError, TypeError) as error:
        raise ReleaseError(f"{report.name} is not an infra report: {error}.") from error


def _archive(
    store: ObjectStore,
    entry: Entry,
    proofs: list[ValidatedArchive],
    folder: Path,
    state: StateDir | None = None,
) -> tuple[Path, str]:
    """A validated archive and its digest: made of the bundle, unless the server has the newest already."""
    newest = proofs[0].archive_sha256
    for kept in state.store.glob("*.mar") if state else ():
        if file_digest(kept) == newest:  # a copy: the server's own may go while it rolls over
            return Path(shutil.copyfile(kept, folder / kept.name)), newest
    fetch_release(store, entry.release, folder / "bundle", entry.manifest_sha256)
    try:
        return rebuild_archive(folder / "bundle", folder / "made", entry.release, proofs)
    except StaleValidationError as error:
        raise DeployError(_advice(store, entry.release, error)) from error


def _advice(store: ObjectStore, release: str, error: StaleValidationError) -> str:
    command = f"python pipeline.py infra-validate {release[:12]} --registry {store.url}"
    return (
        f"Release {release[:12]} was not deployed: {error} Validate it with this code ({command}), or deploy "
        "with the code that it was validated with."
    )
