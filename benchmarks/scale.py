"""From a log of 10 M interactions to answers on one machine: time, memory, and how both grow.

    python -m benchmarks.scale --parts 16,4,1

Made-up data (`benchmarks.datasets.synthetic`): 10 M interactions of 1 M users with 500 k items, and the
4th and 16th part of all three. Every stage (`benchmarks.scale_stages`) runs in a process of its own, which
tells the most memory it held, imports included. What was measured is kept in
benchmarks/results/speed/scale.json and not measured again unless --again names its stage.
Exponents are slopes on logarithmic axes.
"""

from __future__ import annotations

import json
import math
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import typer

from benchmarks.datasets.synthetic import Scale, write
from benchmarks.report.machine import machine
from benchmarks.report.table import Sheet
from benchmarks.scale_stages import STAGES, Figures, staged
from ingestion.config import DatasetConfig

OUTPUT = Path("benchmarks/results/speed/scale.json")
FOLDER = Path(".cache/scale")
LIMIT = 12 * 1024  # MiB that no stage may hold

app = typer.Typer(add_completion=False)


@app.command()
def main(
    parts: str = typer.Option("16,4,1", help="of the full size, separated by commas"),
    again: str = typer.Option("", help="stages to measure again, separated by commas"),
    output: Path = OUTPUT,
) -> None:
    """Measure what is missing, print the tables, write the figures after every stage."""
    found = json.loads(output.read_text()) if output.is_file() else {"stages": {}, "before": {}}
    found["machine"] = machine()
    wanted, forgotten = [int(part) for part in parts.split(",")], set(filter(None, again.split(",")))
    for part in wanted:
        folder = FOLDER / str(part)
        config = write(Scale.of(part), folder)
        for name in STAGES:
            mine = found["stages"].setdefault(name, {})
            if str(part) in mine and name not in forgotten:
                continue
            mine[str(part)] = apart(name, folder, config)
            typer.echo(f"1/{part} {name}: {mine[str(part)]}")
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    for sheet in sheets(found):
        sheet.print()


def apart(name: str, folder: Path, config: DatasetConfig) -> Figures:
    """A stage's figures from a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(staged, name, folder, config).result()


def exponent(mine: dict[str, Figures], key: str) -> float | None:
    """Slope from the smallest to the largest size that was measured, on logarithmic axes."""
    sizes = sorted(map(int, mine))
    if len(sizes) < 2:
        return None
    largest, smallest = mine[str(sizes[0])][key], mine[str(sizes[-1])][key]
    return math.log(largest / smallest) / math.log(sizes[-1] / sizes[0])


def sheets(found: dict[str, Any]) -> list[Sheet]:
    """Seconds and memory of every stage at every size, and what grew how."""
    sizes = sorted({int(part) for mine in found["stages"].values() for part in mine}, reverse=True)
    names = [f"{Scale.of(part).interactions:,}" for part in sizes]
    time = [
        [name, *(_shown(mine, part, "seconds", "{:,.0f}") for part in sizes), _slope(mine, "seconds")]
        for name, mine in found["stages"].items()
    ]
    memory = [
        [name, *(_shown(mine, part, "memory", "{:,.0f}") for part in sizes), _slope(mine, "memory")]
        for name, mine in found["stages"].items()
    ]
    made = [
        Sheet("Seconds a stage, by interactions", ["stage", *names, "exponent"], time),
        Sheet(f"Most memory held, MiB (limit {LIMIT:,})", ["stage", *names, "exponent"], memory),
    ]
    inner = [
        [
            title,
            *(_shown(found["stages"].get(stage, {}), part, key, form) for part in sizes),
            _slope(found["stages"].get(stage, {}), key),
        ]
        for stage, key, title, form in (
            ("train", "step_s", "a training step of 128 users, s", "{:.3f}"),
            ("train", "sampled_step_s", "the same with 4,096 negatives, s", "{:.3f}"),
            ("train", "epoch_h", "an epoch of all users, hours", "{:.2f}"),
            ("train", "sampled_epoch_h", "the same with 4,096 negatives, hours", "{:.2f}"),
            ("answer", "answer_ms", "an answer without reasons, ms", "{:.1f}"),
        )
    ]
    return [*made, Sheet("Within the stages", ["what", *names, "exponent"], inner)]


def _shown(mine: dict[str, Figures], part: int, key: str, form: str) -> str:
    found = mine.get(str(part), {}).get(key)
    return "" if found is None else form.format(found)


def _slope(mine: dict[str, Figures], key: str) -> str:
    found = exponent(mine, key)
    return "" if found is None else f"{found:.2f}"


if __name__ == "__main__":
    app()
