"""The gate's report for people: one self-contained HTML file with the verdict on top and the evidence below.

It must render whatever it is given: a blocked release is exactly where evidence is missing or malformed.
So every lookup here is tolerant, unlike the gate's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from car_model.evidence.verdict import ForcedPromotion, read_forced
from common.files import write_atomic
from validation.report import charts
from validation.report.html import render_page
from validation.report.lookup import NONE, entries, mappings, number, numbers, tree, trees
from validation.report.sections import action_lead, action_rows, activity_chart, common_items, drift_rows

METRICS = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")
TITLES = {"recall": "Recall", "ndcg": "NDCG"}
MAIN = "ndcg@10"
SAMPLES, HISTORY, ANSWERS = 6, 10, 5


@dataclass(frozen=True)
class ReportInputs:
    """What the report shows; everything but the evaluation and the verdict may be absent."""

    evaluation: Mapping[str, Any]  # evaluation.json
    verdict: Mapping[str, Any]  # verdict.json
    dataset: Mapping[str, Any] = field(default_factory=dict)  # ingest's report.json
    bundle: Mapping[str, Any] = field(default_factory=dict)  # bundle.json
    samples: Sequence[Mapping[str, Any]] = ()  # {"history": [titles], "answer": answer}
    run: Mapping[str, str] = field(default_factory=dict)  # further facts by name, such as the git commit


def render_report(inputs: ReportInputs, output: Path) -> None:
    """Write the report, whole or not at all."""
    evaluation = inputs.evaluation
    page = render_page(
        "report.html",
        verdict=inputs.verdict,
        conditions=mappings(inputs.verdict.get("conditions")),
        headline=list(_headline(evaluation)),
        metrics=[_title(metric) for metric in METRICS],
        models=_models(evaluation),
        holdout=tree(evaluation, "holdout"),
        champion=tree(evaluation, "champion"),
        forced=_forced(inputs.verdict),
        common=common_items(tree(evaluation, "champion"), tree(evaluation, "holdout")),
        drift=drift_rows(tree(evaluation, "drift")),
        activity=activity_chart(tree(evaluation, "drift")),
        paired=_paired_chart(evaluation),
        differences=_differences(evaluation, METRICS),
        slices=_slices_chart(evaluation),
        slice_users=[(name, one.get("users")) for name, one in trees(evaluation, "slices")],
        action=action_lead(tree(evaluation, "action")),
        action_rows=action_rows(tree(evaluation, "action")),
        curves=_curves_chart(evaluation),
        codebook=tree(evaluation, "codebook"),
        churn=_churn(tree(evaluation, "codebook", "churn")),
        levels=_levels(tree(evaluation, "codebook")),
        usage=_usage_chart(tree(evaluation, "codebook")),
        samples=[_sample(one) for one in (inputs.samples or mappings(evaluation.get("samples")))[:SAMPLES]],
        dataset=inputs.dataset,
        funnel=list(_funnel(inputs.dataset)),
        versions=[*_flat(inputs.bundle), *_flat(inputs.run)],
    )
    write_atomic(Path(output), page)


def _forced(verdict: Mapping[str, Any]) -> list[ForcedPromotion]:
    """Promotions by force that the verdict tells, the one in use first; none of what cannot be read."""
    try:
        told = read_forced(mappings(verdict.get("forced")))
    except ValidationError:
        return []
    return sorted(told, key=lambda one: not one.in_use)


def _headline(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The few numbers that everyone asks for first."""
    mean = number(tree(evaluation, "models", "challenger", MAIN).get("mean"))
    if mean is not None:
        yield f"{_title(MAIN)}, CAR", f"{mean:.4f}"
    for rival, _ in _ordered(tree(evaluation, "paired")):
        relative = number(tree(evaluation, "paired", rival, MAIN).get("relative"))
        if relative is not None:
            yield f"{_title(MAIN)} against {charts.name_of(rival)}", f"{relative:+.1%}".replace("%", " %")
    users = number(tree(evaluation, "holdout").get("users"))
    if users is not None:
        yield "Users in the holdout", f"{users:,.0f}"
    slowest = number(tree(evaluation, "latency").get("p99_ms"))
    if slowest is not None:
        yield "99 % of answers within", f"{slowest:.3g} ms"


