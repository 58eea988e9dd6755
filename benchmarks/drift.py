"""Print the score and code drift (PSI) that a server reports for normal and for abnormal traffic.

    python -m benchmarks.drift --data movielens

A trained release (`benchmarks.load.trained_release`) answers through the metrics code of the servers.
About 3 minutes. Written to benchmarks/results/drift.csv.
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
from benchmarks.load.trained_release import trained_release
from benchmarks.report.machine import machine
from benchmarks.report.rows import Row, write_rows
from benchmarks.report.table import Table
from car_model.bundle import Bundle
from car_model.data.histories import Histories
from car_model.evaluation.answer_profile import measure_answers
from car_model.recommender.recommender import Recommender
from serving.metrics.counters import Metrics
from serving.metrics.drift_window import WindowDrift
from serving.metrics.observer import InstrumentedResponder

OUTPUT = Path("benchmarks/results/drift.csv")
ANSWERS, BATCH = 1200, 8
MIN_ANSWERS = 200  # the fewest that drift is computed from
Request = Callable[[int], dict[str, Any]]  # the request of a user, given by any number
app = typer.Typer(add_completion=False)


class DriftRow(Row):
    """Drift after one kind of traffic."""

    machine: str
    dataset: str
    answers: int
    traffic: str
    score_psi: float
    code_psi: float


@app.command()
def main(
    data: Annotated[str, typer.Option(help="movielens, or an Amazon 2014 folder.")] = "movielens",
) -> None:
    """Measure both drifts for every kind of traffic."""
    torch.set_num_threads(1)
    bundle = Bundle.load(trained_release(data).bundle)
    histories = load_dataset(data).histories(bundle.catalogue.uids)
    recommender = Recommender(replace(bundle, answer_profile=measure_answers(Recommender(bundle), histories)))
    rows = []
    for traffic, request in tqdm(traffic_kinds(recommender, histories).items(), desc="kinds of traffic"):
        answers = MIN_ANSWERS if traffic.endswith(f"{MIN_ANSWERS} answers") else ANSWERS
        drift = read_drift(recommender, request, answers)
        rows.append(
            DriftRow(
                machine=machine(),
                dataset=data,
                answers=answers,
                traffic=traffic,
                score_psi=round(drift.score, 3),
                code_psi=round(drift.code, 3),
            )
        )
    write_rows(OUTPUT, rows)
    for table in tables(rows):
        table.print()


def read_drift(recommender: Recommender, request: Request, answers: int) -> WindowDrift:
    """Drift after this many answers to users drawn at random (seed 0)."""
    metrics, rng = Metrics(), np.random.default_rng(0)
    responder = InstrumentedResponder(recommender, metrics)
    users = rng.integers(2**31, size=answers).tolist()
    for start in range(0, answers, BATCH):
        bodies = [{"explain": False} | request(user) for user in users[start : start + BATCH]]
        responder([json.dumps(body).encode() for body in bodies])
    window = metrics.drift.window
    return window.read() if window else WindowDrift(0.0, 0.0, 0)


def traffic_kinds(recommender: Recommender, data: Histories) -> dict[str, Request]:
    """Requests by kind of traffic."""
    ids, depths = recommender.catalogue.item_ids, recommender.n_levels + 1
    holdout = [[ids[uid - 1] for uid in history.tolist()] for history in data.before("test")]
    codes = recommender.catalogue.sids[:, 0]
    largest_code = [ids[i] for i in np.flatnonzero(codes == np.bincount(codes).argmax())]

    def history(user: int) -> list[str]:
        return holdout[user % len(holdout)]

    def random_history(user: int, pool: list[str], length: int) -> dict[str, Any]:
        return {"history": [pool[i] for i in np.random.default_rng(user).integers(len(pool), size=length)]}

    return {
        "the holdout's": lambda user: {"history": history(user)},
        f"the holdout's, {MIN_ANSWERS} answers": lambda user: {"history": history(user)},
        "the holdout's, any thinking": lambda user: {"history": history(user), "thinking": user % depths},
        "the last three items only": lambda user: {"history": history(user)[-3:]},
        "the last item only": lambda user: {"history": history(user)[-1:]},
        "random items": lambda user: random_history(user, ids, 20),
        "items of one code only": lambda user: random_history(user, largest_code, 10),
    }


def tables(rows: list[DriftRow]) -> list[Table]:
    """Both drifts by traffic."""
    cells = [[row.traffic, f"{row.score_psi:.2f}", f"{row.code_psi:.2f}"] for row in rows]
    return [Table(f"PSI beyond chance, {rows[0].dataset}", ["traffic", "scores", "codes"], cells)]


if __name__ == "__main__":
    app()
