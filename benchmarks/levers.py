"""Levers that CAR lacks, tried on validation: a start from texts, other fusions, think loss by level.

    python -m benchmarks.levers --data PATH/amazon2014/Beauty
    python -m benchmarks.levers --data PATH/amazon2014/Beauty --seeds 9,10,11 --lever "fusion by attention"

A set's recipe with seeds that are reported nowhere else; test items are never ranked. Runs are added to
benchmarks/results/speed/levers.json, those that are there already are not run again.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.data import load_dataset, tokens
from benchmarks.lever_models import Attending, CoarseFirst, Weighted, from_texts
from benchmarks.machine import machine
from benchmarks.rows import settings_of
from benchmarks.sheets import Sheet
from benchmarks.stats import spread
from car_model.bundle import tables
from car_model.data.dataset import Dataset
from car_model.models.car import CAR
from car_model.training.recipe import parse_recipe
from car_model.training.trainer import train

OUTPUT = Path("benchmarks/results/speed/levers.json")
BASE = "CAR as it is"
SEEDS = "9"  # no accuracy table has it

app = typer.Typer(add_completion=False)


LEVERS: dict[str, Callable[..., CAR]] = {
    BASE: CAR,
    "UID rows start from texts": from_texts,
    "fusion by attention": Attending,
    "fusion with a learned weight a level": Weighted,
    "think loss halved from level to level": CoarseFirst,
}


@app.command()
def main(
    data: Annotated[str, typer.Option(help="an Amazon 2014 set's folder")],
    lever: Annotated[list[str] | None, typer.Option(help="beside CAR as it is; all by default")] = None,
    seeds: Annotated[str, typer.Option(help="separated by commas")] = SEEDS,
    epochs: int = 12,
    output: Path = OUTPUT,
) -> None:
    """Train with every lever, print the table, write the figures."""
    chosen = [BASE, *(lever or [title for title in LEVERS if title != BASE])]
    if strangers := [title for title in chosen if title not in LEVERS]:
        raise typer.BadParameter(f"there is no lever {strangers[0]!r}; there are: {', '.join(LEVERS)}.")
    dataset = load_dataset(data)
    for seed in map(int, seeds.split(",")):
        for title in chosen:
            asked = {"data": dataset.report["name"], "epochs": epochs, "lever": title, "seed": seed}
            if not any(asked.items() <= run.items() for run in known(output)):
                add(output, {**asked, "valid": valid(dataset, title, seed, epochs), "machine": machine()})
    for sheet in sheets({"runs": known(output)}):
        sheet.print()


def known(output: Path) -> list[dict[str, Any]]:
    """Runs that were written before."""
    return json.loads(output.read_text())["runs"] if output.is_file() else []


def add(output: Path, run: dict[str, Any]) -> None:
    """Write one run to those that are known."""
    runs = sorted([*known(output), run], key=lambda one: [one[key] for key in ("data", "epochs", "seed")])
    machines = "; ".join(sorted({one["machine"] for one in runs}))
    output.write_text(json.dumps({"machine": machines, "runs": runs}, indent=1, sort_keys=True) + "\n")


def valid(dataset: Dataset, title: str, seed: int, epochs: int) -> float:
    """Best validation NDCG@10 of CAR with one lever."""
    made = tokens(dataset)
    catalogue = made.catalogue
    recipe = parse_recipe(
        {**settings_of("car", dataset.report["name"]), "epochs": epochs, "patience": epochs, "seed": seed}
    )
    torch.manual_seed(seed)
    model = LEVERS[title](recipe.car(catalogue.size, catalogue.sids.shape[1], made.codes), *tables(catalogue))
    with tempfile.TemporaryDirectory(prefix="car-") as folder:
        curves = train(model, dataset.histories(catalogue.uids), recipe.budget(), Path(folder), title)
    return float(max(curves["valid_ndcg@10"]))


def sheets(found: dict[str, Any]) -> list[Sheet]:
    """Quality against CAR as it is, set by set; differences are of the same seeds."""
    groups: dict[tuple[str, int], dict[str, dict[int, float]]] = {}
    for run in found["runs"]:
        group = groups.setdefault((run["data"], run["epochs"]), {title: {} for title in LEVERS})
        group[run["lever"]][run["seed"]] = run["valid"]
    return [_sheet(data, epochs, group) for (data, epochs), group in groups.items()]


def _sheet(data: str, epochs: int, group: dict[str, dict[int, float]]) -> Sheet:
    rows = []
    for title, runs in group.items():
        gains = [value / group[BASE][seed] - 1 for seed, value in runs.items() if seed in group[BASE]]
        if runs:
            each = ", ".join(f"{gain:+.1%}" for gain in gains)
            rows.append([title, str(len(runs)), spread(list(runs.values())), each])
    columns = ["lever", "seeds", "best validation NDCG@10", "against CAR as it is, seed by seed"]
    return Sheet(f"{data}, {epochs} epochs", columns, rows)


if __name__ == "__main__":
    app()
