"""The gate: evidence and policy in, a verdict with reasons out. It fails closed.

What is not there, not a number or not finite does not pass. Removing anything from the evidence can turn a
yes into a no, never a no into a yes: a champion condition is waived only where the evidence itself says that
no champion exists *and* the caller asked for `bootstrap`; nothing else in the evidence matters to a waiver.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from common.errors import UserError
from common.files import write_atomic
from validation.gate.forced_promotions import ForcedPromotion, read_forced
from validation.gate.policy import Condition, GatePolicy, PolicyError, load_policy, parse_policy

__all__ = [
    "ConditionResult",
    "GateError",
    "GatePolicy",
    "PolicyError",
    "Verdict",
    "evaluate_gate",
    "load_evaluation",
    "load_policy",
    "load_verdict",
    "parse_policy",
    "write_verdict",
]

CHAMPION = "compared with production"
CHAMPION_PATH = ("champion", "release")
RANKER_PATH = ("action", "ranker")
_ABSENT = object()


class GateError(UserError, ValueError):
    """Evidence or a verdict that cannot be read; never a pass."""


class ConditionResult(BaseModel):
    """One line of the gate table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    metric: str
    value: float | None = Field(allow_inf_nan=False)  # null where the evidence holds no usable number
    bound: str
    severity: Literal["block", "warn"]
    verdict: Literal["pass", "fail", "waived"]
    why: str
    detail: str  # a sentence


class Verdict(BaseModel):
    """Whether the challenger may be released, and every reason for it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    blessed: bool
    bootstrap: bool
    policy: str  # digest of the policy that decided
    champion: str | None  # the production release it was compared with
    conditions: tuple[ConditionResult, ...] = Field(min_length=1)
    forced: tuple[ForcedPromotion, ...] = ()  # what production took by force lately; told, never judged

    @model_validator(mode="after")
    def _follows_from_conditions(self) -> Verdict:
        if self.blessed != (not self.blockers):
            raise ValueError("'blessed' contradicts the conditions")
        if not self.bootstrap and any(one.verdict == "waived" for one in self.conditions):
            raise ValueError("a condition is waived although bootstrap was not asked for")
        return self

    @property
    def blockers(self) -> tuple[ConditionResult, ...]:
        """Failed conditions that stop the release."""
        return tuple(one for one in self.conditions if one.verdict == "fail" and one.severity == "block")

    @property
    def warnings(self) -> tuple[ConditionResult, ...]:
        """Failed conditions that do not stop the release."""
        return tuple(one for one in self.conditions if one.verdict == "fail" and one.severity == "warn")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, as written to verdict.json."""
        return self.model_dump(mode="json")

    def summary(self) -> str:
        """The verdict in a sentence or two, for logs and the top of the report."""
        told = f" Warnings: {_names(self.warnings)}." if self.warnings else ""
        for one in (one for one in self.forced if one.in_use):
            told += f" The champion is in use by force ({one.who}, entry {one.number})."
        if self.blessed:
            return f"Passed the gate: no blocking condition failed.{told}"
        return f"Not promoted: {_names(self.blockers)} failed.{told}"


def evaluate_gate(
    evaluation: Mapping[str, Any],
    policy: GatePolicy,
    bootstrap: bool = False,
    forced: Sequence[Mapping[str, Any]] = (),
) -> Verdict:
    """Judge the evidence of evaluation.json by a policy.

    Args:
        evaluation: the evidence; see `load_evaluation`.
        policy: the conditions; see `load_policy`.
        bootstrap: asked for explicitly by a person for the first release. Waives champion conditions where
            the evidence says `champion.release` is null; waives nothing where a champion exists.
        forced: promotions by force in production's history; the verdict tells them, they decide nothing.

    Raises:
        GateError: the evidence is not a mapping, or `forced` is not what it should be.
    """
    if not isinstance(evaluation, Mapping):
        raise GateError(f"The evaluation must be a mapping of metrics, not {type(evaluation).__name__}.")
    release = _look_up(evaluation, CHAMPION_PATH)
    waived = bootstrap is True and release is None
    results = [_judge_champion(release, waived)]
    results += [_judge(condition, evaluation, waived) for condition in policy.conditions]
    blocked = any(one.verdict == "fail" and one.severity == "block" for one in results)
    return Verdict(
        blessed=not blocked,
        bootstrap=bootstrap is True,
        policy=policy.digest,
        champion=release if _is_release(release) else None,
        conditions=tuple(results),
        forced=_forced(forced),
    )


