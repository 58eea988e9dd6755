"""Print what not interleaving saves: training time and memory of AttnLFA and AttnMVP against interleaving.

    python -m benchmarks.ranking_speed

Equal width, depth and items per batch. An epoch is timed over MovieLens' histories, cut to at most 50, 200 or
800 items, and over random histories of exactly that length, in which nothing but the length grows. A round
times one epoch of every architecture in a new random order, and ratios are taken within a round. Peak memory
is that of a fresh process that trains one epoch, minus what the process held before. About 5 minutes. Written
to benchmarks/results/ranking_speed.csv.
"""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
import typer
from tqdm import tqdm

from benchmarks.datasets.load import load_dataset, tokens
from benchmarks.report.machine import machine, peak_memory
from benchmarks.report.ranking_tables import BASELINE, TITLES
from benchmarks.report.rows import Range, Row, write_rows
from benchmarks.report.table import Table
from car_model.action_ranker.data import ActionHistories, action_histories, training_batches
from car_model.action_ranker.model import ARCHITECTURES, ActionRanker, Architecture, RankerConfig
from car_model.training.distributed import device
from car_model.training.trainer import autocast

OUTPUT = Path("benchmarks/results/ranking_speed.csv")
HISTORIES = (50, 200, 800)
D_MODEL, N_LAYERS, N_HEADS, DROPOUT = 64, 2, 2, 0.2
ITEMS_PER_BATCH, RANDOM_ITEMS = 3200, 32_000
LIKED = 4.0  # the lowest rating that counts as liked
PAPER = {"lfa": -0.23, "mvp": -0.12}  # the paper's differences in training time
REAL, RANDOM = "MovieLens", "random histories of full length"

app = typer.Typer(add_completion=False)


class RankingSpeedRow(Row):
    """Time and memory of one architecture at one length of histories."""

    machine: str
    rounds: int
    items_per_batch: int
    d_model: int
    n_layers: int
    histories: str
    max_history: int
    architecture: str
    seconds: Range
    """Seconds per epoch."""
    ratio: Range
    """Time over that of the interleaved baseline in the same round."""
    memory_mib: float
    """Peak memory of an epoch; on a GPU, of the GPU."""


@dataclass(frozen=True)
class Workload:
    """What all architectures are trained on."""

    histories: ActionHistories
    sids: torch.Tensor  # [I + 1, L]
    codebook_size: int
    max_history: int


@app.command()
def main(rounds: int = 5, threads: int = 1) -> None:
    """Measure all architectures at all lengths and print the tables."""
    torch.set_num_threads(threads)
    dataset = load_dataset("movielens")
    items = tokens(dataset)
    real = action_histories(dataset.interactions, items.catalogue.uids, LIKED)
    rows = []
    for name, length in product((REAL, RANDOM), HISTORIES):
        histories = real if name == REAL else random_histories(length, items.catalogue.size)
        sids = torch.from_numpy(items.catalogue.sid_table)
        work = Workload(histories, sids, items.codebook_size, length)
        seconds = measure_time(work, rounds)
        for architecture in ARCHITECTURES:
            rows.append(
                RankingSpeedRow(
                    machine=machine(),
                    rounds=rounds,
                    items_per_batch=ITEMS_PER_BATCH,
                    d_model=D_MODEL,
                    n_layers=N_LAYERS,
                    histories=name,
                    max_history=length,
                    architecture=architecture,
                    seconds=Range.of(seconds[architecture].tolist()),
                    ratio=ratio(seconds, architecture),
                    memory_mib=measure_memory(work, architecture),
                )
            )
    write_rows(OUTPUT, rows)
    for table in tables(rows):
        table.print()


def random_histories(length: int, n_items: int) -> ActionHistories:
    """Users of exactly `length` random items with random likes, all for training."""
    rng, users = np.random.default_rng(0), RANDOM_ITEMS // length
    return ActionHistories(
        [str(user) for user in range(users)],
        [rng.integers(1, n_items + 1, length) for _ in range(users)],
        [rng.integers(1, 3, length) for _ in range(users)],
        [np.zeros(length, dtype=np.int8) for _ in range(users)],
    )


