"""Print trained items per second: CAR here against the same CAR on Hugging Face's GPT-2, rung by rung.

    python -m benchmarks.training_speed --data PATH/amazon2014/Beauty
    python -m benchmarks.training_speed --data PATH/amazon2014/Beauty --gpu    # share of a GPU's peak

One process; equal weights, sizes, batch size and optimiser; real histories and SIDs. Each rung changes one
thing, so that the table shows where the factor comes from. A round times some training steps of every variant
in a new random order, and ratios are taken within a round, so that other load on the machine falls on all
alike. About 20 minutes on two cores. Written to benchmarks/results/training.csv, with --gpu to
gpu_utilisation.csv.

With --gpu the model and batch are large enough to fill a GPU. Counted are 6 FLOPs per weight and token for
the products of a forward and a backward pass, and those of attention and both heads (Chowdhery et al. 2022,
PaLM, appendix B). Lookups, norms, the softmax and the optimiser count as time, not as work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import typer
from torch import Tensor
from tqdm import tqdm

from benchmarks.datasets.load import load_dataset, tokens
from benchmarks.models.huggingface import HuggingFaceCAR
from benchmarks.report.machine import machine
from benchmarks.report.rows import Range, Row, write_rows
from benchmarks.report.table import Table
from car_model.data.histories import batches
from car_model.models.car import CAR, CARConfig, Layout
from car_model.training.trainer import Precision, autocast, device

OUTPUT = Path("benchmarks/results/training.csv")
GPU_OUTPUT = Path("benchmarks/results/gpu_utilisation.csv")
SIZES: dict[str, Any] = {"d_model": 64, "n_layers": 2, "n_heads": 2, "max_history": 50, "dropout": 0.2}
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
BATCH = 128
THREADS = (1, 2)  # on a CPU
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bfloat16, by NVIDIA's data sheets

Batch = tuple[Tensor, Tensor]  # inputs and targets, [B, T] UIDs
Order = Literal["random", "by length"]
Trainable = CAR | HuggingFaceCAR
app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Variant:
    """One way to train: its name, the order of its batches, and the model from a maker of fresh CARs."""

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


class TrainingRow(Row):
    """The speed of one variant at a precision and a number of threads."""

    machine: str
    dataset: str
    n_items: int
    n_levels: int
    codebook_size: int
    sizes: dict[str, float]
    """Sizes and dropout of every model."""
    batch: int
    rounds: int
    steps: int
    """Training steps per round."""
    variant: str
    order: str
    precision: str
    threads: int
    targets_per_second: Range
    """Predicted items per second."""
    ratio: Range
    """Over the first variant at the same precision and threads."""


class GPURow(Row):
    """How much of a GPU's arithmetic one model uses."""

    machine: str
    n_layers: int
    d_model: int
    items: int
    """Items per step."""
    blocks: str
    """`eager` or `compiled`."""
    ms: float
    """Milliseconds per step."""
    items_per_second: float
    tflops: float
    share_of_peak: float | None = None
    """Model FLOPs utilisation; missing if the GPU's peak is not known."""
    gib: float | None = None
    """Peak memory of the GPU."""


@dataclass(frozen=True)
class GPUSizes:
    """A model and batch large enough to fill a data-centre GPU."""

    d_model: int = 1024
    n_layers: int = 12
    n_heads: int = 16
    max_history: int = 200
    batch: int = 256
    steps: int = 10


GPU_SIZES = (GPUSizes(), GPUSizes(d_model=2048, n_layers=8, batch=128))


@dataclass
class Cell:
    """A variant at a precision and a number of threads, with its model in training."""

    variant: Variant
    precision: Precision
    threads: int
    model: Trainable
    optimizer: torch.optim.Optimizer

    def run(self, steps: list[Batch]) -> float:
        """Targets per second over some training steps."""
        torch.set_num_threads(self.threads)
        synchronize()
        start = time.perf_counter()
        for inputs, targets in steps:
            with autocast(device(), self.precision):
                loss = self.model.loss(inputs.to(device()), targets.to(device()))["loss"]
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        synchronize()
        return sum(int((targets != 0).sum()) for _, targets in steps) / (time.perf_counter() - start)


