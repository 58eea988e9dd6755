"""Write the pages of results: the tables beside the data, and the tables and pictures of docs/results.md.

    python -m benchmarks.results

Reads the CSV tables under benchmarks/results/ and trains nothing. 1 minute.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import typer

from benchmarks import (
    ann_index,
    churn,
    cold_items,
    drift,
    inference,
    rank_by,
    ranking_speed,
    rollover,
    scale,
    serving_speed,
    training_speed,
)
from benchmarks.models.variants import TITLES
from benchmarks.report import accuracy_tables, pictures, ranking_tables
from benchmarks.report.comparisons import compare
from benchmarks.report.rows import Row, read_rows
from benchmarks.report.runs import ACCURACY, RANKING, AccuracyRun, RankerRun, reported_runs
from benchmarks.report.statistics import mean_and_range
from benchmarks.report.table import Table
from common.files import write_atomic

RESULTS = Path("benchmarks/results")
PAGE = Path("docs/results.md")
IMAGES = Path("docs/images")
DATASETS = {
    "Beauty": "amazon2014-Beauty",
    "Sports": "amazon2014-Sports_and_Outdoors",
    "Toys": "amazon2014-Toys_and_Games",
}
MAIN = (
    *("popularity", "nearest-text", "tiger", "ar", "tiger-wide", "ar-wide", "sasrec", "car"),
    *("sasrec-rotary", "car-rotary", "sasrec-similarity", "car-similarity", "car-text-similarity"),
)
ABLATIONS = (
    *("car-no-fusion", "car-no-think", "car-think-1", "car-1-level", "car-2-levels", "car-3-levels"),
    *("car-rqvae", "car-lsh", "car-full", "car-full-no-fusion", "car-untied"),
)
PAIRS = (
    ("car", "sasrec"),
    ("car-rotary", "sasrec-rotary"),
    ("car-similarity", "sasrec-similarity"),
    ("car-text-similarity", "sasrec-similarity"),
    ("car-similarity", "nearest-text"),
)
BLOCK = re.compile(r"(<!-- table: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
app = typer.Typer(add_completion=False)


@app.command()
def main() -> None:
    """Write every page and picture."""
    for path, content in pages().items():
        write_atomic(path, content)
        print(f"Wrote {path}.")


def pages() -> dict[Path, str]:
    """Every generated file and its content."""
    return {
        RESULTS / "accuracy.md": accuracy_page(),
        RESULTS / "ranking.md": ranking_page(),
        RESULTS / "measurements.md": measurements_page(),
        PAGE: fill_tables(PAGE.read_text(encoding="utf-8")),
        IMAGES / "accuracy.svg": accuracy_picture(),
        IMAGES / "ablations.svg": ablations_picture(),
        IMAGES / "inference.svg": inference_picture(),
    }


def accuracy_page() -> str:
    """All rows, comparisons and trials of every data set."""
    parts = [
        "# Accuracy: all runs\n",
        "Written by `python -m benchmarks.results` from the CSV tables in benchmarks/results/accuracy, which "
        "`python -m benchmarks.accuracy` fills. docs/results.md explains the protocol. Seconds are "
        "of training, on machines that also did other things.\n",
    ]
    for path in sorted(ACCURACY.glob("*.csv")):
        runs, stored = reported_runs(path), read_rows(path, AccuracyRun)
        dataset, _, order = path.stem.rpartition("-")
        machines = sorted({run.machine for run in stored})
        parts += [f"## {dataset}, same-day order {order}\n", f"Machines: {'; '.join(machines)}.\n"]
        parts.append(accuracy_tables.full_table(dataset, runs).markdown())
        for name in ("car", "car-rotary", "car-text-similarity"):
            if name in runs and len(runs) > 1:
                others = [other for other in runs if other != name]
                parts.append(accuracy_tables.comparison_table(path, name, others).markdown())
        trials = [run for run in stored if run.trial]
        if trials:
            parts.append(accuracy_tables.trials_table(trials).markdown())
    return "\n".join(parts)


def ranking_page() -> str:
    """All results of the action rankers."""
    parts = [
        "# Ranking by action: all runs\n",
        "Written by `python -m benchmarks.results` from the CSV tables in benchmarks/results/ranking, which "
        "`python -m benchmarks.ranking` fills.\n",
    ]
    for path in sorted(RANKING.glob("*.csv")):
        runs = read_rows(path, RankerRun)
        machines = sorted({run.machine for run in runs})
        parts += [f"## {path.stem}\n", f"Machines: {'; '.join(machines)}.\n"]
        parts += [table.markdown() for table in ranking_tables.tables(path.stem, runs)]
    return "\n".join(parts)


class Measurement(Row):
    """A measurement of a benchmark that was dropped."""

    benchmark: str
    machine: str
    setup: dict[str, Any]
    part: str
    measured: Any


def measurements_page() -> str:
    """Tables of every other benchmark."""
    parts = [
        "# Measurements of speed, memory and other things\n",
        "Written by `python -m benchmarks.results` from the CSV tables in benchmarks/results.\n",
    ]
    sections: list[tuple[str, str, str, type[Row], Callable[[Any], list[Table]]]] = [
        ("Inference", "inference", "inference", inference.InferenceRow, inference.tables),
        ("Serving", "serving_speed", "serving", serving_speed.ServingRow, serving_speed.tables),
        ("Rollovers under load", "rollover", "rollover", rollover.RolloverRow, rollover.tables),
        ("Training", "training_speed", "training", training_speed.TrainingRow, training_speed.tables),
        (
            *("Training on a GPU", "training_speed --gpu", "gpu_utilisation", training_speed.GPURow),
            lambda rows: [training_speed.gpu_table(rows)],
        ),
        (
            *("Ranking by action: speed", "ranking_speed", "ranking_speed", ranking_speed.RankingSpeedRow),
            ranking_speed.tables,
        ),
        ("Ranking by action: answers", "rank_by", "rank_by", rank_by.RankByRow, rank_by.tables),
        ("Codebook churn", "churn", "churn", churn.ChurnRow, churn.tables),
        ("Cold items", "cold_items", "cold_items", cold_items.ColdItemsRow, cold_items.tables),
        ("Drift", "drift", "drift", drift.DriftRow, drift.tables),
        ("Scale", "scale", "scale", scale.ScaleRow, scale.tables),
        (
            *("ANN index: recall", "ann_index", "ann_index_recall", ann_index.ANNRecallRow),
            lambda rows: [ann_index.recall_table(rows)],
        ),
        (
            *("ANN index: time", "ann_index", "ann_index_time", ann_index.ANNTimeRow),
            lambda rows: [ann_index.time_table(rows)],
        ),
    ]
    for title, command, name, row_type, tables in sections:
        rows: Any = read_rows(RESULTS / f"{name}.csv", row_type)
        machines = sorted({row.machine for row in rows})
        parts.append(f"## {title}\n\n`python -m benchmarks.{command}` on: {'; '.join(machines)}.\n")
        parts += [table.markdown() for table in tables(rows)]
    parts.append(
        "## Benchmarks that were dropped\n\n"
        "What they measured is kept in retired.csv. The code that measured it is gone.\n"
    )
    retired = read_rows(RESULTS / "retired.csv", Measurement)
    cells = [
        [row.benchmark, row.part, f"`{json.dumps(row.measured, separators=(',', ':'))}`"] for row in retired
    ]
    parts.append(Table("", ["benchmark", "part", "measured"], cells).markdown(title=False))
    return "\n".join(parts)


def fill_tables(page: str) -> str:
    """Fill the marked places of a page with their tables."""
    tables: dict[str, Callable[[], Table]] = {
        "ndcg": partial(main_table, "ndcg@10"),
        "recall": partial(main_table, "recall@10"),
        "paired": paired_table,
        "shuffled": shuffled_table,
        "ablations": ablations_table,
        "rankers": rankers_table,
        "inference": inference_table,
        "serving": serving_table,
        "cold-items": lambda: cold_items.tables(
            read_rows(RESULTS / "cold_items.csv", cold_items.ColdItemsRow)
        )[0],
    }

    def fill(match: re.Match[str]) -> str:
        return f"{match[1]}{tables[match[2]]().markdown(title=False)}{match[3]}"

    return BLOCK.sub(fill, page)


def stored_runs(dataset: str, order: str = "stored") -> dict[str, list[AccuracyRun]]:
    """The reported runs of a data set by its short name."""
    return reported_runs(ACCURACY / f"{DATASETS[dataset]}-{order}.csv")


def main_table(metric: str) -> Table:
    """A test metric of the main models on all data sets: mean and range over seeds."""
    runs = {dataset: stored_runs(dataset) for dataset in DATASETS}
    rows = []
    for model in MAIN:
        cells = [
            mean_and_range([run.metric(metric) for run in runs[dataset][model]])
            if model in runs[dataset]
            else "not run"
            for dataset in DATASETS
        ]
        rows.append([TITLES[model], *cells])
    name = accuracy_tables.METRICS[metric]
    return Table(name, [f"test {name}", *DATASETS], rows)


def paired_table() -> Table:
    """NDCG@10 of CAR relative to baselines that have the same, with intervals over users."""
    cells = [[TITLES[model], TITLES[other]] for model, other in PAIRS]
    for dataset, name in DATASETS.items():
        runs, table = stored_runs(dataset), ACCURACY / f"{name}-stored.csv"
        pairs = [(model, other) for model, other in PAIRS if model in runs and other in runs]
        comparisons = compare(table, pairs)
        for line, (model, other) in zip(cells, PAIRS, strict=True):
            comparison = comparisons.get((table.stem, model, other, "ndcg@10"))
            line.append(comparison.text if comparison else "not run")
    return Table("Like with like", ["test NDCG@10 of", "against", *DATASETS], cells)


def shuffled_table() -> Table:
    """NDCG@10 with same-day interactions in random order."""
    runs = {dataset: stored_runs(dataset, "shuffled") for dataset in DATASETS}
    rows = []
    for model in ("sasrec", "car", "sasrec-similarity", "car-text-similarity"):
        cells = [
            mean_and_range([run.metric("ndcg@10") for run in runs[dataset][model]])
            if model in runs[dataset]
            else "not run"
            for dataset in DATASETS
        ]
        rows.append([TITLES[model], *cells])
    return Table("Random same-day order", ["test NDCG@10", *DATASETS], rows)


def ablations_table() -> Table:
    """CAR's NDCG@10 relative to its ablations', with intervals over users."""
    cells: dict[str, list[str]] = {model: [TITLES[model]] for model in ABLATIONS}
    for dataset, name in DATASETS.items():
        runs = stored_runs(dataset)
        table = ACCURACY / f"{name}-stored.csv"
        comparisons = compare(table, [("car", model) for model in ABLATIONS if model in runs])
        for model in ABLATIONS:
            comparison = comparisons.get((table.stem, "car", model, "ndcg@10"))
            cells[model].append(comparison.text if comparison else "not run")
    return Table("Ablations", ["NDCG@10 of CAR against", *DATASETS], list(cells.values()))


def rankers_table() -> Table:
    """Log loss of the action rankers against interleaving."""
    rows = []
    for dataset in ("movielens-100k", DATASETS["Toys"]):
        runs = read_rows(RANKING / f"{dataset}.csv", RankerRun)
        table = next(table for table in ranking_tables.tables(dataset, runs) if "paired" in table.title)
        rows += [[f"{name}, {dataset}", seeds, users, paper] for name, seeds, users, _, paper in table.rows]
    return Table(
        "Rankers", ["log loss against interleaving", "over seeds, 95 %", "over users, 95 %", "paper"], rows
    )


def inference_rows(top: int | None = None) -> list[inference.InferenceRow]:
    """Times with histories as they are."""
    rows = read_rows(RESULTS / "inference.csv", inference.InferenceRow)
    return [row for row in rows if row.histories == "as they are" and (top is None or row.top == top)]


def inference_table() -> Table:
    """Milliseconds per history for ten items: CAR, and beam search of two widths."""
    rows = inference_rows(top=10)
    cells = []
    for model, beam in dict.fromkeys((row.model, row.beam) for row in rows if row.beam in (0, 10, 50)):
        line = [f"{model}, beam {beam}" if beam else model]
        for batch in inference.BATCHES:
            row = next(row for row in rows if (row.model, row.beam, row.batch) == (model, beam, batch))
            line += [row.seconds.text("{:.2f}", scale=1000), f"{row.ratio_to_fast_top_10.median:.1f} x"]
        cells.append(line)
    columns = ["10 items", "ms, batch 1", "against CAR fast", "ms, batch 32", "against CAR fast"]
    return Table("Inference", columns, cells)


def serving_table() -> Table:
    """Throughput and latency at eight clients."""
    rows = read_rows(RESULTS / "serving.csv", serving_speed.ServingRow)
    cells = []
    for server in dict.fromkeys(row.server for row in rows):
        line = [server]
        for request in ("no reasons, thinking 0", "with reasons"):
            row = next(row for row in rows if (row.server, row.request, row.clients) == (server, request, 8))
            line += [f"{row.answers_per_second:.0f}", f"{row.p50_ms:.0f} / {row.p99_ms:.0f}"]
        cells.append(line)
    columns = ["8 clients", "answers/s", "p50 / p99 ms", "answers/s with reasons", "p50 / p99 ms"]
    return Table("Serving", columns, cells)


def accuracy_picture() -> str:
    """NDCG@10 of the main models on three data sets."""
    colours = {
        "tiger-wide": pictures.LIGHT,
        "sasrec": pictures.GREY,
        "car": pictures.RED,
        "sasrec-similarity": "#5b6570",
        "car-similarity": "#c05a6c",
        "car-text-similarity": "#8c1c2f",
    }
    groups = {}
    for dataset in DATASETS:
        runs = stored_runs(dataset)
        groups[dataset] = {
            TITLES[model]: [run.metric("ndcg@10") for run in runs[model]]
            for model in colours
            if model in runs
        }
    by_title = {TITLES[model]: colour for model, colour in colours.items()}
    return pictures.grouped_bars(groups, by_title, "test NDCG@10, mean and range of 3 seeds")


def ablations_picture() -> str:
    """NDCG@10 of the ablations on Beauty relative to CAR."""
    runs = stored_runs("Beauty")
    models: Sequence[str] = ("car", *ABLATIONS)
    values = {TITLES[model]: [run.metric("ndcg@10") for run in runs[model]] for model in models}
    return pictures.differences(
        values,
        TITLES["car"],
        "NDCG@10 on Beauty against CAR, % (mean, range of 3 seeds)",
    )


def inference_picture() -> str:
    """Milliseconds per history by beam width or number of items."""
    colours = {
        "CAR fast": pictures.RED,
        "CAR slow, 4 levels": "#8c1c2f",
        "AR": pictures.BLUE,
        "TIGER-style": pictures.GREY,
    }
    panels: dict[str, dict[str, dict[int, float]]] = {}
    for batch in inference.BATCHES:
        models: dict[str, dict[int, float]] = {}
        for row in inference_rows():
            if row.batch == batch and (row.beam == row.top or not row.beam):
                models.setdefault(row.model, {})[row.top] = 1000 * row.seconds.median
        panels[f"batch {batch}"] = models
    return pictures.lines(panels, colours, "items = beam width", "ms per history (median)")


if __name__ == "__main__":
    app()
