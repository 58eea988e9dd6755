"""verdict.json: whether the challenger may be released, and every reason for it."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import AwareDatetime, Field, model_validator

from car_model.evidence.base import Digest, Evidence, EvidenceFile, Text


class ForcedPromotion(Evidence):
    """An entry of the channel's log that put a release in use against the rules, for a stated reason."""

    number: int = Field(ge=1)
    """Of the entry."""
    release: Digest
    """What was put in use."""
    who: Text
    """Who forced it."""
    when: AwareDatetime
    """When."""
    why: Text
    """The stated reason."""
    in_use: bool
    """Whether it brought the very release that the challenger is compared with."""
    failing: tuple[str, ...]
    """Conditions that the gate had failed the release on; empty if it was only not staged, or if unknown."""

    @property
    def sentence(self) -> str:
        """Who forced what, when and why."""
        what = "The champion" if self.in_use else "An earlier release"
        failing = f" The gate had failed it on: {'; '.join(self.failing)}." if self.failing else ""
        return (
            f"{what}, {self.release[:12]}, was put in use by force (entry {self.number}) by {self.who} on "
            f"{self.when:%Y-%m-%d %H:%M} UTC, because: {self.why.rstrip('.')}.{failing}"
        )


class ConditionResult(Evidence):
    """One line of the gate table."""

    name: str
    """The condition, as the policy calls it."""
    metric: str
    """Keys into the evaluation, joined by dots."""
    value: float | Text | None
    """What was measured: a number, or the digest of a release; null if there is nothing usable."""
    bound: str
    """What the value must be, such as `>= 0.5`."""
    severity: Literal["block", "warn"]
    """What a failure does."""
    verdict: Literal["pass", "fail", "waived", "not applicable"]
    """`waived` is for comparisons with a champion, at a first release; `not applicable` says that there was
    nothing to measure. Only what was measured passes."""
    why: str
    """The policy's reason for the condition."""
    detail: str
    """What was measured and decided, as a sentence."""

    @model_validator(mode="after")
    def _passes_only_with_a_value(self) -> ConditionResult:
        if self.verdict == "pass" and self.value is None:
            raise ValueError(f"{self.name!r} passes although nothing was measured")
        return self


class Verdict(EvidenceFile):
    """The gate's answer. Reading it checks that the answer follows from its conditions."""

    step: ClassVar[str] = "gate"

    blessed: bool
    """Whether the challenger may be released: no blocking condition failed."""
    bootstrap: bool
    """Whether this is a first release, as a person asked for: comparisons with a champion were waived."""
    policy: str
    """Digest of the policy that decided; `onboarding` for the conditions of adding items."""
    release: Text | None
    """The release whose bundle was judged; null if the evaluation does not name it."""
    holdout: Text | None
    """Version of the holdout that it was judged on; null if it was judged without one (onboarding)."""
    champion: str | None
    """The release in production that the challenger was compared with; null if there is none."""
    compared_on: Text | None = None
    """Version of the users and items that both were compared on; null without a champion."""
    conditions: tuple[ConditionResult, ...] = Field(min_length=1)
    """In the policy's order, after the one on the champion; last the evidence's own, if it cannot be true."""
    forced: tuple[ForcedPromotion, ...] = ()
    """Production's latest promotions by force. They are reported, and decide nothing."""

    @model_validator(mode="after")
    def _follows_from_conditions(self) -> Verdict:
        if self.blessed != (not self.blockers):
            raise ValueError("'blessed' contradicts the conditions")
        if not self.bootstrap and any(result.verdict == "waived" for result in self.conditions):
            raise ValueError("a condition is waived although bootstrap was not asked for")
        if self.blessed and (self.release is None or (self.champion is None and self.compared)):
            raise ValueError("'blessed' names no bundle, or no champion although none was waived")
        return self

    @property
    def compared(self) -> bool:
        """Whether it was compared with a champion; at a first release that is waived."""
        return all(result.verdict != "waived" for result in self.conditions)

    @property
    def blockers(self) -> tuple[ConditionResult, ...]:
        """Failed conditions that stop the release."""
        return tuple(item for item in self.conditions if item.verdict == "fail" and item.severity == "block")

    @property
    def warnings(self) -> tuple[ConditionResult, ...]:
        """Failed conditions that do not stop the release."""
        return tuple(item for item in self.conditions if item.verdict == "fail" and item.severity == "warn")

    def summary(self) -> str:
        """The verdict in a sentence or two, for logs and the registry."""
        blockers = ", ".join(repr(result.name) for result in self.blockers)
        warnings = ", ".join(repr(result.name) for result in self.warnings)
        notes = f" Warnings: {warnings}." if warnings else ""
        for promotion in self.forced:
            if promotion.in_use:
                notes += f" The champion is in use by force ({promotion.who}, entry {promotion.number})."
        if self.blessed:
            judged = "as a first release, compared with none"
            if self.champion:
                judged = f"compared with release {self.champion[:12]}"
            return f"Passed the gate, {judged}: no blocking condition failed.{notes}"
        return f"Not promoted: {blockers} failed.{notes}"
