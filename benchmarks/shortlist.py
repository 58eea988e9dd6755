"""Answers from a shortlist against answers from all items: what they miss, and what they save.

    python -m benchmarks.shortlist --data PATH/amazon2014/Beauty

Recall@10 of the shortlist against exact answers to real histories, on the trained release of
`benchmarks.serving_speed`, with and without likeness of texts; and the time of an answer without reasons on
catalogues of up to 500,000 items with random weights, whose values change no time. One thread. Written to
benchmarks/results/speed/shortlist.json.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.load.trained_release import made
from benchmarks.report.machine import machine
from benchmarks.report.table import Sheet
from car_model.bundle import Bundle, popularity_priors, tables
from car_model.codebook.codebook import Codebook
from car_model.codebook.labels import CodeLabels
from car_model.data.catalogue import Catalogue
from car_model.encoding.encoder import EncoderSpec
from car_model.models.car import CAR
from car_model.recommender.ann_index import recall_at
from car_model.recommender.recommender import Recommender
from car_model.training.recipe import Recipe

OUTPUT = Path("benchmarks/results/speed/shortlist.json")
PROBED, ITEMS = (0.03, 0.1, 0.3), (12_000, 100_000, 500_000)
LEVELS, CODES, ASKED = 4, 256, 50
USUAL = 1000

app = typer.Typer(add_completion=False)


@app.command()
def main(
    data: Annotated[str, typer.Option(help="movielens, or an Amazon 2014 set's folder")],
    output: Path = OUTPUT,
) -> None:
    """Measure, print and write."""
    torch.set_num_threads(1)
    release = made(data)
    bundle = Bundle.load(release.bundle)
    found = {
        **{"machine": machine(), "data": release.name, "items": release.items},
        "recall": [
            recall(replace(bundle, similarity_scale=scale), probed, release.histories)
            for scale in sorted({0.0, bundle.similarity_scale})
            for probed in PROBED
        ],
        "time": [timed(items) for items in ITEMS],
    }
    output.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    for sheet in sheets(found):
        sheet.print()


def recall(bundle: Bundle, probed: float, histories: list[list[str]]) -> dict[str, Any]:
    """Recall@10 over real histories where a share of the cells is looked at."""
    exact, short = Recommender(bundle), Recommender(replace(bundle, ann_candidates=USUAL))
    for one in short.ann_index.indices if short.ann_index else ():
        one.index.nprobe = max(1, round(probed * one.index.nlist))
    best, found = ([ids(one, history) for history in histories] for one in (exact, short))
    return {
        "likeness_scale": bundle.similarity_scale,
        "probed": probed,
        "recall": recall_at(10, best, found),
    }


def ids(recommender: Recommender, history: list[str]) -> list[Any]:
    """The ten items recommended after a history."""
    answer = recommender.recommend({"history": history, "k": 10, "explain": False})
    return [item["item_id"] for item in answer["items"]]


def timed(items: int) -> dict[str, Any]:
    """Seconds to load and milliseconds to answer, from all items and from a shortlist."""
    bundle, rng = untrained(items), np.random.default_rng(1)
    histories = [[f"i{item}" for item in rng.integers(1, items, 20)] for _ in range(ASKED)]
    told: dict[str, Any] = {"items": items}
    for name, size in (("exact", 0), ("shortlist", USUAL)):
        start = time.perf_counter()
        recommender = Recommender(replace(bundle, ann_candidates=size))
        told[f"{name}_load_s"] = time.perf_counter() - start
        taken = []
        for history in histories:
            start = time.perf_counter()
            ids(recommender, history)
            taken.append(time.perf_counter() - start)
        told[f"{name}_ms"] = 1000 * median(taken)
    return told


def untrained(items: int) -> Bundle:
    """A bundle of random weights and SIDs."""
    rng = np.random.default_rng(0)
    names = [f"i{item}" for item in range(items)]
    sids = rng.integers(0, CODES, (items, LEVELS))
    catalogue = Catalogue(names, names, sids)
    centroids = rng.normal(size=(LEVELS, CODES, 8)).astype(np.float32)
    axes = np.eye(8, dtype=np.float32)
    book = Codebook(centroids, axes, np.zeros(8, np.float32), EncoderSpec(), "{title}")
    torch.manual_seed(0)
    model = CAR(Recipe.model_validate({}).car(items, LEVELS, CODES), *tables(catalogue))
    popular = popularity_priors(np.ones(items + 1, dtype=np.int64), catalogue, CODES)
    labels = CodeLabels([[""] * CODES for _ in range(LEVELS)])
    return Bundle(
        codebook=book,
        labels=labels,
        catalogue=catalogue,
        model=model.eval(),
        popular=popular[0],
        code_share=popular[1],
        think_scale=0.0,
        dataset_digest="",
    )


def sheets(found: dict[str, Any]) -> list[Sheet]:
    """Recall by size, and times by catalogue."""
    recalls = [
        [f"{one['probed']:.0%}", "with" if one["likeness_scale"] else "without", f"{one['recall']:.1%}"]
        for one in found["recall"]
    ]
    times = [
        [
            f"{one['items']:,}",
            f"{one['exact_ms']:.1f}",
            f"{one['shortlist_ms']:.1f}",
            f"{one['shortlist_ms'] / one['exact_ms']:.2f} x",
            f"{one['shortlist_load_s'] - one['exact_load_s']:.1f}",
        ]
        for one in found["time"]
    ]
    columns = ["items", "exact, ms", f"shortlist of {USUAL:,}, ms", "time", "more to load, s"]
    return [
        Sheet(
            f"{found['data']}, {found['items']:,} items: a shortlist of {USUAL:,} against exact answers",
            ["of the cells", "likeness of texts", "recall@10"],
            recalls,
        ),
        Sheet("An answer without reasons, by catalogue", columns, times),
    ]


if __name__ == "__main__":
    app()
