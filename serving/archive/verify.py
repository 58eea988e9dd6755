"""A release's archive, made again from its bundle: byte for byte the one that was validated, or none.

A release stores no archive: the same weights once more, and a file that runs code. Whoever deploys one makes
it from the bundle, and the reports of the release's infra validations say which digest it must have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from common.digests import file_digest
from serving.archive.build import Maker, WorkerConfig, build_archive, read_archive
from serving.errors import ServingError


class OutdatedProofError(ServingError):
    """What this machine makes of the bundle is not what was validated."""


@dataclass(frozen=True)
class Proof:
    """What a report of an infra validation says of the archive.

    Attributes:
        archive_sha256: of the archive that was served.
        maker: what made it; None in a report that does not say so.
    """

    archive_sha256: str
    maker: Maker | None = None

    @classmethod
    def read(cls, report: Mapping[str, Any]) -> Proof:
        """Read an infra report. Raises ServingError where it is none."""
        try:
            made_by = report.get("made_by")
            return cls(str(report["archive_sha256"]), Maker.read(made_by) if made_by else None)
        except (AttributeError, KeyError, TypeError) as error:
            raise ServingError(f"An infra report has no archive_sha256 or made_by ({error!r}).") from error

    @property
    def workers(self) -> WorkerConfig:
        """The worker settings that were validated; today's where the report says none we can read."""
        try:
            return WorkerConfig.from_yaml(self.maker.workers) if self.maker else WorkerConfig()
        except (KeyError, ValueError, TypeError, yaml.YAMLError):
            return WorkerConfig()


def rebuild(bundle: Path, output_dir: Path, release: str, proofs: Sequence[Proof]) -> tuple[Path, str]:
    """Build the archive that one of the proofs is of; return it and its SHA-256.

    Args:
        bundle: folder of the release's bundle.
        output_dir: where the archive goes.
        release: full digest.
        proofs: at least one; the first that this machine's code fulfils counts.

    Raises:
        OutdatedProofError: no proof is of what this machine's code makes of the bundle.
        ArchiveError: the bundle is incomplete or cannot be packaged.
    """
    wanted = {proof.archive_sha256 for proof in proofs}
    for workers in dict.fromkeys(proof.workers for proof in proofs):
        archive = build_archive(bundle, output_dir, release, workers=workers)
        found = file_digest(archive)
        if found in wanted:
            return archive, found
    raise OutdatedProofError(_sentence(archive, found, proofs[0]))


def _sentence(archive: Path, found: str, proof: Proof) -> str:
    why = proof.maker.changes(read_archive(archive).maker) if proof.maker else ""
    return (
        f"It was validated as archive {proof.archive_sha256[:12]}, but this machine's serving code makes "
        f"{found[:12]} of it{f' ({why})' if why else ''}."
    )