@app.command()
def main(
    data: Annotated[str, typer.Option(help="movielens, or the folder of an Amazon 2014 data set.")],
    rounds: int = 5,
    steps: int = 4,
    *,
    seed: int = 0,
    gpu: Annotated[bool, typer.Option("--gpu", help="Measure only the share of a GPU's peak.")] = False,
) -> None:
    """Measure all variants and print the tables."""
    dataset = load_dataset(data)
    items = tokens(dataset)
    sids = torch.from_numpy(items.catalogue.sid_table)
    if gpu:
        gpu_rows = gpu_utilisation(sids, items.codebook_size)
        write_rows(GPU_OUTPUT, gpu_rows)
        gpu_table(gpu_rows).print()
        return
    histories = dataset.histories(items.catalogue.uids)
    orders: tuple[Order, ...] = ("random", "by length")
    work = {order: sample_batches(histories.train, order, steps, seed) for order in orders}
    cells = build_cells(sids, items.codebook_size, seed)
    rates = measure(cells, work, rounds, seed)
    rows = [
        TrainingRow(
            machine=machine(),
            dataset=dataset.report.name,
            n_items=items.catalogue.size,
            n_levels=sids.shape[1],
            codebook_size=items.codebook_size,
            sizes=SIZES,
            batch=BATCH,
            rounds=rounds,
            steps=steps,
            **speeds,
        )
        for speeds in summarise(cells, rates)
    ]
    write_rows(OUTPUT, rows)
    for table in tables(rows):
        table.print()


def sample_batches(train: list[np.ndarray], order: Order, steps: int, seed: int) -> list[Batch]:
    """Some of an epoch's batches; of those by length, evenly from the shortest to the longest."""
    epoch = list(
        batches(train, SIZES["max_history"], BATCH, np.random.default_rng(seed), order == "by length")
    )
    full = [batch for batch in epoch if len(batch[0]) == BATCH] or epoch
    if order == "by length":
        full.sort(key=lambda batch: batch[0].shape[1])
        positions = (np.arange(steps) + 0.5) * len(full) / steps
        return [full[int(i)] for i in positions]
    return full[:steps]


def build_cells(sids: Tensor, codebook_size: int, seed: int) -> list[Cell]:
    """Every variant at every precision and number of threads, from equal weights."""
    threads = THREADS if device().type == "cpu" else (1,)

    def car(layout: Layout) -> CAR:
        torch.manual_seed(seed)
        config = CARConfig(
            n_items=len(sids) - 1,
            n_levels=sids.shape[1],
            codebook_size=codebook_size,
            layout=layout,
            **SIZES,
        )
        return CAR(config, sids)

    cells = []
    for variant, precision, count in product(VARIANTS, PRECISIONS, threads):
        model = variant.build(car).to(device()).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98), fused=True)
        cells.append(Cell(variant, precision, count, model, optimizer))
    return cells


def measure(cells: list[Cell], work: dict[Order, list[Batch]], rounds: int, seed: int) -> np.ndarray:
    """Targets per second, [rounds, cells]."""
    rng = np.random.default_rng(seed)
    rates = np.zeros((rounds, len(cells)))
    threads = torch.get_num_threads()
    for cell in tqdm(cells, desc="warm up", unit="variant"):
        cell.run(work[cell.variant.order][:1])
    with tqdm(total=rounds * len(cells), desc="train", unit="variant") as bar:
        for number in range(rounds):
            for i in rng.permutation(len(cells)):
                rates[number, i] = cells[i].run(work[cells[i].variant.order])
                bar.update()
    torch.set_num_threads(threads)
    return rates


def summarise(cells: list[Cell], rates: np.ndarray) -> list[dict[str, Any]]:
    """Rates of each cell, and ratios to the first variant at the same precision and threads."""
    first = {
        (cell.precision, cell.threads): i
        for i, cell in enumerate(cells)
        if cell.variant.name == VARIANTS[0].name
    }
    return [
        {
            "variant": cell.variant.name,
            "order": cell.variant.order,
            "precision": cell.precision,
            "threads": cell.threads,
            "targets_per_second": Range.of(rates[:, i].tolist()),
            "ratio": Range.of((rates[:, i] / rates[:, first[cell.precision, cell.threads]]).tolist()),
        }
        for i, cell in enumerate(cells)
    ]


