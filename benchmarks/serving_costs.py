"""Where an answer's milliseconds go, what thinking costs, and what smaller weights would save.

    python -m benchmarks.serving_costs --data PATH/amazon2014/Beauty

In process, one thread, the release of `benchmarks.serving_speed`. Parts are timed by wrapping the functions
that do them, one request at a time; variants take turns, and ratios are taken within a round. Weights of the
act head are what an answer reads most of: they are tried in float64 (what is served), float32, bfloat16 and
int8 (torch's dynamic quantisation), each with the seconds of 100 scorings and the NDCG@10 of test items.
Written to benchmarks/results/speed/serving_costs.json.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any
from unittest.mock import patch

import numpy as np
import orjson
import torch
import typer
from torch import Tensor, nn

from benchmarks.data import load_dataset
from benchmarks.inference import spread
from benchmarks.machine import machine
from benchmarks.serving_release import made
from benchmarks.sheets import Sheet
from car_model.bundle import Bundle
from car_model.data.histories import Histories
from car_model.metrics.ranking import mask_histories, per_user, ranks_of
from car_model.recommender.recommender import Recommender
from car_model.recommender.scorer import Scorer
from serving.answering import answer as answering
from serving.answering.answer import respond

OUTPUT = Path("benchmarks/results/speed/serving_costs.json")
THINK_SCALE = 0.1  # validation chooses 0 on some sets, where thinking costs nothing at all
USERS = 2000
PARTS = {
    "bytes to JSON": (answering, "parse_body"),
    "JSON to a request": (Recommender, "_asked"),
    "history to state": (None, "states"),
    "scores of all items": (None, "scores"),
    "masking and the best ten": (Recommender, "_best"),
    "what the history would be without items": (None, "without"),
    "reasons": (None, "explain"),
    "answer to bytes": (answering, "_said"),
}

app = typer.Typer(add_completion=False)


@app.command()
def main(
    data: Annotated[str, typer.Option(help="movielens, or an Amazon 2014 set's folder")],
    rounds: int = 5,
    output: Path = OUTPUT,
) -> None:
    """Measure, print and write."""
    torch.set_num_threads(1)
    release = made(data)
    bundle = Bundle.load(release.bundle)
    bodies = [json.dumps({"history": one, "k": 10}).encode() for one in release.histories]
    histories = load_dataset(data).histories(bundle.catalogue.uids)
    found = {
        **{"machine": machine(), "data": release.name, "items": release.items, "rounds": rounds},
        "parts": parts(Recommender(bundle), bodies, rounds),
        "parsing": parsing(bodies),
        "thinking": thinking(bundle, release.histories, rounds),
        "weights": weights(bundle, histories, rounds),
    }
    output.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    for sheet in sheets(found):
        sheet.print()


def parts(recommender: Recommender, bodies: list[bytes], rounds: int) -> dict[str, float]:
    """Median milliseconds of each part of an answer with reasons, and of the whole."""
    owners = {
        **{"states": recommender._reader, "scores": recommender._scorer},
        **{"without": recommender._reader, "explain": recommender._explainer},
    }
    spent: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for body in bodies:
            taken: dict[str, float] = dict.fromkeys(PARTS, 0.0)
            with wrapped(owners, taken):
                start = time.perf_counter()
                respond(recommender, body)
                whole = time.perf_counter() - start
            for name, took in {**taken, "the rest": whole - sum(taken.values()), "all": whole}.items():
                spent[name].append(took)
    return {name: 1000 * median(took) for name, took in spent.items()}


@contextmanager
def wrapped(owners: dict[str, Any], taken: dict[str, float]) -> Iterator[None]:
    """Time the functions of PARTS while this lasts."""
    patches = []
    busy: list[str] = []  # parts under way, the outermost first
    for part, (owner, name) in PARTS.items():
        target = owner or owners[name]
        patches.append(patch.object(target, name, timing(getattr(target, name), part, taken, busy)))
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()


def timing(
    work: Callable[..., Any], part: str, taken: dict[str, float], busy: list[str]
) -> Callable[..., Any]:
    """The same function, its seconds added up; within another part they are that part's."""

    def timed(*given: Any, **named: Any) -> Any:
        busy.append(part)
        start = time.perf_counter()
        try:
            return work(*given, **named)
        finally:
            busy.pop()
            if not busy:
                taken[part] += time.perf_counter() - start

    return timed


def parsing(bodies: list[bytes]) -> dict[str, float]:
    """Median microseconds to read a body: with every check, by json alone and by orjson alone."""
    ways: dict[str, Callable[[bytes], Any]] = {
        **{"checked": answering.parse_body, "json": json.loads, "orjson": orjson.loads}
    }
    return {
        name: 1e6 * median(seconds(partial(read, body)) for body in bodies) for name, read in ways.items()
    }


