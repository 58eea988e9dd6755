"""Build a release's archive from its bundle again, byte for byte as it was validated.

A release stores no archive: it would hold the same weights a second time, and a file that runs code. Whoever
deploys a release builds the archive from its bundle. The reports of the release's infra validations say which
digest it must have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from common.digests import file_digest
from common.errors import first_problem
from serving.archive.build import ArchiveProvenance, WorkerConfig, build_archive, read_archive
from serving.errors import ServingError


class StaleValidationError(ServingError):
    """The code on this machine builds another archive than the one that was validated."""


@dataclass(frozen=True)
class ValidatedArchive:
    """What the report of an infra validation says about the archive that it served."""

    archive_sha256: str
    provenance: ArchiveProvenance

    @classmethod
    def from_report(cls, report: Mapping[str, Any]) -> ValidatedArchive:
        """Read an infra report. Raises ServingError if it is not one."""
        try:
            return TypeAdapter(cls).validate_python(report)
        except ValidationError as error:
            sentence = f"An infra report has no archive_sha256 or provenance: {first_problem(error)}"
            raise ServingError(sentence) from error

    @property
    def workers(self) -> WorkerConfig:
        """The worker settings that were validated, or today's if the report's cannot be read."""
        try:
            return WorkerConfig.from_yaml(self.provenance.workers)
        except (KeyError, ValueError, TypeError, yaml.YAMLError):
            return WorkerConfig()


def rebuild_archive(
    bundle: Path, output_dir: Path, release: str, validated: Sequence[ValidatedArchive]
) -> tuple[Path, str]:
    """Build one of the validated archives; return its path and its SHA-256.

    Of the `validated` archives, at least one, the first that this machine's code can build is built.

    Raises:
        StaleValidationError: this machine's code builds none of them.
        ArchiveError: the bundle is incomplete or cannot be packaged.
    """
    digests = {item.archive_sha256 for item in validated}
    for workers in dict.fromkeys(item.workers for item in validated):
        archive = build_archive(bundle, output_dir, release, workers=workers)
        digest = file_digest(archive)
        if digest in digests:
            return archive, digest
    newest = validated[0]
    changes = newest.provenance.describe_changes(read_archive(archive).provenance)
    raise StaleValidationError(
        f"It was validated as archive {newest.archive_sha256[:12]}, but this machine's serving code builds "
        f"{digest[:12]}{f' ({changes})' if changes else ''}."
    )
