"""What drift says of traffic that is as expected, and of traffic that is not.

    python -m benchmarks.drift --data movielens

A release of the data set (benchmarks/load/trained_release.py) is asked through the counting that servers
do, and its gauges are read. Written to benchmarks/results/speed/drift.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from tqdm import tqdm

from benchmarks.datasets.load import load_dataset
from benchmarks.load.trained_release import made
from benchmarks.report.machine import machine
from benchmarks.report.table import Sheet
from car_model.bundle import Bundle
from car_model.data.histories import Histories
from car_model.evaluation.answer_profile import measure_answers
from car_model.recommender.recommender import Recommender
from serving.metrics.counters import Metrics
from serving.metrics.drift_window import WindowDrift
from serving.metrics.observer import InstrumentedResponder

OUTPUT = Path("benchmarks/results/speed/drift.json")
ANSWERS, TOGETHER = 1200, 8
FEW = 200  # the fewest that drift is computed from
Ask = Callable[[int], dict[str, Any]]
app = typer.Typer(add_completion=False)


@app.command()
def main(
    data: Annotated[str, typer.Option(help="`movielens`, or an Amazon 2014 folder.")] = "movielens",
) -> None:
    """Print and write both drifts for each kind of traffic."""
    torch.set_num_threads(1)
    recommender, histories = profiled_release(data)
    found = {
        name: read(recommender, ask, FEW if name.endswith(f"{FEW} answers") else ANSWERS)
        for name, ask in tqdm(_kinds(recommender, histories).items(), desc="kinds of traffic")
    }
    rows = [[name, f"{one.score:.2f}", f"{one.code:.2f}"] for name, one in found.items()]
    Sheet(f"PSI beyond chance, {data}", ["traffic", "scores", "codes"], rows).print()
    figures = {
        name: {"score": round(one.score, 3), "code": round(one.code, 3)} for name, one in found.items()
    }
    value = {"machine": machine(), "data": data, "answers": ANSWERS, "drift": figures}
    OUTPUT.write_text(json.dumps(value, indent=1) + "\n")


def profiled_release(data: str) -> tuple[Recommender, Histories]:
    """A data set's release with its answer profile, and the histories that it was trained on."""
    bundle = Bundle.load(made(data).bundle)
    histories = load_dataset(data).histories(bundle.catalogue.uids)
    return Recommender(
        replace(bundle, answer_profile=measure_answers(Recommender(bundle), histories))
    ), histories


def read(recommender: Recommender, ask: Ask, answers: int) -> WindowDrift:
    """The drift after so many answers to users drawn at random (seed 0)."""
    metrics, rng = Metrics(), np.random.default_rng(0)
    watched = InstrumentedResponder(recommender, metrics)
    users = rng.integers(2**31, size=answers).tolist()
    for start in range(0, answers, TOGETHER):
        bodies = [{"explain": False} | ask(user) for user in users[start : start + TOGETHER]]
        watched([json.dumps(body).encode() for body in bodies])
    window = metrics.drift.window
    return window.read() if window else WindowDrift(0.0, 0.0, 0)


def _kinds(recommender: Recommender, data: Histories) -> dict[str, Ask]:
    """Requests by kind of traffic, each made from any number that stands for a user."""
    ids, depths = recommender.catalogue.item_ids, recommender.n_levels + 1
    latest = [[ids[uid - 1] for uid in history.tolist()] for history in data.before("test")]
    first = recommender.catalogue.sids[:, 0]
    fans = [ids[at] for at in np.flatnonzero(first == np.bincount(first).argmax())]

    def of(user: int) -> list[str]:
        return latest[user % len(latest)]

    def drawn(user: int, pool: list[str], count: int) -> dict[str, Any]:
        return {"history": [pool[at] for at in np.random.default_rng(user).integers(len(pool), size=count)]}

    return {
        "the holdout's": lambda user: {"history": of(user)},
        f"the holdout's, {FEW} answers": lambda user: {"history": of(user)},
        "the holdout's, any thinking": lambda user: {"history": of(user), "thinking": user % depths},
        "the last three items only": lambda user: {"history": of(user)[-3:]},
        "the last item only": lambda user: {"history": of(user)[-1:]},
        "random items": lambda user: drawn(user, ids, 20),
        "items of one code only": lambda user: drawn(user, fans, 10),
    }


if __name__ == "__main__":
    app()