def tables(rows: Sequence[TrainingRow]) -> list[Table]:
    """One table per number of threads: items per second and the factor over the first row."""
    columns = ["variant"]
    for precision in PRECISIONS:
        columns += [f"items per second, {precision}", f"x first row, {precision}"]
    result = []
    for threads in sorted({row.threads for row in rows}):
        lines: dict[str, list[str]] = {}
        for row in (row for row in rows if row.threads == threads):
            cells = [row.targets_per_second.text("{:.0f}"), row.ratio.text("{:.2f}")]
            lines.setdefault(row.variant, []).extend(cells)
        title = (
            f"Training on {rows[0].dataset}, {threads} thread{'s' * (threads > 1)}: "
            f"median (min-max) of {rows[0].rounds} rounds"
        )
        result.append(Table(title, columns, [[name, *cells] for name, cells in lines.items()]))
    return result


def gpu_utilisation(sids: Tensor, codebook_size: int, every: Sequence[GPUSizes] = GPU_SIZES) -> list[GPURow]:
    """Train full histories of random items in bfloat16 and count FLOP/s, as written and compiled.

    Args:
        sids: [I + 1, L] codes by UID.
    """
    modes = (False, True) if device().type == "cuda" else (False,)
    return [measure_gpu(sids, codebook_size, sizes, compiled) for sizes in every for compiled in modes]


def measure_gpu(sids: Tensor, codebook_size: int, sizes: GPUSizes, compiled: bool) -> GPURow:
    """Rate, FLOP/s and memory of one model; on a CPU without a peak."""
    config = CARConfig(
        n_items=len(sids) - 1,
        n_levels=sids.shape[1],
        codebook_size=codebook_size,
        d_model=sizes.d_model,
        n_layers=sizes.n_layers,
        n_heads=sizes.n_heads,
        max_history=sizes.max_history,
    )
    torch.manual_seed(0)
    model = CAR(config, sids).to(device()).train()
    if compiled:
        for block in model.transformer.blocks:
            block.compile()
    on_gpu = device().type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = seconds_per_step(model, sizes)
    rate, items = step_flops(model, sizes) / seconds, sizes.batch * sizes.max_history
    card = torch.cuda.get_device_name() if on_gpu else ""
    peak = next((peak for name, peak in PEAK_FLOPS.items() if name in card), None)
    return GPURow(
        machine=machine(),
        n_layers=sizes.n_layers,
        d_model=sizes.d_model,
        items=items,
        blocks="compiled" if compiled else "eager",
        ms=1000 * seconds,
        items_per_second=items / seconds,
        tflops=rate / 1e12,
        share_of_peak=rate / peak if peak else None,
        gib=torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None,
    )


def step_flops(model: CAR, sizes: GPUSizes) -> float:
    """FLOPs of one step over full histories: layers, causal attention, both heads."""
    config = model.config
    items = sizes.batch * sizes.max_history
    n_tokens, length = items * config.slots, sizes.max_history * config.slots
    matrices = sum(p.numel() for p in model.transformer.blocks.parameters() if p.dim() == 2)
    # Attention takes two products over half of the positions, forward and twice backward.
    attention = 6 * config.n_layers * length * config.d_model
    heads = config.n_items + 1 + config.n_levels * config.codebook_size
    return n_tokens * (6.0 * matrices + attention) + 6.0 * items * config.d_model * heads


def seconds_per_step(model: CAR, sizes: GPUSizes) -> float:
    """Mean over the steps after two warm-up steps."""
    generator = torch.Generator().manual_seed(0)
    shape = (sizes.batch, sizes.max_history + 1)
    rows = torch.randint(1, model.config.n_items + 1, shape, generator=generator).to(device())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    start = 0.0
    for step in range(sizes.steps + 2):
        if step == 2:
            synchronize()
            start = time.perf_counter()
        with autocast(device(), "bfloat16"):
            loss = model.loss(rows[:, :-1], rows[:, 1:])["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    synchronize()
    return (time.perf_counter() - start) / sizes.steps


def gpu_table(rows: Sequence[GPURow]) -> Table:
    """One row per size and mode."""
    columns = ["layers x width, items per step", "blocks", "ms per step", "items per second", "TFLOP/s"]
    columns += ["model FLOPs utilisation", "memory, GiB"]
    cells = [
        [
            f"{row.n_layers} x {row.d_model}, {row.items:,}",
            row.blocks,
            f"{row.ms:.0f}",
            f"{row.items_per_second:,.0f}",
            f"{row.tflops:.1f}",
            "unknown" if row.share_of_peak is None else f"{row.share_of_peak:.1%}",
            "" if row.gib is None else f"{row.gib:.1f}",
        ]
        for row in rows
    ]
    return Table("Training in bfloat16 at sizes that fill a GPU", columns, cells)


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if device().type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    app()
