"""How time and memory grow with the catalogue and with the history.

    python -m benchmarks.growth

CAR of width 64 on random SIDs and full random histories, seeds fixed: what is in them changes no time. Every
size runs in a process of its own, so that its peak of memory is its own. Timed are a training step, and the
answer to one history as the Recommender gives it (state, act scores of all items, own history masked, top
10), once with the act head's rows made for every answer and once with rows made before. Exponents are slopes
on logarithmic axes: 1 is proportional growth.

Written to benchmarks/results/speed/growth.json.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
import typer
from torch import Tensor
from tqdm import tqdm

from benchmarks.machine import machine
from benchmarks.sheets import Sheet
from car_model.models.car import CAR, CARConfig

OUTPUT = Path("benchmarks/results/speed/growth.json")
ITEMS = (10_000, 100_000, 1_000_000)
HISTORY = (20, 50, 200)
USUAL = {"items": 10_000, "history": 50}  # of the axis that stands still
LEVELS, CODES, WIDTH, BATCH, TOP = 4, 256, 64, 16, 10
TIMES = {"step": "training step", "answer": "answer", "answer_kept": "answer, rows kept"}

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Size:
    """One point: what grows (`items` or `history`), and both sizes."""

    axis: str
    items: int
    history: int


@app.command()
def main(rounds: int = 5, threads: int = 1, output: Path = OUTPUT) -> None:
    """Measure all sizes, print the tables and exponents, write the figures."""
    torch.set_num_threads(threads)
    figures = [measured(size, rounds, threads) for size in tqdm(sizes(), desc="sizes", unit="size")]
    found = {
        **{"machine": machine(), "rounds": rounds, "batch": BATCH, "width": WIDTH, "levels": LEVELS},
        **{"codes": CODES, "dtype": "float32", "figures": figures, "exponents": exponents(figures)},
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    for sheet in sheets(found):
        sheet.print()


def sizes() -> list[Size]:
    """Catalogues at the usual history, then histories at the usual catalogue."""
    found = [Size("items", items, USUAL["history"]) for items in ITEMS]
    return found + [Size("history", USUAL["items"], history) for history in HISTORY]


def measured(size: Size, rounds: int, threads: int) -> dict[str, Any]:
    """Figures of one size, from a fresh process."""
    fresh = multiprocessing.get_context("spawn")  # shares no memory with this one
    with ProcessPoolExecutor(1, mp_context=fresh) as pool:
        return pool.submit(measure, size, rounds, threads).result()


def measure(size: Size, rounds: int, threads: int) -> dict[str, Any]:
    """Seconds (median of the rounds after one that warms up) and the peak of memory over imports, MiB."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    before = peak()
    sids = torch.randint(0, CODES, (size.items + 1, LEVELS))
    model = CAR(CARConfig(size.items, LEVELS, CODES, d_model=WIDTH, max_history=size.history), sids)
    rows = torch.randint(1, size.items + 1, (BATCH, size.history + 1))
    seconds = answers(model.eval(), rows[:1, 1:], rounds)
    answering = peak() - before
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    model.train()
    seconds["step"] = timed(lambda: step(model, optimizer, rows), rounds)
    return {**asdict(size), **seconds, "answer_memory": answering, "step_memory": peak() - before}


def answers(model: CAR, prompt: Tensor, rounds: int) -> dict[str, float]:
    """Seconds to answer a history [1, T]."""
    with torch.inference_mode():
        kept = model.act_weights()
        return {
            "answer": timed(lambda: answer(model, prompt, model.act_weights()), rounds),
            "answer_kept": timed(lambda: answer(model, prompt, kept), rounds),
        }


def step(model: CAR, optimizer: torch.optim.Optimizer, rows: Tensor) -> None:
    """One training step over windows [B, T + 1]."""
    model.loss(rows[:, :-1], rows[:, 1:])["loss"].backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def answer(model: CAR, prompt: Tensor, act: tuple[Tensor, Tensor]) -> Tensor:
    """The top UIDs after a history [1, T], without its own items: [1, k]."""
    weight, bias = act
    scores = (model.last_state(prompt) @ weight.T + bias).log_softmax(dim=-1)
    return scores.scatter_(1, prompt, -torch.inf).topk(TOP).indices


def timed(work: Callable[[], Any], rounds: int) -> float:
    """Median seconds of `work`, called once before for nothing."""
    taken = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return median(taken[1:])


def peak() -> float:
    """The most memory this process ever held, MiB. (`ru_maxrss` would start at the parent's.)"""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def exponents(figures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Log-log slopes along each axis: between neighbours, and from the first to the last."""
    found = []
    for axis in ("items", "history"):
        line = [row for row in figures if row["axis"] == axis]
        for low, high in [*pairwise(line), (line[0], line[-1])]:
            span = math.log(high[axis] / low[axis])
            slopes = {name: math.log(high[name] / low[name]) / span for name in TIMES}
            found.append({"axis": axis, "from": low[axis], "to": high[axis], **slopes})
    return found


def sheets(found: dict[str, Any]) -> list[Sheet]:
    """For each axis a table of figures and one of exponents."""
    made = []
    for axis, name, still in (
        ("items", "catalogue", f"history {USUAL['history']}"),
        ("history", "history", f"{USUAL['items']:,} items"),
    ):
        columns = [axis, *(f"{title}, ms" for title in TIMES.values())]
        columns += ["memory to answer, MiB", "memory to train, MiB"]
        rows = [
            [f"{row[axis]:,}", *(f"{1000 * row[time]:.3g}" for time in TIMES)]
            + [f"{row[memory]:.0f}" for memory in ("answer_memory", "step_memory")]
            for row in found["figures"]
            if row["axis"] == axis
        ]
        title = f"Growth with the {name} at {still}, {found['batch']} histories a step"
        made.append(Sheet(f"{title}: median of {found['rounds']} rounds", columns, rows))
        slopes = [
            [f"{row['from']:,} to {row['to']:,}", *(f"{row[time]:.2f}" for time in TIMES)]
            for row in found["exponents"]
            if row["axis"] == axis
        ]
        made.append(Sheet(f"Exponents of growth with the {name}", [axis, *TIMES.values()], slopes))
    return made


if __name__ == "__main__":
    app()
