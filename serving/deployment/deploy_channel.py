"""From the registry to a server: fetch a release, build its validated archive, roll over.

A release stores no archive. It says which digest the validated one has: in the infra report that it was
written with, and in those that were added later. A release without any (it only added items) is validated
before it is deployed.
"""

from __future__ import annotations

import shlex
import shutil
import tempfile
from pathlib import Path

from common.digests import file_digest
from common.files import read_json_object
from common.home import Home
from registry.channels.channel import head, require_channel
from registry.channels.log import Entry
from registry.cli.options import car_command
from registry.errors import RegistryError, ReleaseError
from registry.releases.fetch import FetchedRelease
from registry.releases.manifest import Manifest
from registry.releases.validations import add_validation, read_validations
from registry.store.base import ObjectStore
from registry.store.open import open_store
from serving.archive.build import build_archive
from serving.archive.verify import StaleValidationError, ValidatedArchive, rebuild_archive
from serving.torchserve.infra_validation import InfraReport, infra_validate
from serving.torchserve.rollover import DeployError, Deployment, roll_over
from serving.torchserve.state_dir import DeployedRelease, ServedChannel, StateDir, report_write_errors

INFRA_REPORT = "infra.json"
GOLDEN = "golden.json"


def require_entry(store: ObjectStore, channel: str) -> Entry:
    """Read the entry that a channel uses. Raises RegistryError if the channel is empty or not there."""
    entry = head(store, channel)
    if entry is None:
        require_channel(store, channel)
        raise ReleaseError(f"The channel {channel} in {store.url} is empty: promote a release to it first.")
    return entry


def deploy_channel(store: ObjectStore, channel: str, state_dir: Path | str, who: str) -> Deployment:
    """Serve the release that a channel uses: see `deploy_entry`. Raises RegistryError if it is empty."""
    return deploy_entry(store, channel, require_entry(store, channel), state_dir, who)


def deploy_entry(
    store: ObjectStore, channel: str, entry: Entry, state_dir: Path | str, who: str
) -> Deployment:
    """Serve the release of a channel's entry, from the archive that was validated and no other.

    Args:
        state_dir: folder of the TorchServe to roll over; it is started if it is down. It answers for this
            channel from then on, and for no other.
        who: signs the validation of a release that has none yet.

    Raises:
        DeployError: the release is not the default afterwards; what was served before still is.
        ServingError: the server answers for another channel.
        InfraValidationError: the release had no validation and does not pass it; nothing was deployed.
        RegistryError: the release is missing or damaged.
    """
    served = ServedChannel.of(StateDir(state_dir), channel, store.url)
    served.check(StateDir(state_dir))
    release = FetchedRelease.read(store, entry.release, entry.manifest_sha256)
    with tempfile.TemporaryDirectory(prefix="car-deploy-") as name, report_write_errors(Path(name)):
        folder = Path(name)
        golden = release.fetch_evidence(GOLDEN, folder / GOLDEN)
        validated = read_validated_archives(release)
        if not validated:
            report = _validate(release, folder, who)
            validated = [ValidatedArchive(report.archive_sha256, report.provenance)]
        newest = validated[0].archive_sha256
        stored = [path for path in StateDir(state_dir).store.glob("*.mar") if file_digest(path) == newest]
        if stored:  # copy it: the server's own file may be removed during the rollover
            archive, digest = Path(shutil.copyfile(stored[0], folder / stored[0].name)), newest
        else:
            archive, digest = _rebuild(release, validated, folder)
        return roll_over(archive, entry.release, state_dir, golden, validated_sha256=digest, served=served)


def find_difference(state: StateDir) -> list[str]:
    """A sentence if the folder's server has another release than its channel uses, or if nobody can tell."""
    served, deployed = ServedChannel.load_or_none(state), DeployedRelease.load_or_none(state)
    if served is None or deployed is None:
        return []
    store = open_store(served.url(state))
    try:
        entry = head(store, served.channel)
    except RegistryError as error:
        return [f"Nobody knows whether {state.root} serves what {served.channel} uses: {error}"]
    if entry is None or entry.release == deployed.release:
        return []
    command = car_command(f"deploy {served.channel}", store.url)
    if state.root != Home.load().server(served.channel).resolve():
        command += f" --serving {shlex.quote(str(state.root))}"
    return [
        f"The server in {state.root} has release {deployed.release[:12]}, but {served.channel} uses "
        f"{entry.release[:12]} (entry {entry.number}): {command}"
    ]


