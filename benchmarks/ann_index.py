"""Print recall and speed of answers from an ANN index against exact answers.

    python -m benchmarks.ann_index --data PATH/amazon2014/Beauty

Recall@10 against exact answers to real histories, on a trained release, without and with text similarity; and
the time of an answer without reasons on catalogues of up to 500,000 items with random weights, whose values
change no time. One thread. About 5 minutes. Written to benchmarks/results/ann_index_recall.csv and
ann_index_time.csv.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.load.trained_release import trained_release
from benchmarks.report.machine import machine
from benchmarks.report.rows import Row, write_rows
from benchmarks.report.table import Table
from car_model.bundle import Bundle, popularity_priors
from car_model.bundle import tables as item_tables
from car_model.codebook.codebook import Codebook
from car_model.codebook.labels import CodeLabels
from car_model.data.catalogue import Catalogue
from car_model.encoding.encoder import EncoderSpec
from car_model.models.car import CAR
from car_model.recommender.recommender import Recommender
from car_model.training.recipe import parse_recipe

RECALL_OUTPUT = Path("benchmarks/results/ann_index_recall.csv")
TIME_OUTPUT = Path("benchmarks/results/ann_index_time.csv")
PROBED, ITEMS = (0.03, 0.1, 0.3), (12_000, 100_000, 500_000)
N_LEVELS, CODEBOOK_SIZE, ANSWERS = 4, 256, 50
ANN_CANDIDATES = 1000

app = typer.Typer(add_completion=False)


class ANNRecallRow(Row):
    """Recall of an ANN index against exact answers."""

    machine: str
    dataset: str
    items: int
    similarity_scale: float
    """Weight of text similarity in the score."""
    probed: float
    """Share of the index cells that are searched."""
    recall_at_10: float


class ANNTimeRow(Row):
    """Time of an answer with an ANN index and without, on a random catalogue."""

    machine: str
    items: int
    exact_load_s: float
    exact_ms: float
    ann_load_s: float
    ann_ms: float


def recall_at(k: int, exact: Sequence[Sequence[int]], approximate: Sequence[Sequence[int]]) -> float:
    """Share of the k best items that the approximate answers hold too, averaged over histories."""
    pairs = zip(exact, approximate, strict=True)
    return float(np.mean([len(set(best[:k]) & set(answer[:k])) / len(best[:k]) for best, answer in pairs]))


@app.command()
def main(
    data: Annotated[str, typer.Option(help="movielens, or the folder of an Amazon 2014 data set.")],
) -> None:
    """Measure recall and time and print the tables."""
    torch.set_num_threads(1)
    release = trained_release(data)
    bundle = Bundle.load(release.bundle)
    recalls = [
        ANNRecallRow(
            machine=machine(),
            dataset=release.name,
            items=release.n_items,
            similarity_scale=scale,
            probed=probed,
            recall_at_10=recall(replace(bundle, similarity_scale=scale), probed, release.histories),
        )
        for scale in sorted({0.0, bundle.similarity_scale})
        for probed in PROBED
    ]
    times = [measure_time(n_items) for n_items in ITEMS]
    write_rows(RECALL_OUTPUT, recalls)
    write_rows(TIME_OUTPUT, times)
    for table in (recall_table(recalls), time_table(times)):
        table.print()


def recall(bundle: Bundle, probed: float, histories: list[list[str]]) -> float:
    """Recall@10 over real histories if a share of the index cells is searched."""
    exact, indexed = Recommender(bundle), Recommender(replace(bundle, ann_candidates=ANN_CANDIDATES))
    for index in indexed.ann_index.indices if indexed.ann_index else ():
        index.index.nprobe = max(1, round(probed * index.index.nlist))
    expected, found = ([top_ten(each, history) for history in histories] for each in (exact, indexed))
    return recall_at(10, expected, found)


def top_ten(recommender: Recommender, history: list[str]) -> list[Any]:
    """The ten items recommended after a history."""
    answer = recommender.recommend({"history": history, "k": 10, "explain": False})
    return [item["item_id"] for item in answer["items"]]


def measure_time(n_items: int) -> ANNTimeRow:
    """Seconds to load and milliseconds to answer, exactly and from an ANN index."""
    bundle, rng = random_bundle(n_items), np.random.default_rng(1)
    histories = [[f"i{item}" for item in rng.integers(1, n_items, 20)] for _ in range(ANSWERS)]
    measured = {}
    for name, size in (("exact", 0), ("ann", ANN_CANDIDATES)):
        start = time.perf_counter()
        recommender = Recommender(replace(bundle, ann_candidates=size))
        measured[f"{name}_load_s"] = time.perf_counter() - start
        seconds = []
        for history in histories:
            start = time.perf_counter()
            top_ten(recommender, history)
            seconds.append(time.perf_counter() - start)
        measured[f"{name}_ms"] = 1000 * median(seconds)
    return ANNTimeRow(machine=machine(), items=n_items, **measured)


def random_bundle(n_items: int) -> Bundle:
    """A bundle of random weights and SIDs."""
    rng = np.random.default_rng(0)
    ids = [f"i{item}" for item in range(n_items)]
    catalogue = Catalogue(ids, ids, rng.integers(0, CODEBOOK_SIZE, (n_items, N_LEVELS)))
    centroids = rng.normal(size=(N_LEVELS, CODEBOOK_SIZE, 8)).astype(np.float32)
    axes = np.eye(8, dtype=np.float32)
    codebook = Codebook(centroids, axes, np.zeros(8, np.float32), EncoderSpec(), "{title}")
    torch.manual_seed(0)
    model = CAR(parse_recipe({}).car(n_items, N_LEVELS, CODEBOOK_SIZE), *item_tables(catalogue))
    popular, code_share = popularity_priors(np.ones(n_items + 1, dtype=np.int64), catalogue, CODEBOOK_SIZE)
    labels = CodeLabels([[""] * CODEBOOK_SIZE for _ in range(N_LEVELS)])
    return Bundle(
        codebook=codebook,
        labels=labels,
        catalogue=catalogue,
        model=model.eval(),
        popular=popular,
        code_share=code_share,
        think_scale=0.0,
        dataset_digest="",
    )


def recall_table(rows: Sequence[ANNRecallRow]) -> Table:
    """Recall by share of the cells that are searched."""
    cells = [
        [f"{row.probed:.0%}", "with" if row.similarity_scale else "without", f"{row.recall_at_10:.1%}"]
        for row in rows
    ]
    dataset = f"{rows[0].dataset}, {rows[0].items:,} items"
    title = f"{dataset}: {ANN_CANDIDATES:,} candidates of an ANN index against exact answers"
    return Table(title, ["cells searched", "text similarity", "recall@10"], cells)


def time_table(rows: Sequence[ANNTimeRow]) -> Table:
    """Times by size of the catalogue."""
    cells = [
        [
            f"{row.items:,}",
            f"{row.exact_ms:.1f}",
            f"{row.ann_ms:.1f}",
            f"{row.ann_ms / row.exact_ms:.2f} x",
            f"{row.ann_load_s - row.exact_load_s:.1f}",
        ]
        for row in rows
    ]
    columns = ["items", "exact, ms", f"{ANN_CANDIDATES:,} candidates, ms", "ratio", "more to load, s"]
    return Table("An answer without reasons, by catalogue", columns, cells)


if __name__ == "__main__":
    app()
