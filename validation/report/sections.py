"""The report's sections: typed evidence in, words and rows for the template out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from car_model.evidence.drift import CountChange, DataDrift
from car_model.evidence.evaluation import (
    ActionRankerEvidence,
    ChampionComparison,
    ColdItems,
    Difference,
    Evaluation,
    HoldoutSummary,
    Interval,
    Metric,
    Slice,
)
from car_model.evidence.training import TrainingCurves
from validation.report import charts

NONE = "–"  # noqa: RUF001 (tables show an en dash for a missing value)
METRICS: tuple[Metric, ...] = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")
MAIN: Metric = "ndcg@10"
COUNTS = {
    "interactions": "Interactions",
    "users": "Users",
    "items": "Items",
    "median_interactions": "Median interactions per user",
}
Row = tuple[str, str, str, str]  # what, before, after, how far it moved


def metric_title(metric: str) -> str:
    """`ndcg@10` as people write it."""
    kind, _, depth = metric.partition("@")
    return f"{ {'recall': 'Recall', 'ndcg': 'NDCG'}.get(kind, kind) }@{depth}"


def percent(share: float, digits: int = 0) -> str:
    """A share as people write it."""
    return f"{100 * share:.{digits}f} %"


def model_order(models: Mapping[str, Any]) -> list[str]:
    """Models in the order people compare them; unknown ones last."""
    order = list(charts.NAMES)
    return sorted(models, key=lambda name: order.index(name) if name in order else len(order))


def headline(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    """The few numbers that everyone asks for first."""
    challenger = evaluation.models.get("challenger", {}).get(MAIN)
    if challenger and challenger.mean is not None:
        yield f"{metric_title(MAIN)}, CAR", f"{challenger.mean:.4f}"
    for model in model_order(evaluation.paired):
        difference = evaluation.paired[model].get(MAIN)
        name = f"{metric_title(MAIN)} compared with {charts.name_of(model)}"
        if model == "champion" and evaluation.champion and evaluation.champion.same:
            yield name, evaluation.champion.same
        elif difference and difference.relative is not None:
            yield name, f"{100 * difference.relative:+.1f} %"
    if evaluation.holdout:
        yield "Users in the holdout", f"{evaluation.holdout.users:,}"
    if evaluation.latency:
        yield "99 % of answers within", f"{evaluation.latency.p99_ms:.3g} ms"


class ModelRow(NamedTuple):
    """A row of the models table."""

    name: str
    challenger: bool
    cells: list[tuple[str, str, bool]]  # per metric: mean, interval, whether it is the best


def cold_summary(cold: ColdItems | None) -> str:
    """How cold items are ranked among each other, in sentences; "" without evidence."""
    if cold is None:
        return ""
    ahead, order = cold.ahead, ""
    if ahead.mean is not None and ahead.low is not None and ahead.high is not None:
        order = (
            f" Among each other, {percent(ahead.mean)} of the cold items come after the test item "
            f"({percent(ahead.low)} to {percent(ahead.high)}; 50 % by chance)."
        )
    users = f"{cold.users:,} users have a test item that was never trained on"
    return f"{users}, one of {cold.items:,} on offer.{order}"


def models_table(models: Mapping[str, Mapping[Metric, Interval]]) -> list[ModelRow]:
    """Rows of the models table, in the order in which people compare."""
    best: dict[str, float] = {}
    for scores in models.values():
        for metric, interval in scores.items():
            best[metric] = max(best.get(metric, 0.0), interval.mean or 0.0)
    rows = []
    for model in model_order(models):
        cells = []
        for metric in METRICS:
            score = models[model].get(metric)
            if score is None or score.mean is None:
                cells.append((NONE, "", False))
                continue
            complete = score.low is not None and score.high is not None
            bounds = f"{score.low:.4f} to {score.high:.4f}" if complete else ""
            cells.append((f"{score.mean:.4f}", bounds, score.mean == best[metric]))
        rows.append(ModelRow(charts.name_of(model), model == "challenger", cells))
    return rows


def comparison(champion: ChampionComparison | None, holdout: HoldoutSummary | None) -> str:
    """Over which items and for which users champion and challenger are compared; "" without a champion."""
    if champion is None or holdout is None or champion.items is None or champion.users is None:
        return ""
    if champion.items == champion.items_challenger == champion.items_champion:
        return (
            f"Champion and challenger offer the same {champion.items:,} items: all {champion.users:,} users "
            "are compared."
        )
    offers = ""
    if champion.items_challenger is not None and champion.items_champion is not None:
        ours, theirs = champion.items_challenger, champion.items_champion
        offers = f" (the challenger offers {ours:,}, the champion {theirs:,})"
    return (
        f"Champion and challenger have different catalogues{offers}. They are compared over the "
        f"{champion.items:,} items that both offer, on the {champion.users:,} of {holdout.users:,} users "
        f"({percent(champion.users / max(holdout.users, 1))}) whose test item is among them: another holdout "
        f"than the one above, {(champion.holdout or 'unknown')[:12]}."
    )


def levers(similarity: Mapping[str, float]) -> str:
    """How text similarity joins the scores of the trained models, in a sentence; "" if nothing is known."""
    weights = [f"{charts.name_of(name)} with weight {similarity[name]:g}" for name in model_order(similarity)]
    if not weights:
        return ""
    return f"Text similarity joins the scores, weights chosen on validation alike: {', '.join(weights)}."


def differences(
    paired: Mapping[str, Mapping[Metric, Difference]], metrics: Sequence[Metric]
) -> list[charts.ForestRow]:
    """CAR minus each other model, for each of the metrics that is known."""
    rows = []
    for model in model_order(paired):
        for metric in metrics:
            value = paired[model].get(metric)
            if value is None or value.difference is None or value.low is None or value.high is None:
                continue
            relative = f" ({100 * value.relative:+.1f} %)" if value.relative is not None else ""
            rows.append(
                charts.ForestRow(
                    label=f"against {charts.name_of(model)}",
                    metric=metric_title(metric),
                    value=value.difference,
                    low=value.low,
                    high=value.high,
                    note=f"{value.difference:+.4f}{relative}",
                )
            )
    return rows


def slices_chart(slices: Mapping[str, Slice]) -> str:
    """NDCG@10 of each model on each part of the holdout; "" without slices."""
    rows = {}
    for name, part in slices.items():
        values = {model: part.models[model].get(MAIN) for model in model_order(part.models)}
        if bars := {model: value for model, value in values.items() if value is not None}:
            rows[f"{name}: {part.users:,} users"] = bars
    return charts.slices(rows, metric_title(MAIN)) if rows else ""


def curves_chart(training: Mapping[str, TrainingCurves]) -> str:
    """Losses and validation NDCG@10 of each model that was trained; "" without any."""
    trained = {model: training[model] for model in model_order(training) if training[model].epoch}
    return charts.curves(trained) if trained else ""


def action_summary(action: ActionRankerEvidence | None) -> str:
    """What the action ranker predicts and how well, in sentences; "" without evidence."""
    if action is None:
        return ""
    figures = []
    entropy = action.normalised_entropy
    if entropy.mean is not None and entropy.low is not None and entropy.high is not None:
        figures.append(
            f"normalised entropy {entropy.mean:.3f} ({entropy.low:.3f} to {entropy.high:.3f}; below 1 is "
            "better than predicting the share of likes)"
        )
    values = {"log loss": action.log_loss, "AUC": action.auc, "calibration error": action.ece}
    figures += [f"{name} {value:.3f}" for name, value in values.items() if value is not None]
    measured = f" On test actions: {', '.join(figures)}." if figures else ""
    return (
        f"An action of {action.liked:g} or more counts as a like.{measured} With “rank_by: action”, the "
        f"{action.candidates} most relevant items are ranked by relevance plus {action.weight:g} times "
        "log P(like)."
    )


def action_rows(action: ActionRankerEvidence | None) -> list[Row]:
    """NDCG@10 of liked and of other test items, by relevance and by action, and the time of an answer."""
    if action is None:
        return []
    rows: list[Row] = []
    parts = (("who liked their test item", action.ndcg.liked), ("who did not like it", action.ndcg.disliked))
    for name, part in parts:
        relevance, by_action = part.relevance.get(MAIN), part.action.get(MAIN)
        if not (relevance and by_action) or relevance.mean is None or by_action.mean is None:
            continue
        change, text = part.paired.get(MAIN), NONE
        if change and change.relative is not None:
            text = f"{'+' if change.relative > 0 else ''}{percent(change.relative, 1)}"
            if change.relative_low is not None and change.relative_high is not None:
                text += f" ({percent(change.relative_low, 1)} to {percent(change.relative_high, 1)})"
        label = f"{part.users:,} users {name}"
        rows.append((label, f"{relevance.mean:.4f}", f"{by_action.mean:.4f}", text))
    before, after = action.latency.relevance_p50_ms, action.latency.action_p50_ms
    if before and after:
        times = (f"{before:.3g} ms", f"{after:.3g} ms", f"{after / before:.2g} times")
        rows.append(("Median time of an answer", *times))
    return rows


def drift_rows(drift: DataDrift) -> list[Row]:
    """Every figure of drift that is known, as text."""
    rows: list[Row] = []
    for field, name in COUNTS.items():
        change: CountChange | None = getattr(drift, field)
        if change:
            before, now = (f"{n:,g}" if n < 1e5 else f"{n:,.0f}" for n in (change.before, change.now))
            rows.append((name, before, now, f"{change.ratio:.2f} times"))
    if action := drift.action:
        before, now = (NONE if mean is None else f"{mean:.3g}" for mean in (action.before, action.now))
        spread = f" ± {action.std:.2f}" if action.std is not None else ""
        moved = NONE if action.shift is None else f"{action.shift:.2f} standard deviations"
        rows.append(("Mean action", before + spread, now, moved))
    if retired := drift.retired:
        share = f"{percent(retired.share, 1)} retired" if retired.items else "none retired"
        before, now = (f"{count:,}" for count in (retired.before, retired.before - retired.items))
        rows.append(("Of the items that production offers, still offered", before, now, share))
    if newest := drift.newest:
        before, now = (NONE if when is None else f"{when:%Y-%m-%d}" for when in (newest.before, newest.now))
        days, moved = newest.days_back, NONE
        if days is not None:
            direction = "older" if days > 0 else "newer"
            moved = f"{abs(days):,.1f} days {direction}" if days else "not at all"
        rows.append(("Newest interaction", before, now, moved))
    if drift.activity:
        distance = f"distance {drift.activity.distance:.3f}"
        rows.append(("Spread of interactions over users", "see below", "see below", distance))
    if popularity := drift.popularity:
        ratio = f"{popularity.ratio:.2f} times, " if popularity.ratio is not None else ""
        rows.append(
            (
                f"Share of production's {popularity.items:,} most popular items",
                percent(popularity.before, 1),
                percent(popularity.now, 1),
                f"{ratio}distance {popularity.distance:.3f}",
            )
        )
        if popularity.risen.items:
            risen = popularity.risen
            name = f"Share of {risen.items:,} items that have become as popular as these"
            rows.append((name, f"at most {percent(risen.before_at_most, 1)}", percent(risen.now, 1), ""))
    return rows


def funnel(dataset: Mapping[str, Any]) -> list[tuple[str, str, list[tuple[str, int]]]]:
    """For each table of ingest's report: its name, how many rows were kept, and why rows were dropped."""
    tables = []
    for table in ("interactions", "items") if dataset else ():
        kept = f"{dataset['kept'][table]:,} of {dataset['read'][table]:,} rows kept"
        reasons = [(reason, rows) for reason, rows in dataset["dropped"][table].items() if rows]
        tables.append((table, kept, reasons))
    return tables
