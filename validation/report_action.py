"""The report's words on ranking by action: what the ranker knows, and what ranking by it finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from validation.evidence_values import NONE, number, percent, tree

PARTS = {"liked": "who liked their test item", "disliked": "who did not"}
MAIN = "ndcg@10"


def action_lead(action: Mapping[str, Any]) -> str:
    """What the ranker predicts and how well, in sentences; "" where nothing is told of actions."""
    if not action.get("ranker"):
        why = action.get("why")
        return f"There is no ranker by action: {why}" if why else ""
    liked, entropy = number(action.get("liked")), tree(action, "normalised_entropy")
    told = [f"An action of {liked:g} or more counts as liked." if liked is not None else ""]
    names = {"log_loss": "log loss", "auc": "AUC", "ece": "calibration error"}
    values = {name: number(action.get(key)) for key, name in names.items()}
    figures = [f"{name} {value:.3f}" for name, value in values.items() if value is not None]
    mean, low, high = (number(entropy.get(key)) for key in ("mean", "low", "high"))
    if mean is not None and low is not None and high is not None:
        figures.insert(
            0, f"normalised entropy {mean:.3f} ({low:.3f} to {high:.3f}; below 1 beats the share of likes)"
        )
    told.append(f"On test actions: {', '.join(figures)}." if figures else "")
    weight, candidates = number(action.get("weight")), number(action.get("candidates"))
    if weight is not None and candidates is not None:
        told.append(
            f"“rank_by: action” ranks the {candidates:g} most relevant items by relevance plus "
            f"{weight:g} times log P(liked)."
        )
    return " ".join(filter(None, told))


def action_rows(action: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Users by whether they liked their test item: NDCG@10 by relevance and by action, and the change."""
    rows = []
    for part, name in PARTS.items():
        found = tree(action, "ndcg", part)
        before, after = (number(tree(found, way, MAIN).get("mean")) for way in ("relevance", "action"))
        users = number(found.get("users"))
        if before is None or after is None or users is None:
            continue
        rows.append((f"{users:,.0f} users {name}", f"{before:.4f}", f"{after:.4f}", _change(found)))
    spent = tree(action, "latency")
    before, after = (number(spent.get(f"{way}_p50_ms")) for way in ("relevance", "action"))
    if before and after:
        change = f"{after / before:.2g} times"
        rows.append(("Median time of an answer", f"{before:.3g} ms", f"{after:.3g} ms", change))
    return rows


def _change(found: Mapping[str, Any]) -> str:
    paired = tree(found, "paired", MAIN)
    change, low, high = (number(paired.get(key)) for key in ("relative", "relative_low", "relative_high"))
    if change is None:
        return NONE
    told = f"{'+' if change > 0 else ''}{percent(change, 1)}"
    return told if low is None or high is None else f"{told} ({percent(low, 1)} to {percent(high, 1)})"
