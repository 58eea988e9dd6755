"""What metrics cost: microseconds a request with and without them, telling TorchServe, a scrape.

    python -m benchmarks.metrics_cost --data movielens

One process, one thread. What counting adds would drown in the noise of answers that take a hundred times as
long, so answers are made once and replayed; rounds with and without counting alternate. Written to
benchmarks/results/speed/metrics_cost.json.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Annotated, Any

import torch
import typer
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl

import serving
from benchmarks.drift import profiled_release
from benchmarks.machine import machine
from car_model.bundle import Bundle
from car_model.recommender.recommender import Recommender
from serving.answering.answer import respond_all
from serving.asgi.metrics_exporter import AsgiMetrics
from serving.metrics.counters import Metrics
from serving.metrics.observer import Watched
from serving.torchserve.metrics_exporter import FrontEnd

OUTPUT = Path("benchmarks/results/speed/metrics_cost.json")
ROUNDS, REQUESTS = 41, 200
app = typer.Typer(add_completion=False)


class Replayed(Recommender):
    """Answers what it answered before, at once."""

    def __init__(self, bundle: Bundle, said: dict[str, Any]) -> None:
        super().__init__(bundle)
        self.said = said

    def answers(self, bodies: Sequence[Any]) -> list[Any]:
        return [self.said[json.dumps(body)] for body in bodies]


@app.command()
def main(
    data: Annotated[str, typer.Option(help="`movielens`, or an Amazon 2014 folder.")] = "movielens",
) -> None:
    """Print and write medians over rounds."""
    torch.set_num_threads(1)
    real, histories = profiled_release(data)
    asked = _requests(real, histories.before("test"))
    said = dict(zip(map(json.dumps, asked), real.answers(asked), strict=True))
    bodies = [json.dumps(one).encode() for one in asked]
    figures = _counting(real, Replayed(real.bundle, said), bodies)
    load = round(os.getloadavg()[0], 1)
    for name, figure in figures.items():
        print(f"{name}: {figure:.1f}")
    print(f"{machine()}; load of the machine when it ended: {load}")
    value = {"machine": machine(), "load": load, "data": data, "figures": figures}
    OUTPUT.write_text(json.dumps(value, indent=1) + "\n")


def _counting(real: Recommender, recommender: Recommender, bodies: list[bytes]) -> dict[str, float]:
    metrics, scraped = Metrics(), AsgiMetrics()
    watched = Watched(recommender, metrics)
    plain, counted = [], []
    for _ in range(ROUNDS):
        plain.append(_micros(lambda body: respond_all(recommender, [body]), bodies))
        counted.append(_micros(lambda body: watched([body]), bodies))
    answer = _micros(lambda body: respond_all(real, [body]), bodies)
    tell, lines = _tell(metrics, watched, bodies)
    Watched(recommender, scraped)(bodies)
    scrapes = [_micros(lambda _: scraped.show(None), [b""]) for _ in range(ROUNDS)]  # type: ignore[arg-type]
    figures = {
        "a real answer without reasons, us": answer,
        "a replayed answer without metrics, us": median(plain),
        "a replayed answer with metrics, us": median(counted),
        "what metrics add to a request, us": median(counted) - median(plain),
        "telling TorchServe what changed, every five seconds, ms": tell,
        "lines of it": float(lines),
        "a scrape of the ASGI shell, ms": median(scrapes) / 1000,
    }
    return {name: round(figure, 1) for name, figure in figures.items()}


def _requests(recommender: Recommender, histories: Sequence[Any]) -> list[dict[str, Any]]:
    ids = recommender.catalogue.item_ids
    return [
        {"history": [ids[uid - 1] for uid in history.tolist()], "explain": False}
        for history in histories[:REQUESTS]
    ]


def _micros(call: Callable[[bytes], object], bodies: list[bytes]) -> float:
    started = time.perf_counter()
    for body in bodies:
        call(body)
    return (time.perf_counter() - started) / len(bodies) * 1e6


def _tell(metrics: Metrics, watched: Watched, bodies: list[bytes]) -> tuple[float, int]:
    """Milliseconds and lines of what a worker's thread does every five seconds."""
    logging.basicConfig(filename=os.devnull, level=logging.INFO, force=True)
    cache = MetricsCacheYamlImpl(str(Path(serving.__path__[0]) / "metrics.yaml"))
    cache.initialize_cache()
    front = FrontEnd(metrics.registry, SimpleNamespace(metrics=cache))
    times, lines = [], 0
    for _ in range(ROUNDS):
        watched(bodies)
        started = time.perf_counter()
        lines = front.tell()
        times.append(time.perf_counter() - started)
    return median(times) * 1000, lines


if __name__ == "__main__":
    app()
