"""The report's words on what a challenger is compared with: the shared items, and how far the data moved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from validation.report import charts
from validation.report.lookup import NONE, number, numbers, percent, tree

COUNTS = {
    "interactions": "Interactions",
    "users": "Users",
    "items": "Items",
    "median_interactions": "Interactions of the median user",
}
Row = tuple[str, str, str, str]  # what, in production, now, how far it moved


def common_items(champion: Mapping[str, Any], holdout: Mapping[str, Any]) -> str:
    """Over which items and for which users champion and challenger are compared; "" where nothing is said."""
    keys = ("items", "items_challenger", "items_champion")
    items, ours, theirs = (number(champion.get(key)) for key in keys)
    users, every = number(champion.get("users")), number(holdout.get("users"))
    if items is None or users is None or not every:
        return ""
    if items == ours == theirs:
        same = f"the same {items:,.0f} items"
        return f"Champion and challenger offer {same}: all {users:,.0f} users are compared."
    known = ours is not None and theirs is not None
    offers = f" (the challenger offers {ours:,.0f}, the champion {theirs:,.0f})" if known else ""
    return (
        f"Champion and challenger have different catalogues{offers}. They are compared over the {items:,.0f} "
        f"items that both offer, on the {users:,.0f} of {every:,.0f} users ({percent(users / every)}) whose "
        "test item is among them. The champion's row is of these users; all other rows are of all users."
    )


def drift_rows(drift: Mapping[str, Any]) -> list[Row]:
    """Every figure of drift that there is, as text."""
    rows = [_count(name, tree(drift, key)) for key, name in COUNTS.items() if tree(drift, key)]
    if action := tree(drift, "action"):
        rows.append(_action(action))
    if newest := tree(drift, "newest"):
        rows.append(_newest(newest))
    if activity := tree(drift, "activity"):
        rows.append(("Spread of interactions over users", "see below", "see below", _distance(activity)))
    if popularity := tree(drift, "popularity"):
        rows += [_popularity(popularity), *_risen(tree(popularity, "risen"))]
    return rows


def activity_chart(drift: Mapping[str, Any]) -> str:
    """The picture of users' activity then and now; "" without both."""
    before, now = (numbers(tree(drift, "activity").get(key)) for key in ("before", "now"))
    return charts.activity(before, now) if before and now else ""


def _count(name: str, change: Mapping[str, Any]) -> Row:
    before, now, ratio = (number(change.get(key)) for key in ("before", "now", "ratio"))
    told = [NONE if one is None else f"{one:,g}" if one < 1e5 else f"{one:,.0f}" for one in (before, now)]
    return name, told[0], told[1], NONE if ratio is None else f"{ratio:.2f} times"


def _action(action: Mapping[str, Any]) -> Row:
    before, now, std, shift = (number(action.get(key)) for key in ("before", "now", "std", "shift"))
    spread = f" ± {std:.2f}" if std is not None else ""
    told = [NONE if one is None else f"{one:.3g}" for one in (before, now)]
    moved = NONE if shift is None else f"{shift:.2f} standard deviations"
    return "Mean action", told[0] + spread, told[1], moved


def _newest(newest: Mapping[str, Any]) -> Row:
    days = number(newest.get("days_back"))
    way = "older" if days and days > 0 else "newer"
    moved = NONE if days is None else f"{abs(days):,.1f} days {way}" if days else "not at all"
    told = [str(newest.get(key) or NONE)[:10] for key in ("before", "now")]
    return "Newest interaction", told[0], told[1], moved


def _popularity(popularity: Mapping[str, Any]) -> Row:
    items, *held = (number(popularity.get(key)) for key in ("items", "before", "now"))
    name = "Spread over items" if items is None else f"Share of production's {items:,.0f} most popular items"
    before, now = (NONE if one is None else percent(one, 1) for one in held)
    ratio = number(popularity.get("ratio"))
    times = f"{ratio:.2f} times, " if ratio is not None else ""
    return name, before, now, times + _distance(popularity)


def _risen(risen: Mapping[str, Any]) -> list[Row]:
    items, now, most = (number(risen.get(key)) for key in ("items", "now", "before_at_most"))
    if not items or now is None or most is None:
        return []
    name = f"Share of {items:,.0f} items that have become as popular as these"
    return [(name, f"at most {percent(most, 1)}", percent(now, 1), "")]


def _distance(spread: Mapping[str, Any]) -> str:
    distance = number(spread.get("distance"))
    return "not known" if distance is None else f"distance {distance:.3f}"


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
