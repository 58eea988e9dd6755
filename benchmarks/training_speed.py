"""Training speed: CAR here against the same CAR on Hugging Face's GPT-2, rung by rung.

    python -m benchmarks.training_speed --data-dir PATH/amazon2014/Beauty
    python -m benchmarks.training_speed --data-dir PATH/amazon2014/Beauty --fill    # how busy a GPU is

One process; equal weights, sizes, batch size and optimiser; real histories and SIDs. Each rung changes one
thing, so that the table tells where the factor comes from. A round times some training steps of every
variant, in an order drawn anew; ratios are taken within a round, so that what else the machine does falls
on all alike. The figure is predicted items (targets) a second.

Written to benchmarks/results/speed/training.json, with --fill to mfu.json beside it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import typer
from torch import Tensor
from tqdm import tqdm

from benchmarks import mfu
from benchmarks.datasets.load import load_dataset, tokens
from benchmarks.inference import spread
from benchmarks.mfu import fill
from benchmarks.models.huggingface import HuggingFaceCAR
from benchmarks.report.machine import machine
from benchmarks.report.table import Sheet
from car_model.data.histories import batches
from car_model.models.car import CAR, CARConfig, Layout
from car_model.training.trainer import Precision, autocast, device

OUTPUT = Path("benchmarks/results/speed/training.json")
FILL_OUTPUT = Path("benchmarks/results/speed/mfu.json")
SIZES: dict[str, Any] = {"d_model": 64, "n_layers": 2, "n_heads": 2, "max_history": 50, "dropout": 0.2}
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
BATCH = 128
THREADS = (1, 2)  # on a CPU

Batch = tuple[Tensor, Tensor]  # inputs and targets, [B, T] UIDs
Order = Literal["random", "by length"]
Trainable = CAR | HuggingFaceCAR
app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Variant:
    """One way to train: its name in the table, the order of its batches, the model from fresh weights."""

    name: str
    order: Order
    build: Callable[[Callable[[Layout], CAR]], Trainable]


VARIANTS = (
    Variant(
        "GPT2Model, padded to 50 chunks", "random", lambda car: HuggingFaceCAR(car("full"), "history", True)
    ),
    Variant(
        "padded to the batch's longest", "random", lambda car: HuggingFaceCAR(car("full"), "longest", True)
    ),
    Variant(
        "and logits of targets only", "random", lambda car: HuggingFaceCAR(car("full"), "longest", False)
    ),
    Variant("and batches by length", "by length", lambda car: HuggingFaceCAR(car("full"), "longest", False)),
    Variant("CAR, full layout", "random", lambda car: car("full")),
    Variant("CAR, full layout, batches by length", "by length", lambda car: car("full")),
    Variant(
        "GPT2Model, collapsed, targets only",
        "random",
        lambda car: HuggingFaceCAR(car("collapsed"), "longest", False),
    ),
    Variant("CAR, collapsed layout", "random", lambda car: car("collapsed")),
    Variant("CAR, collapsed layout, batches by length", "by length", lambda car: car("collapsed")),
)


@dataclass
class Cell:
    """A variant at a precision and a number of threads, with its model in training."""

    variant: Variant
    precision: Precision
    threads: int
    model: Trainable
    optimizer: torch.optim.Optimizer

    def run(self, steps: list[Batch]) -> float:
        """Targets a second over some training steps."""
        where = next(self.model.parameters()).device
        torch.set_num_threads(self.threads)
        _wait(where)
        start = time.perf_counter()
        for inputs, targets in steps:
            with autocast(where, self.precision):
                loss = self.model.loss(inputs.to(where), targets.to(where))["loss"]
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        _wait(where)
        return sum(int((targets != 0).sum()) for _, targets in steps) / (time.perf_counter() - start)


@app.command()
def main(
    data_dir: str = typer.Option(..., help="the Amazon 2014 set's folder"),
    rounds: int = 5,
    steps: int = 4,
    *,
    seed: int = 0,
    filled: bool = typer.Option(False, "--fill", help="only: share of a GPU's peak at a size that fills it"),
    output: Path = OUTPUT,
) -> None:
    """Time all variants, print the table, write the figures."""
    dataset = load_dataset(data_dir)
    made = tokens(dataset)
    sids = torch.from_numpy(made.catalogue.sid_table)
    if filled:
        _write(fill(sids, made.codes), FILL_OUTPUT, mfu.sheets)
        return
    data = dataset.histories(made.catalogue.uids)
    orders: tuple[Order, ...] = ("random", "by length")
    work = {order: sample(data.train, order, steps, seed) for order in orders}
    cells = build(sids, made.codes, seed)
    rates = measure(cells, work, rounds, seed)
    found = {
        **{"dataset": dataset.report.name, "items": made.catalogue.size, "codes": made.codes},
        **{"levels": sids.shape[1], "sizes": SIZES, "batch": BATCH, "rounds": rounds, "steps": steps},
        **{"machine": machine(), "figures": summarise(cells, rates)},
    }
    _write(found, output, sheets)


def _write(found: dict[str, Any], output: Path, tables: Callable[[dict[str, Any]], list[Sheet]]) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    for sheet in tables(found):
        sheet.print()


def sample(train: list[np.ndarray], order: Order, steps: int, seed: int) -> list[Batch]:
    """Some of an epoch's batches; of those by length, evenly from the shortest to the longest."""
    epoch = list(
        batches(train, SIZES["max_history"], BATCH, np.random.default_rng(seed), order == "by length")
    )
    whole = [batch for batch in epoch if len(batch[0]) == BATCH] or epoch
    if order == "by length":
        whole.sort(key=lambda batch: batch[0].shape[1])
        places = (np.arange(steps) + 0.5) * len(whole) / steps
        return [whole[int(at)] for at in places]
    return whole[:steps]


