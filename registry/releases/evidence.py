"""What a release's evidence says: the gate's answer (where unclear: no) and the headline metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from registry.errors import ReleaseError
from registry.releases.manifest import Gate

VERDICT = "verdict.json"
EVALUATION = "evaluation.json"


def read_gate(evidence: Mapping[str, Path], force: str | None) -> Gate:
    """The gate's answer from the evidence's verdict.json.

    Args:
        evidence: name -> file.
        force: the reason to release against the verdict, or None.

    Raises:
        ReleaseError: the verdict is missing, unreadable or not blessed, and no reason to force is given.
    """
    gate = _gate(evidence)
    if gate.blessed:
        return gate
    if force is None or not force.strip():
        raise ReleaseError(
            f"The gate did not bless this release ({'; '.join(gate.failing)}): it is not written. "
            "Fix what fails, or force it with a reason."
        )
    return gate.model_copy(update={"forced": force.strip()})


def read_metrics(evidence: Mapping[str, Path]) -> dict[str, float]:
    """The challenger's mean metrics from the evidence's evaluation.json; none where there is no such file."""
    if EVALUATION not in evidence:
        return {}
    try:
        challenger = _read_object(evidence[EVALUATION])["models"]["challenger"]
        return {name: float(value["mean"]) for name, value in challenger.items()}
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        raise ReleaseError(
            f"{evidence[EVALUATION]} has no metrics of the form models.challenger.<metric>.mean ({error!r})."
        ) from error


def _gate(evidence: Mapping[str, Path]) -> Gate:
    if VERDICT not in evidence:
        return Gate(blessed=False, bootstrap=False, failing=(f"there is no {VERDICT}",))
    try:
        verdict = _read_object(evidence[VERDICT])
        failing = tuple(
            str(one["name"])
            for one in verdict["conditions"]
            if one["severity"] != "warn" and one["verdict"] not in ("pass", "waived")
        )
    except (KeyError, TypeError, ValueError, OSError):
        return Gate(blessed=False, bootstrap=False, failing=(f"{VERDICT} is unreadable",))
    # A yes must be spelled out and follow from its conditions; no conditions decide nothing.
    blessed = verdict.get("blessed") is True and not failing and bool(verdict["conditions"])
    if not blessed and not failing:
        failing = (f"{VERDICT} does not say blessed",)
    return Gate(blessed=blessed, bootstrap=verdict.get("bootstrap") is True, failing=failing)


def _read_object(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_bytes())
    if not isinstance(value, dict):
        raise TypeError(f"{path} is not a JSON object")
    return value