def fetch_validated(store: ObjectStore, entry: Entry, folder: Path) -> tuple[Path, Path]:
    """Build the validated archive of a channel's entry in a folder; return it and the golden requests.

    Raises:
        DeployError: the release was not validated, or not with this code.
        RegistryError: the release is missing or damaged.
    """
    release = FetchedRelease.read(store, entry.release, entry.manifest_sha256)
    golden = release.fetch_evidence(GOLDEN, folder / GOLDEN)
    validated = read_validated_archives(release)
    if not validated:
        raise _never_validated(release)
    archive, _ = _rebuild(release, validated, folder)
    return archive, golden


def _rebuild(release: FetchedRelease, validated: list[ValidatedArchive], folder: Path) -> tuple[Path, str]:
    bundle = release.fetch_bundle(folder / "bundle")
    try:
        return rebuild_archive(bundle, folder / "archive", release.digest, validated)
    except StaleValidationError as error:
        raise DeployError(
            f"Release {release.digest[:12]} was not deployed: {error} Validate it with this code "
            f"({_validate_command(release)}), or deploy with the code that it was validated with."
        ) from error


def require_validation(store: ObjectStore, release: str, who: str | None) -> InfraReport | None:
    """Validate a release that was never validated, signed by `who`; without `who`, refuse it.

    Returns the report; None if it was validated before.

    Raises:
        DeployError: it was never validated, and nobody is to do it.
        InfraValidationError: it cannot be served as it was evaluated.
        RegistryError: it is missing or damaged.
    """
    fetched = FetchedRelease.read(store, release)
    if read_validated_archives(fetched):
        return None
    if who is None:
        raise _never_validated(fetched)
    return validate_release(store, release, who)


def _never_validated(release: FetchedRelease) -> DeployError:
    return DeployError(
        f"Release {release.digest[:12]} was never validated: run {_validate_command(release)}."
    )


def _validate_command(release: FetchedRelease) -> str:
    return car_command(f"infra-validate {release.digest[:12]}", release.store.url)


def validate_release(store: ObjectStore, release: str, who: str) -> InfraReport:
    """Prove that this machine's code serves a release as it was evaluated; add the report, signed by `who`.

    Raises:
        InfraValidationError: it does not; nothing is added.
        RegistryError: the release is missing, damaged or without golden requests, or cannot be added to.
    """
    with tempfile.TemporaryDirectory(prefix="car-validate-") as folder:
        return _validate(FetchedRelease.read(store, release), Path(folder), who)


def _validate(release: FetchedRelease, folder: Path, who: str) -> InfraReport:
    bundle = release.fetch_bundle(folder / "bundle")
    golden = release.fetch_evidence(GOLDEN, folder / GOLDEN)
    archive = build_archive(bundle, folder, release.digest)
    report = infra_validate(archive, golden, release.digest, folder / "server")
    add_validation(release.store, release.digest, report.model_dump(mode="json"), who)
    return report


def record_validation(store: ObjectStore, manifest: Manifest, report: Path, who: str) -> None:
    """Add an infra report to a release that was there already, unless it names no new archive."""
    first = manifest.evidence.get(INFRA_REPORT)
    if first and first.sha256 == file_digest(report):
        return
    content = read_json_object(report, ReleaseError)
    digests = {item.archive_sha256 for item in read_validated_archives(FetchedRelease(store, manifest))}
    if ValidatedArchive.from_report(content).archive_sha256 not in digests:
        add_validation(store, manifest.release, content, who)


def read_validated_archives(release: FetchedRelease) -> list[ValidatedArchive]:
    """What a release's infra reports say, the newest first; empty if it was never validated."""
    reports = [dict(validation.report) for validation in read_validations(release.store, release.digest)]
    if INFRA_REPORT in release.manifest.evidence:
        with tempfile.TemporaryDirectory() as folder:
            path = release.fetch_evidence(INFRA_REPORT, Path(folder) / INFRA_REPORT)
            reports.append(read_json_object(path, ReleaseError))
    return [ValidatedArchive.from_report(report) for report in reports]
