"""The gate: an evaluation and a policy in, a verdict with reasons out. It fails closed.

Whatever is missing, not a number or not finite does not pass. Removing anything from the evaluation can turn
a yes into a no, never a no into a yes: a comparison with the champion is waived only if the evaluation itself
says that there is no champion *and* the caller asked for `bootstrap`, and a condition is not applicable only
if the evaluation says why there was nothing to measure. Evidence that cannot be true (a share of 100, drift
against another champion) blocks any release.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from pydantic import TypeAdapter

from car_model.evidence.base import EvidenceError
from car_model.evidence.evaluation import Part
from car_model.evidence.verdict import ConditionResult, ForcedPromotion, Verdict
from validation.gate.contradictions import contradictions
from validation.gate.policy import Condition, GatePolicy

CHAMPION = "compared with production"
EVIDENCE = "the evidence can be true"
JUDGED = "says what was judged"
NO_CHAMPION = "There is no champion yet, and bootstrap was asked for."
_MISSING = object()


def evaluate_gate(
    evaluation: Mapping[str, Any],
    policy: GatePolicy,
    bootstrap: bool = False,
    forced: Sequence[Mapping[str, Any]] = (),
) -> Verdict:
    """Judge an evaluation by a policy.

    Args:
        evaluation: the JSON object of an `Evaluation` (`Evaluation.read_object`). It is not validated as a
            whole, so that one missing number fails the conditions on it, and no others. What cannot be true
            fails a condition of its own, which no policy can leave out.
        policy: the conditions.
        bootstrap: a person asked for a first release. Waives comparisons with the champion if the evaluation
            says that `champion.release` is null; waives nothing if there is a champion.
        forced: promotions by force in production's history; the verdict reports them, they decide nothing.

    Raises EvidenceError if the evaluation is not a mapping, or `forced` is not what it should be.
    """
    if not isinstance(evaluation, Mapping):
        raise EvidenceError(f"The evaluation must be a mapping of metrics, not {type(evaluation).__name__}.")
    release = _look_up(evaluation, ("champion", "release"))
    waived = bootstrap is True and release is None
    results = [_judge_champion(release, waived)]
    results += [_judge(condition, evaluation, waived) for condition in policy.conditions]
    if phrases := contradictions(evaluation):
        results.append(_impossible(phrases))
    paths = ("release",), ("holdout", "digest"), ("champion", "holdout")
    names = (_look_up(evaluation, path) for path in paths)
    bundle, holdout, compared_on = (name if _is_digest(name) else None for name in names)
    results.append(_judge_names(bundle, holdout))
    try:
        promotions = TypeAdapter(tuple[ForcedPromotion, ...]).validate_json(json.dumps(forced))
    except (TypeError, ValueError) as error:
        raise EvidenceError(
            f"The forced promotions of production cannot be read ({' '.join(str(error).split())[:200]}); "
            "resolve the champion again."
        ) from error
    return Verdict(
        blessed=not any(result.verdict == "fail" and result.severity == "block" for result in results),
        bootstrap=waived,
        policy=policy.digest,
        release=bundle,
        holdout=holdout,
        champion=release if _is_digest(release) else None,
        compared_on=compared_on,
        conditions=tuple(results),
        forced=promotions,
    )


def _judge_champion(release: Any, waived: bool) -> ConditionResult:
    """No policy can leave this out: a champion was compared with, or it is known that there is none."""
    verdict: Literal["pass", "fail", "waived"] = "fail"
    if _is_digest(release):
        verdict, detail = "pass", f"The champion is release {release[:12]}."
    elif waived:
        verdict, detail = "waived", NO_CHAMPION
    elif release is None:
        detail = "There is no champion; pass bootstrap for the first release."
    else:
        detail = "The evaluation does not say which release is the champion; run evaluate again."
    return ConditionResult(
        name=CHAMPION,
        metric="champion.release",
        value=release if verdict == "pass" else None,
        bound="a release",
        severity="block",
        verdict=verdict,
        why="A challenger is compared with what production serves; only a first release has no champion.",
        detail=detail,
    )


def _judge_names(bundle: str | None, holdout: str | None) -> ConditionResult:
    """No policy can leave this out: a verdict that names no bundle could be put beside any."""
    if bundle and holdout:
        detail = f"The bundle of release {bundle[:12]} on holdout {holdout[:12]}."
    else:
        missing = "holdout" if bundle else "bundle"
        detail = f"The evaluation does not name its {missing}; run evaluate again."
    return ConditionResult(
        name=JUDGED,
        metric="release",
        value=bundle if holdout else None,
        bound="a bundle and a holdout",
        severity="block",
        verdict="pass" if bundle and holdout else "fail",
        why="A verdict holds for one bundle and one holdout, and for no other.",
        detail=detail,
    )


def _impossible(phrases: list[str]) -> ConditionResult:
    rest = f"; and {len(phrases) - 3} more" if len(phrases) > 3 else ""
    return ConditionResult(
        name=EVIDENCE,
        metric="evaluation",
        value=None,
        bound="no contradiction",
        severity="block",
        verdict="fail",
        why="Numbers that cannot be true say nothing about the challenger.",
        detail=f"The evaluation cannot be true: {'; '.join(phrases[:3])}{rest}. Run evaluate again.",
    )


def _judge(condition: Condition, evaluation: Mapping[str, Any], waived: bool) -> ConditionResult:
    """Hold one number of the evaluation to its bound."""
    measured = _look_up(evaluation, condition.metric)
    value = _finite(measured)
    metric, bound = condition.metric_name, condition.bound_text
    verdict: Literal["pass", "fail", "waived", "not applicable"] = "fail"
    if condition.when == "champion" and waived:
        verdict, detail, value = "waived", NO_CHAMPION, None
    elif reason := _not_measured(evaluation, metric):
        verdict, detail, value = "not applicable", f"There was nothing to measure: {reason}", None
        if condition.required:
            verdict, detail = "fail", f"{detail.rstrip('.')}, but the policy requires it."
    elif value is None:
        if measured is _MISSING:
            flaw = "is missing from the evaluation"
        elif measured is None:
            flaw = "is null"
        elif isinstance(measured, int | float) and not isinstance(measured, bool):
            flaw = "is not a finite number"
        else:
            flaw = f"is a {type(measured).__name__}, not a number"
        detail = f"{metric} {flaw}; a condition without a number fails."
    elif condition.holds(value):
        verdict, detail = "pass", f"{metric} is {value:.4g}, as required ({bound})."
    else:
        detail = f"{metric} is {value:.4g}, but must be {bound}."
    return ConditionResult(
        name=condition.name,
        metric=metric,
        value=value,
        bound=bound,
        severity=condition.severity,
        verdict=verdict,
        why=condition.why,
        detail=detail,
    )


def _not_measured(evaluation: Mapping[str, Any], metric: str) -> str:
    """Why the evaluation says that there was nothing to measure for a metric; "" if it does not say so."""
    reasons = _look_up(evaluation, ("not_measured",))
    for part in get_args(Part):
        if f"{metric}.".startswith(f"{part}.") and isinstance(reasons, Mapping):
            reason = reasons.get(part)
            if isinstance(reason, str) and reason.strip():
                return reason
    return ""


def _look_up(evaluation: Any, path: tuple[str, ...]) -> Any:
    """The value at a path of keys, or _MISSING."""
    for key in path:
        if not isinstance(evaluation, Mapping) or key not in evaluation:
            return _MISSING
        evaluation = evaluation[key]
    return evaluation


def _finite(value: Any) -> float | None:
    """The value as a float if it is a finite JSON number; true and false are not numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
