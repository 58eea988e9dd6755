"""The gate's report for people: one self-contained HTML file with the verdict on top and the evidence below.

It must render whatever it is given: a blocked release is exactly where evidence is missing or malformed.
So every lookup here is tolerant, unlike the gate's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from validation import charts
from validation.files import write_text
from validation.pages import render_page

METRICS = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")
TITLES = {"recall": "Recall", "ndcg": "NDCG"}
MAIN = "ndcg@10"
NONE = "–"  # noqa: RUF001 (an en dash is how tables show that there is nothing)
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
        conditions=_rows(inputs.verdict.get("conditions")),
        headline=list(_headline(evaluation)),
        metrics=[_title(metric) for metric in METRICS],
        models=_models(evaluation),
        holdout=_tree(evaluation, "holdout"),
        champion=_tree(evaluation, "champion"),
        paired=_paired_chart(evaluation),
        differences=_differences(evaluation, METRICS),
        slices=_slices_chart(evaluation),
        slice_users=[(name, one.get("users")) for name, one in _trees(evaluation, "slices")],
        curves=_curves_chart(evaluation),
        codebook=_tree(evaluation, "codebook"),
        levels=_levels(_tree(evaluation, "codebook")),
        usage=_usage_chart(_tree(evaluation, "codebook")),
        samples=[_sample(one) for one in (inputs.samples or _rows(evaluation.get("samples")))[:SAMPLES]],
        dataset=inputs.dataset,
        funnel=list(_funnel(inputs.dataset)),
        versions=[*_flat(inputs.bundle), *_flat(inputs.run)],
    )
    write_text(Path(output), page)


def _headline(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The few numbers that everyone asks for first."""
    mean = _number(_tree(evaluation, "models", "challenger", MAIN).get("mean"))
    if mean is not None:
        yield f"{_title(MAIN)}, CAR", f"{mean:.4f}"
    for rival, _ in _ordered(_tree(evaluation, "paired")):
        relative = _number(_tree(evaluation, "paired", rival, MAIN).get("relative"))
        if relative is not None:
            yield f"{_title(MAIN)} against {charts.name_of(rival)}", f"{relative:+.1%}".replace("%", " %")
    users = _number(_tree(evaluation, "holdout").get("users"))
    if users is not None:
        yield "Users in the holdout", f"{users:,.0f}"
    slowest = _number(_tree(evaluation, "latency").get("p99_ms"))
    if slowest is not None:
        yield "99 % of answers within", f"{slowest:.3g} ms"