def build(sids: Tensor, codes: int, seed: int) -> list[Cell]:
    """Every variant at every precision and number of threads, from equal weights."""
    where = device()
    threads = THREADS if where.type == "cpu" else (1,)

    def car(layout: Layout) -> CAR:
        torch.manual_seed(seed)
        return CAR(CARConfig(len(sids) - 1, sids.shape[1], codes, layout=layout, **SIZES), sids)

    cells = []
    for variant, precision, count in product(VARIANTS, PRECISIONS, threads):
        model = variant.build(car).to(where).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98), fused=True)
        cells.append(Cell(variant, precision, count, model, optimizer))
    return cells


def measure(cells: list[Cell], work: dict[Order, list[Batch]], rounds: int, seed: int) -> np.ndarray:
    """Targets a second, [rounds, cells]."""
    dice = np.random.default_rng(seed)
    rates = np.zeros((rounds, len(cells)))
    before = torch.get_num_threads()
    for cell in tqdm(cells, desc="warm up", unit="variant"):
        cell.run(work[cell.variant.order][:1])
    with tqdm(total=rounds * len(cells), desc="train", unit="variant") as bar:
        for turn in range(rounds):
            for at in dice.permutation(len(cells)):
                rates[turn, at] = cells[at].run(work[cells[at].variant.order])
                bar.update()
    torch.set_num_threads(before)
    return rates


def summarise(cells: list[Cell], rates: np.ndarray) -> list[dict[str, Any]]:
    """A row of figures a cell; ratios are to the first variant at the same precision and threads."""
    first = {
        (cell.precision, cell.threads): at
        for at, cell in enumerate(cells)
        if cell.variant.name == VARIANTS[0].name
    }
    return [
        {
            **{"variant": cell.variant.name, "order": cell.variant.order},
            **{"precision": cell.precision, "threads": cell.threads},
            "targets_a_second": spread(rates[:, at]),
            "ratio": spread(rates[:, at] / rates[:, first[cell.precision, cell.threads]]),
        }
        for at, cell in enumerate(cells)
    ]


def sheets(found: dict[str, Any]) -> list[Sheet]:
    """A table a number of threads: items a second and the factor over the first row, in both precisions."""
    made = []
    columns = ["variant"] + [
        f"{name}, {kind}" for kind in PRECISIONS for name in ("items a second", "x first row")
    ]
    for threads in sorted({row["threads"] for row in found["figures"]}):
        named: dict[str, list[str]] = {}
        for row in (row for row in found["figures"] if row["threads"] == threads):
            cells = [_ranged(row["targets_a_second"], "{:.0f}"), _ranged(row["ratio"], "{:.2f}")]
            named.setdefault(row["variant"], []).extend(cells)
        title = f"Training on {found['dataset']}, {threads} thread{'s' * (threads > 1)}"
        rows = [[name, *cells] for name, cells in named.items()]
        made.append(Sheet(f"{title}: median (min-max) of {found['rounds']} rounds", columns, rows))
    return made


def _ranged(values: dict[str, float], form: str) -> str:
    median, least, most = (form.format(values[name]) for name in ("median", "min", "max"))
    return f"{median} ({least}-{most})"


def _wait(where: torch.device) -> None:
    if where.type == "cuda":
        torch.cuda.synchronize(where)


if __name__ == "__main__":
    app()
