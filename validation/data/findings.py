"""What validation found: one finding per expectation, and the error that stops a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from car_model.evidence.data_profile import DataProfile
from car_model.evidence.drift import DataDrift
from common.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One expectation and how the data met it."""

    table: str = ""  # "" if it concerns the dataset as a whole
    column: str = ""  # "" if it concerns a whole table
    expects: str  # what should hold, as a sentence
    ok: bool
    observed: str
    problem: str = ""  # the failure as a full sentence
    severity: Literal["block", "warn"] = "block"  # what a failure does to the run
    check: str = ""  # type of the Great Expectations check, or "drift"; "" if reading the table failed

    @property
    def stops(self) -> bool:
        """Whether this finding stops the run."""
        return not self.ok and self.severity == "block"


@dataclass(frozen=True)
class ValidationReport:
    """All findings over one dataset."""

    findings: tuple[Finding, ...]
    profile: DataProfile | None  # None if tables could not be read
    drift: DataDrift  # how far the data moved from production's

    @property
    def ok(self) -> bool:
        """Whether nothing stops the run."""
        return not self.problems

    @property
    def problems(self) -> tuple[str, ...]:
        """One sentence for each finding that stops the run."""
        return tuple(finding.problem for finding in self.findings if finding.stops)

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence for each failed finding that does not stop the run."""
        return tuple(finding.problem for finding in self.findings if not finding.ok and not finding.stops)


class ValidationError(UserError):
    """A dataset that must not be trained on; the message has one sentence per failure."""

    def __init__(self, report: ValidationReport) -> None:
        super().__init__("\n".join(report.problems))
        self.report = report