def _models(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of the models table; a cell is (mean, interval, whether it is the best)."""
    rows = _ordered(_tree(evaluation, "models"))
    means = {metric: [_number(_tree(row, metric).get("mean")) for _, row in rows] for metric in METRICS}
    best = {
        metric: max((one for one in found if one is not None), default=None)
        for metric, found in means.items()
    }
    return [
        {
            "name": charts.name_of(model),
            "mine": model == "challenger",
            "cells": [_cell(_tree(row, metric), best[metric]) for metric in METRICS],
        }
        for model, row in rows
    ]


def _cell(scores: Mapping[str, Any], best: float | None) -> tuple[str, str, bool]:
    mean, low, high = (_number(scores.get(key)) for key in ("mean", "low", "high"))
    if mean is None:
        return NONE, "", False
    interval = f"{low:.4f} to {high:.4f}" if low is not None and high is not None else ""
    return f"{mean:.4f}", interval, mean == best


def _differences(evaluation: Mapping[str, Any], metrics: Sequence[str]) -> list[charts.Difference]:
    found = []
    for rival, row in _ordered(_tree(evaluation, "paired")):
        for metric in metrics:
            one = _tree(row, metric)
            value, low, high, relative = (
                _number(one.get(key)) for key in ("difference", "low", "high", "relative")
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
    for name, one in _trees(evaluation, "slices"):
        values = {model: _number(_tree(row).get(MAIN)) for model, row in _ordered(_tree(one, "models"))}
        if shown := {model: value for model, value in values.items() if value is not None}:
            users = _number(one.get("users"))
            rows[name if users is None else f"{name}: {users:,.0f} users"] = shown
    return charts.slices(rows, _title(MAIN)) if rows else ""


def _curves_chart(evaluation: Mapping[str, Any]) -> str:
    """Curves stand below `training.<model>` itself or below its `curves`."""
    training = {}
    for model, row in _ordered(_tree(evaluation, "training")):
        series = {name: _numbers(values) for name, values in (_tree(row, "curves") or row).items()}
        if any(series.values()):
            training[model] = series
    return charts.curves(training) if training else ""


def _usage_chart(codebook: Mapping[str, Any]) -> str:
    counts = [_numbers(level) for level in _list(codebook.get("usage_counts"))]
    return charts.code_usage(counts) if counts and all(counts) else ""


def _levels(codebook: Mapping[str, Any]) -> list[dict[str, str]]:
    """Codebook health level by level, as text."""
    columns = {name: _list(codebook.get(name)) for name in ("usage", "perplexity", "residual")}
    count = max((len(values) for values in columns.values()), default=0)
    styles = {"usage": "{:.0%}", "perplexity": "{:.1f}", "residual": "{:.0%}"}
    rows = []
    for level in range(count):
        row = {"level": str(level + 1)}
        for name, values in columns.items():
            value = _number(values[level]) if level < len(values) else None
            row[name] = NONE if value is None else styles[name].format(value).replace("%", " %")
        rows.append(row)
    return rows


def _sample(sample: Mapping[str, Any]) -> dict[str, Any]:
    answer = _tree(sample, "answer")
    return {
        "history": [str(title) for title in _list(sample.get("history"))][-HISTORY:],
        "items": [
            {
                "title": str(item.get("title") or item.get("item_id") or NONE),
                "score": _number(item.get("score")),
                "reasons": [str(reason) for reason in _list(item.get("reasons"))],
            }
            for item in _rows(answer.get("items"))[:ANSWERS]
        ],
        "fallback": answer.get("fallback"),
    }


def _funnel(dataset: Mapping[str, Any]) -> Iterator[tuple[str, str, list[tuple[str, float]]]]:
    """Per table: its name, what was kept, and the rows that each rule dropped."""
    for table in ("interactions", "items"):
        read, kept = (_number(_tree(dataset, key).get(table)) for key in ("read", "kept"))
        rules = [(rule, _number(rows)) for rule, rows in _tree(dataset, "dropped", table).items()]
        if read is not None and kept is not None:
            dropped = [(rule, rows) for rule, rows in rules if rows]
            yield table, f"{kept:,.0f} of {read:,.0f} rows kept", dropped


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key} ")
        elif value not in (None, ""):
            yield f"{prefix}{key}", str(value)


def _ordered(tree: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Models in the order people compare them; unknown ones last."""
    known = [name for name in charts.NAMES if name in tree]
    return [
        (name, _tree(tree, name)) for name in [*known, *(name for name in tree if name not in charts.NAMES)]
    ]


def _trees(tree: Mapping[str, Any], key: str) -> list[tuple[str, Mapping[str, Any]]]:
    return [(name, value) for name, value in _tree(tree, key).items() if isinstance(value, Mapping)]


def _tree(tree: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """The mapping at a path of keys; empty where there is none."""
    value: Any = tree
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _rows(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in _list(value) if isinstance(one, Mapping)]


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _numbers(values: Any) -> list[float]:
    """The list as numbers with gaps (NaN) where an entry is none; empty for anything that is no list."""
    found = [_number(value) for value in _list(values)]
    return (
        [math.nan if one is None else one for one in found] if any(one is not None for one in found) else []
    )


def _title(metric: str) -> str:
    kind, _, depth = metric.partition("@")
    return f"{TITLES.get(kind, kind)}@{depth}"
