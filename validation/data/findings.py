"""What validation found: one finding per expectation, and the error that stops a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from common.errors import UserError
from validation.data.profile import DataProfile


@dataclass(frozen=True)
class Finding:
    """One expectation and how the data met it."""

    table: str  # "" for what concerns the dataset as a whole
    column: str  # "" for what concerns a whole table
    expects: str  # what should hold, as a sentence
    ok: bool
    observed: str  # what was seen
    problem: str = ""  # the failure as a full sentence
    severity: Literal["block", "warn"] = "block"
    check: str = ""  # the Great Expectations type, where one ran

    @property
    def stops(self) -> bool:
        """Whether this finding stops the run."""
        return not self.ok and self.severity == "block"


@dataclass(frozen=True)
class ValidationReport:
    """All findings over one dataset.

    Attributes:
        profile: None where tables could not be read.
        drift: how far the data moved from production's, see `measure_drift`; empty without production.
    """

    findings: tuple[Finding, ...]
    profile: DataProfile | None
    drift: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing stops the run."""
        return not self.problems

    @property
    def problems(self) -> tuple[str, ...]:
        """One sentence for each finding that stops the run."""
        return tuple(one.problem for one in self.findings if one.stops)

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence for each failed finding that does not stop the run."""
        return tuple(one.problem for one in self.findings if not one.ok and not one.stops)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "ok": self.ok,
            "findings": [asdict(one) for one in self.findings],
            "profile": self.profile.to_json() if self.profile else None,
            "drift": dict(self.drift),
        }


class ValidationError(UserError, ValueError):
    """A dataset that must not be trained on; the message has one sentence per failure."""

    def __init__(self, report: ValidationReport) -> None:
        super().__init__("\n".join(report.problems))
        self.report = report