def _models(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of the models table; a cell is (mean, interval, whether it is the best)."""
    rows = _ordered(tree(evaluation, "models"))
    means = {metric: [number(tree(row, metric).get("mean")) for _, row in rows] for metric in METRICS}
    best = {
        metric: max((one for one in found if one is not None), default=None)
        for metric, found in means.items()
    }
    return [
        {
            "name": charts.name_of(model),
            "mine": model == "challenger",
            "cells": [_cell(tree(row, metric), best[metric]) for metric in METRICS],
        }
        for model, row in rows
    ]


def _cell(scores: Mapping[str, Any], best: float | None) -> tuple[str, str, bool]:
    mean, low, high = (number(scores.get(key)) for key in ("mean", "low", "high"))
    if mean is None:
        return NONE, "", False
    interval = f"{low:.4f} to {high:.4f}" if low is not None and high is not None else ""
    return f"{mean:.4f}", interval, mean == best


def _differences(evaluation: Mapping[str, Any], metrics: Sequence[str]) -> list[charts.Difference]:
    found = []
    for rival, row in _ordered(tree(evaluation, "paired")):
        for metric in metrics:
            one = tree(row, metric)
            value, low, high, relative = (
                number(one.get(key)) for key in ("difference", "low", "high", "relative")
            )
            if value is not None and low is not None and high is not None:
                share = f" ({relative:+.1%})".replace("%", " %") if relative is not None else ""
                note = f"{value:+.4f}{share}"
                found.append(
                    charts.Difference(
                        f"against {charts.name_of(rival)}", _title(metric), value, low, high, note
                    )
                )
    return found


def _paired_chart(evaluation: Mapping[str, Any]) -> str:
    found = _differences(evaluation, (MAIN, "recall@10"))
    return charts.forest(found) if found else ""


def _slices_chart(evaluation: Mapping[str, Any]) -> str:
    rows = {}
    for name, one in trees(evaluation, "slices"):
        values = {model: number(tree(row).get(MAIN)) for model, row in _ordered(tree(one, "models"))}
        if shown := {model: value for model, value in values.items() if value is not None}:
            users = number(one.get("users"))
            rows[name if users is None else f"{name}: {users:,.0f} users"] = shown
    return charts.slices(rows, _title(MAIN)) if rows else ""


def _curves_chart(evaluation: Mapping[str, Any]) -> str:
    """Curves stand below `training.<model>` itself or below its `curves`."""
    training = {}
    for model, row in _ordered(tree(evaluation, "training")):
        series = {name: numbers(values) for name, values in (tree(row, "curves") or row).items()}
        if any(series.values()):
            training[model] = series
    return charts.curves(training) if training else ""


def _churn(churn: Mapping[str, Any]) -> dict[str, float]:
    """Shared items and the share of them with another SID; empty unless both are known."""
    found = {key: value for key in ("items", "whole") if (value := number(churn.get(key))) is not None}
    return found if len(found) == 2 else {}


def _usage_chart(codebook: Mapping[str, Any]) -> str:
    counts = [numbers(level) for level in entries(codebook.get("usage_counts"))]
    return charts.code_usage(counts) if counts and all(counts) else ""


def _levels(codebook: Mapping[str, Any]) -> list[dict[str, str]]:
    """Codebook health level by level, as text."""
    columns = {name: entries(codebook.get(name)) for name in ("usage", "perplexity", "residual")}
    count = max((len(values) for values in columns.values()), default=0)
    styles = {"usage": "{:.0%}", "perplexity": "{:.1f}", "residual": "{:.0%}"}
    rows = []
    for level in range(count):
        row = {"level": str(level + 1)}
        for name, values in columns.items():
            value = number(values[level]) if level < len(values) else None
            row[name] = NONE if value is None else styles[name].format(value).replace("%", " %")
        rows.append(row)
    return rows


def _sample(sample: Mapping[str, Any]) -> dict[str, Any]:
    answer = tree(sample, "answer")
    return {
        "history": [str(title) for title in entries(sample.get("history"))][-HISTORY:],
        "items": [
            {
                "title": str(item.get("title") or item.get("item_id") or NONE),
                "score": number(item.get("score")),
                "reasons": [str(reason) for reason in entries(item.get("reasons"))],
            }
            for item in mappings(answer.get("items"))[:ANSWERS]
        ],
        "fallback": answer.get("fallback"),
    }


def _funnel(dataset: Mapping[str, Any]) -> Iterator[tuple[str, str, list[tuple[str, float]]]]:
    """Per table: its name, what was kept, and the rows that each rule dropped."""
    for table in ("interactions", "items"):
        read, kept = (number(tree(dataset, key).get(table)) for key in ("read", "kept"))
        rules = [(rule, number(rows)) for rule, rows in tree(dataset, "dropped", table).items()]
        if read is not None and kept is not None:
            dropped = [(rule, rows) for rule, rows in rules if rows]
            yield table, f"{kept:,.0f} of {read:,.0f} rows kept", dropped


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key} ")
        elif value not in (None, ""):
            yield f"{prefix}{key}", str(value)


def _ordered(models: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Models in the order people compare them; unknown ones last."""
    known = [name for name in charts.NAMES if name in models]
    others = [name for name in models if name not in charts.NAMES]
    return [(name, tree(models, name)) for name in known + others]


def _title(metric: str) -> str:
    kind, _, depth = metric.partition("@")
    return f"{TITLES.get(kind, kind)}@{depth}"
