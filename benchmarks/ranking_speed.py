"""What not interleaving saves: training time and memory of AttnLFA and AttnMVP against interleaving.

    python -m benchmarks.ranking_speed

Equal width, depth, items a batch and budget. An epoch is timed over MovieLens' histories, cut to windows of
at most 50, 200 or 800 items, and over random histories of exactly that length, where nothing but the length
grows. A round times one epoch of every architecture in an order drawn anew; ratios are taken within a round.
Peak memory is that of a fresh process that trains one epoch, over what the process holds before. Written to
benchmarks/results/speed/ranking.json.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from tqdm import tqdm

from benchmarks.datasets.load import load_dataset, tokens
from benchmarks.inference import spread
from benchmarks.report.machine import machine, peak_memory
from benchmarks.report.ranking_tables import TITLES
from benchmarks.report.table import Sheet
from car_model.action_ranker.data import ActionHistories, action_histories, training_batches
from car_model.action_ranker.model import ARCHITECTURES, ActionRanker, Architecture, RankerConfig
from car_model.training.distributed import device
from car_model.training.trainer import autocast

OUTPUT = Path("benchmarks/results/speed/ranking.json")
HISTORIES = (50, 200, 800)
WIDTH, LAYERS, HEADS, DROPOUT = 64, 2, 2, 0.2
ITEMS_A_BATCH, RANDOM_ITEMS = 3200, 32_000
LIKED = 4.0
GOALS = {"lfa": -0.23, "mvp": -0.12}  # the paper's differences in training time
REAL, RANDOM = "MovieLens", "random histories of full length"

app = typer.Typer(add_completion=False)


@app.command()
def main(rounds: int = 5, threads: int = 1, output: Path = OUTPUT) -> None:
    """Time and weigh all architectures at all lengths, print the tables, write the figures."""
    torch.set_num_threads(threads)
    dataset = load_dataset("movielens")
    made = tokens(dataset)
    real = action_histories(dataset.interactions, made.catalogue.uids, LIKED)
    sids, codes = torch.from_numpy(made.catalogue.sid_table), made.codes
    figures = []
    for name, history in product((REAL, RANDOM), HISTORIES):
        data = real if name == REAL else random_histories(history, made.catalogue.size)
        taken = measure(data, sids, codes, history, rounds)
        for architecture in ARCHITECTURES:
            memory = held(architecture, data, sids, codes, history)
            told = {"data": name, "history": history, "architecture": architecture, "memory": memory}
            figures.append(told | ratios(taken, architecture))
    found = {
        **{"machine": machine(), "rounds": rounds, "items_a_batch": ITEMS_A_BATCH},
        **{"width": WIDTH, "layers": LAYERS, "figures": figures},
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    for sheet in sheets(found):
        sheet.print()


def random_histories(history: int, items: int) -> ActionHistories:
    """Users of exactly `history` random items with random likes, all to be trained on."""
    rng, users = np.random.default_rng(0), RANDOM_ITEMS // history
    return ActionHistories(
        [str(user) for user in range(users)],
        [rng.integers(1, items + 1, history) for _ in range(users)],
        [rng.integers(1, 3, history) for _ in range(users)],
        [np.zeros(history, dtype=np.int8) for _ in range(users)],
    )


def build(architecture: Architecture, sids: torch.Tensor, codes: int, history: int) -> ActionRanker:
    """An untrained ranker over a SID table [I + 1, L]."""
    torch.manual_seed(0)
    sizes = (len(sids) - 1, sids.shape[1], codes, LIKED, architecture)
    config = RankerConfig(*sizes, WIDTH, LAYERS, HEADS, history, DROPOUT)
    return ActionRanker(config, sids).to(device()).train()


def measure(
    data: ActionHistories, sids: torch.Tensor, codes: int, history: int, rounds: int
) -> dict[Architecture, np.ndarray]:
    """Seconds of an epoch of each architecture, [rounds], after an epoch that warms up."""
    models = {name: build(name, sids, codes, history) for name in ARCHITECTURES}
    steps = {name: torch.optim.AdamW(model.parameters(), fused=True) for name, model in models.items()}
    order = np.random.default_rng(0)
    taken: dict[Architecture, list[float]] = {name: [] for name in ARCHITECTURES}
    for number in tqdm(range(rounds + 1), desc=f"history {history}", unit="round"):
        for at in order.permutation(len(ARCHITECTURES)):
            name = ARCHITECTURES[at]
            seconds = epoch(models[name], steps[name], data, number)
            taken[name] += [seconds] if number else []
    return {name: np.array(seconds) for name, seconds in taken.items()}


def epoch(model: ActionRanker, optimizer: torch.optim.Optimizer, data: ActionHistories, number: int) -> float:
    """Train one epoch; returns its seconds."""
    history, where, start = model.config.max_history, device(), time.perf_counter()
    size = max(1, ITEMS_A_BATCH // history)
    for batch in training_batches(data, history, size, np.random.default_rng(number)):
        with autocast(where, "auto"):
            loss = model.loss(*(part.to(where) for part in batch[:3]))["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    if where.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def held(
    architecture: Architecture, data: ActionHistories, sids: torch.Tensor, codes: int, history: int
) -> float:
    """Peak memory of an epoch in a fresh process over what it holds before, MiB; on a GPU the card's."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh) as pool:
        return pool.submit(_held, architecture, data, sids, codes, history).result()


def _held(
    architecture: Architecture, data: ActionHistories, sids: torch.Tensor, codes: int, history: int
) -> float:
    torch.set_num_threads(1)
    model = build(architecture, sids, codes, history)
    before = peak_memory()
    epoch(model, torch.optim.AdamW(model.parameters(), fused=True), data, 0)
    return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else peak_memory() - before


def ratios(taken: dict[Architecture, np.ndarray], architecture: Architecture) -> dict[str, Any]:
    """Seconds an epoch, and against the interleaved baseline's of the same round."""
    return {
        "seconds": spread(taken[architecture]),
        "ratio": spread(taken[architecture] / taken["interleaved"]),
    }


def sheets(found: dict[str, Any]) -> list[Sheet]:
    """A table for each kind of histories."""
    made = []
    columns = ["history, model", "s an epoch", "time against interleaved", "range over rounds", "paper"]
    columns += ["memory, MiB", "memory against interleaved"]
    for name in (REAL, RANDOM):
        rows = [row for row in found["figures"] if row["data"] == name]
        base = {row["history"]: row for row in rows if row["architecture"] == "interleaved"}
        title = (
            f"Training rankers on {name}: {found['rounds']} rounds, {found['items_a_batch']:,} items a batch"
        )
        made.append(Sheet(title, columns, [_line(row, base[row["history"]]) for row in rows]))
    return made


def _line(row: dict[str, Any], base: dict[str, Any]) -> list[str]:
    first, ratio = row is base, row["ratio"]
    return [
        f"{row['history']}, {TITLES[row['architecture']]}",
        f"{row['seconds']['median']:.2f}",
        "" if first else f"{ratio['median'] - 1:+.0%}",
        "" if first else f"{ratio['min'] - 1:+.0%} to {ratio['max'] - 1:+.0%}",
        "" if first else f"{GOALS[row['architecture']]:+.0%}",
        f"{row['memory']:.0f}",
        "" if first else f"{row['memory'] / base['memory'] - 1:+.0%}",
    ]


if __name__ == "__main__":
    app()