def thinking(bundle: Bundle, histories: list[list[str]], rounds: int) -> dict[str, Any]:
    """An answer without reasons at thinking 4 against 0, where thinking has a weight."""
    recommender = Recommender(replace(bundle, think_scale=THINK_SCALE))
    ratios = []
    for _ in range(rounds):
        spent = {
            depth: median(
                seconds(lambda: recommender.answer({"history": one, "explain": False, "thinking": depth}))  # noqa: B023
                for one in histories
            )
            for depth in (0, recommender.levels)
        }
        ratios.append(spent[recommender.levels] / spent[0])
    return {"ratio": spread(np.array(ratios)), "fast_ms": 1000 * spent[0]}


def weights(bundle: Bundle, data: Histories, rounds: int) -> dict[str, Any]:
    """Each way to hold the act head: its MiB, seconds of scoring against float64's, and NDCG@10."""
    chosen = [at for at in range(len(data.users)) if data.test[at]][:USERS]
    prompts = [data.before("test")[at] for at in chosen]
    recommender = Recommender(bundle)
    with torch.inference_mode():
        states = torch.cat(
            [recommender._reader.states(prompts[at : at + 100]) for at in range(0, USERS, 100)]
        )
    ways = scorers(bundle)
    spent: dict[str, list[float]] = defaultdict(list)
    with torch.inference_mode():
        for _ in range(rounds + 1):
            for name, (score, _) in ways.items():
                spent[name].append(seconds(lambda: [score(state[None]) for state in states[:100]]))  # noqa: B023
        base = np.array(spent["float64"][1:])
        return {
            name: {
                "mib": size / 2**20,
                "ratio": spread(np.array(spent[name][1:]) / base),
                "ndcg@10": quality(score, states, prompts, data.test[chosen]),
            }
            for name, (score, size) in ways.items()
        }


def scorers(bundle: Bundle) -> dict[str, tuple[Callable[[Tensor], Tensor], int]]:
    """By name: logits of all items from states [B, D] float64, and the bytes of the rows."""
    rows = Scorer(bundle.model, 0.0, torch.float64)
    found: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {}
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        weight, bias = rows.rows.to(dtype), rows.bias.to(dtype)
        found[str(dtype).removeprefix("torch.")] = (
            lambda states, weight=weight, bias=bias: torch.addmm(bias, states.to(weight.dtype), weight.T),  # type: ignore[misc]
            weight.numel() * weight.element_size(),
        )
    linear = nn.Linear(rows.rows.shape[1], rows.rows.shape[0])
    with torch.no_grad():
        linear.weight.copy_(rows.rows)
        linear.bias.copy_(rows.bias.clamp(min=-1e4))  # the padding's is minus infinity
    small = torch.ao.quantization.quantize_dynamic(nn.Sequential(linear), {nn.Linear}, dtype=torch.qint8)
    found["int8"] = (lambda states: small(states.float()), rows.rows.numel())
    return found


def quality(
    score: Callable[[Tensor], Tensor], states: Tensor, prompts: list[np.ndarray], targets: np.ndarray
) -> float:
    """NDCG@10 of the act head alone, history masked."""
    ranks = []
    for at in range(0, len(prompts), 100):
        scores = mask_histories(score(states[at : at + 100]).float(), prompts[at : at + 100])
        ranks.append(ranks_of(scores.numpy(), targets[at : at + 100]))
    return float(per_user(np.concatenate(ranks))["ndcg@10"].mean())


def seconds(work: Callable[[], Any]) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def sheets(found: dict[str, Any]) -> list[Sheet]:
    """Parts, parsing, thinking and weights."""
    told, name = found["parts"], f"{found['data']}, {found['items']:,} items"
    lines = [*PARTS, "the rest", "all"]
    rows = [[part, f"{told[part]:.2f}", f"{told[part] / told['all']:.0%}"] for part in lines]
    read = found["parsing"]
    ways = [[way, f"{read[way]:.0f}", f"{read[way] / 1000 / told['all']:.1%}"] for way in read]
    ratio = found["thinking"]["ratio"]
    depth = [[f"{ratio['median']:.2f} x", f"{ratio['min']:.2f} to {ratio['max']:.2f}"]]
    kinds = [
        [way, f"{one['mib']:.1f}", f"{one['ratio']['median']:.2f} x", f"{one['ndcg@10']:.4f}"]
        for way, one in found["weights"].items()
    ]
    return [
        Sheet(
            f"Where the milliseconds of an answer with reasons go: {name}",
            ["part", "ms (median)", "of all"],
            rows,
        ),
        Sheet("Reading a body", ["way", "microseconds", "of an answer with reasons"], ways),
        Sheet(f"Thinking 4 against 0, weight {THINK_SCALE}, no reasons", ["time", "range"], depth),
        Sheet("Weights of the act head", ["held in", "MiB", "time to score", "NDCG@10, act alone"], kinds),
    ]


if __name__ == "__main__":
    app()