def untrained_ranker(architecture: Architecture, work: Workload) -> ActionRanker:
    """A ranker with random weights (seed 0)."""
    torch.manual_seed(0)
    config = RankerConfig(
        n_items=len(work.sids) - 1,
        n_levels=work.sids.shape[1],
        codebook_size=work.codebook_size,
        liked=LIKED,
        architecture=architecture,
        d_model=D_MODEL,
        n_layers=N_LAYERS,
        n_heads=N_HEADS,
        max_history=work.max_history,
        dropout=DROPOUT,
    )
    return ActionRanker(config, work.sids).to(device()).train()


def measure_time(work: Workload, rounds: int) -> dict[Architecture, np.ndarray]:
    """Seconds per epoch of each architecture, [rounds], after a warm-up epoch."""
    models = {name: untrained_ranker(name, work) for name in ARCHITECTURES}
    optimizers = {name: torch.optim.AdamW(model.parameters(), fused=True) for name, model in models.items()}
    order = np.random.default_rng(0)
    seconds: dict[Architecture, list[float]] = {name: [] for name in ARCHITECTURES}
    for number in tqdm(range(rounds + 1), desc=f"history {work.max_history}", unit="round"):
        for i in order.permutation(len(ARCHITECTURES)):
            name = ARCHITECTURES[i]
            elapsed = train_epoch(models[name], optimizers[name], work.histories, number)
            seconds[name] += [elapsed] if number else []
    return {name: np.array(values) for name, values in seconds.items()}


def train_epoch(
    model: ActionRanker, optimizer: torch.optim.Optimizer, histories: ActionHistories, number: int
) -> float:
    """Train one epoch and return its seconds."""
    length, start = model.config.max_history, time.perf_counter()
    batch_size = max(1, ITEMS_PER_BATCH // length)
    for batch in training_batches(histories, length, batch_size, np.random.default_rng(number)):
        with autocast(device(), "auto"):
            loss = model.loss(*(part.to(device()) for part in batch[:3]))["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    if device().type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure_memory(work: Workload, architecture: Architecture) -> float:
    """Peak memory of an epoch in MiB, measured in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak_of_epoch, work, architecture).result()


def _peak_of_epoch(work: Workload, architecture: Architecture) -> float:
    torch.set_num_threads(1)
    model = untrained_ranker(architecture, work)
    before = peak_memory()
    train_epoch(model, torch.optim.AdamW(model.parameters(), fused=True), work.histories, 0)
    return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else peak_memory() - before


def ratio(seconds: dict[Architecture, np.ndarray], architecture: Architecture) -> Range:
    """Time over the interleaved baseline's in the same round."""
    return Range.of((seconds[architecture] / seconds["interleaved"]).tolist())


def tables(rows: list[RankingSpeedRow]) -> list[Table]:
    """One table per kind of histories."""
    columns = ["history, model", "s per epoch", "time against interleaved", "range over rounds", "paper"]
    columns += ["memory, MiB", "memory against interleaved"]
    result = []
    for kind in dict.fromkeys(row.histories for row in rows):
        group = [row for row in rows if row.histories == kind]
        baseline = {row.max_history: row for row in group if row.architecture == BASELINE}
        cells = []
        for row in group:
            line = [f"{row.max_history}, {TITLES[row.architecture]}", f"{row.seconds.median:.2f}"]
            if row.architecture == BASELINE:
                line += ["", "", "", f"{row.memory_mib:.0f}", ""]
            else:
                memory = row.memory_mib / baseline[row.max_history].memory_mib - 1
                line += [
                    f"{row.ratio.median - 1:+.0%}",
                    f"{row.ratio.min - 1:+.0%} to {row.ratio.max - 1:+.0%}",
                    f"{PAPER[row.architecture]:+.0%}",
                    f"{row.memory_mib:.0f}",
                    f"{memory:+.0%}",
                ]
            cells.append(line)
        sizes = f"{rows[0].rounds} rounds, {rows[0].items_per_batch:,} items per batch"
        title = f"Training rankers on {kind}: {sizes}"
        result.append(Table(title, columns, cells))
    return result


if __name__ == "__main__":
    app()