def load_evaluation(path: Path | str) -> dict[str, Any]:
    """Read evaluation.json.

    Raises:
        GateError: the file is missing, is not JSON, or is not an object.
    """
    return _read_object(path, "evaluation", "run the evaluate step again")


def load_verdict(path: Path | str) -> Verdict:
    """Read verdict.json and check that its answer follows from its conditions.

    Raises:
        GateError: the file is missing, incomplete or contradicts itself.
    """
    raw = _read_object(path, "verdict", "run the gate step again")
    try:
        return Verdict.model_validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "verdict"
        raise GateError(
            f"The verdict {path} cannot be trusted: {place}: {first['msg']}; run the gate step again."
        ) from error


def write_verdict(verdict: Verdict, path: Path | str) -> None:
    """Write verdict.json whole or not at all."""
    write_atomic(Path(path), json.dumps(verdict.to_json(), indent=2, ensure_ascii=False) + "\n")


def _judge_champion(release: Any, waived: bool) -> ConditionResult:
    """What no policy can leave out: production was compared with, or it is known that there is none."""
    if _is_release(release):
        verdict, detail = "pass", f"The champion is release {release[:12]}."
    elif waived:
        verdict, detail = "waived", "There is no champion yet, and bootstrap was asked for."
    elif release is None:
        verdict, detail = "fail", "There is no champion; pass bootstrap for the first release."
    else:
        verdict, detail = (
            "fail",
            "The evaluation does not say which release is the champion; run evaluate again.",
        )
    return ConditionResult.model_validate({
        "name": CHAMPION,
        "metric": ".".join(CHAMPION_PATH),
        "value": None,
        "bound": "a release",
        "severity": "block",
        "verdict": verdict,
        "why": "A challenger must face what production serves; only a first release has nothing to face.",
        "detail": detail,
    })  # fmt: skip


def _judge(condition: Condition, evaluation: Mapping[str, Any], waived: bool) -> ConditionResult:
    found = _look_up(evaluation, condition.metric)
    value = _finite(found)
    metric, bound = condition.metric_name, condition.bound_text
    if condition.when == "champion" and waived:
        verdict, detail, value = "waived", "There is no champion yet, and bootstrap was asked for.", None
    elif condition.when == "ranker" and _look_up(evaluation, RANKER_PATH) is False:
        verdict, detail, value = "pass", "The release has no ranker by action.", None
    elif value is None:
        verdict, detail = "fail", f"{metric} {_flaw(found)}; what cannot be judged does not pass."
    elif condition.holds(value):
        verdict, detail = "pass", f"{metric} is {value:.4g}, as required ({bound})."
    else:
        verdict, detail = "fail", f"{metric} is {value:.4g}, but must be {bound}."
    return ConditionResult.model_validate({
        "name": condition.name,
        "metric": metric,
        "value": value,
        "bound": bound,
        "severity": condition.severity,
        "verdict": verdict,
        "why": condition.why,
        "detail": detail,
    })  # fmt: skip


def _forced(entries: Sequence[Mapping[str, Any]]) -> tuple[ForcedPromotion, ...]:
    try:
        return read_forced(entries)
    except (ValidationError, TypeError) as error:
        raise GateError(
            f"The forced promotions of production cannot be read ({' '.join(str(error).split())[:200]}); "
            "resolve the champion again."
        ) from error


def _look_up(evidence: Any, path: tuple[str, ...]) -> Any:
    """The value at a path of keys, or _ABSENT."""
    for key in path:
        if not isinstance(evidence, Mapping) or key not in evidence:
            return _ABSENT
        evidence = evidence[key]
    return evidence


def _finite(found: Any) -> float | None:
    """The value as a float where it is a finite JSON number; true and false are no numbers."""
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    try:
        value = float(found)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None


def _flaw(found: Any) -> str:
    if found is _ABSENT:
        return "is missing from the evaluation"
    if found is None:
        return "is null"
    if isinstance(found, int | float) and not isinstance(found, bool):
        return "is not a finite number"
    return f"is a {type(found).__name__}, not a number"


def _is_release(release: Any) -> bool:
    return isinstance(release, str) and bool(release.strip())


def _names(conditions: tuple[ConditionResult, ...]) -> str:
    return ", ".join(repr(one.name) for one in conditions)


def _read_object(path: Path | str, what: str, remedy: str) -> dict[str, Any]:
    try:
        raw = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise GateError(f"The {what} {path} cannot be read ({error}); {remedy}.") from error
    if not isinstance(raw, dict):
        raise GateError(f"The {what} {path} must hold a JSON object, not {type(raw).__name__}; {remedy}.")
    return raw
