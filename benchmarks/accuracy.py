"""The accuracy table: every model on the same holdout, several seeds, full ranking, history masked.

    python -m benchmarks.accuracy --data PATH/amazon2014/Beauty --model car --seeds 0,1,2
    python -m benchmarks.accuracy --data PATH/amazon2014/Beauty --model sasrec,car --order shuffled
    python -m benchmarks.accuracy --data movielens --model car --set dropout=0.3 --seeds 0

A run is written to benchmarks/results/accuracy/ as it ends and not run again while its inputs are the same;
one that was killed goes on from its last epoch. Choices are made on validation: a trial of other settings
(`--set`) never looks at the test items.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.datasets.load import CACHE, ORDERS, load_dataset, tokens
from benchmarks.models.fit import fit_model
from benchmarks.models.variants import ROWS, settings_of
from benchmarks.report.machine import machine
from benchmarks.report.statistics import METRICS, best_valid, rank_string, spread
from car_model.data.dataset import Dataset
from car_model.evaluation.evaluate import Holdout, holdout_ranks
from car_model.metrics.ranking import per_user
from car_model.training.recipe import Recipe, parse_recipe
from common.digests import json_digest

SIDS = ("levels", "codes", "method")
COMPUTED = ("precision", "threads")  # how a run is computed
# Settings that older runs had no name for, and what they ran with:
LATER = {"negatives": 0, "ann_candidates": 0, "position_encoding": "learned", "label_smoothing": 0.0}
RESULTS = Path("benchmarks/results/accuracy")
app = typer.Typer(add_completion=False)


@app.command()
def main(
    data: str = typer.Option(..., help="an Amazon 2014 set's folder, or movielens"),
    model: str = typer.Option("car", help="rows by name, separated by commas; all"),
    seeds: str = typer.Option("0,1,2", help="separated by commas"),
    order: str = typer.Option("stored", help="of same-day interactions: stored or shuffled"),
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="setting=value: a trial of another recipe")
    ] = None,
) -> None:
    """Run what is missing and print the table."""
    chosen = list(ROWS) if model == "all" else [name.strip() for name in model.split(",")]
    _check(chosen, order)
    trial = dict(parse_change(text) for text in changes or ())
    try:
        dataset = load_dataset(data, order)  # type: ignore[arg-type]
        for name in chosen:
            recipe_of(name, dataset.report.name, trial, 0)
    except ValueError as error:  # before hours are spent
        raise typer.BadParameter(str(error)) from None
    rows: dict[str, list[dict[str, Any]]] = {}
    for name in chosen:
        for seed in map(int, seeds.split(",")):
            rows.setdefault(name, []).append(result(dataset, order, name, seed, trial))
            print_table(f"{dataset.report.name}, ties {order}", rows)


def _check(rows: list[str], order: str) -> None:
    unknown = [name for name in rows if name not in ROWS]
    if unknown:
        raise typer.BadParameter(f"there is no row {unknown[0]!r}; there are: {', '.join(ROWS)}.")
    if order not in ORDERS:
        raise typer.BadParameter(f"there is no order {order!r}; there are: {', '.join(ORDERS)}.")


def parse_change(text: str) -> tuple[str, Any]:
    """`dropout=0.3` -> ("dropout", 0.3); what is not JSON is text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"--set {text!r} is not setting=value.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def recipe_of(name: str, dataset: str, trial: dict[str, Any], seed: int) -> tuple[Recipe, dict[str, Any]]:
    """How a row is trained on a data set, and how its SIDs are made.

    Raises:
        ValueError: a setting is unknown or wrong.
    """
    settings = {**settings_of(name, dataset), **trial}
    sids = {key: settings.pop(key) for key in SIDS if key in settings}
    return parse_recipe({**settings, "seed": seed}), sids


def result(dataset: Dataset, order: str, name: str, seed: int, trial: dict[str, Any]) -> dict[str, Any]:
    """One run, from its file where it was run before with the same inputs."""
    recipe, sid_settings = recipe_of(name, dataset.report.name, trial, seed)
    made = tokens(dataset, **sid_settings)
    key = run_key(dataset.digest, name, recipe.model_dump(), sid_settings)
    path = RESULTS / f"{dataset.report.name}-{order}" / f"{_label(name, trial)}-{seed}.json"
    if path.is_file() and (known := json.loads(path.read_text()))["key"] == key:
        return known
    data, start = dataset.histories(made.catalogue.uids), time.monotonic()
    row = ROWS[name]
    trained = json_digest([dataset.digest, made.digest, row.kind, recipe.model_dump()])[:16]
    checkpoint = CACHE / "accuracy" / trained  # rows that differ only in how they rank are trained once
    fitted = fit_model(row.kind, made, data, recipe, checkpoint, likeness=row.likeness)
    seconds = time.monotonic() - start
    found = {
        **{"key": key, "row": name, "order": order, "seed": seed, "trial": trial, "machine": machine()},
        "settings": {**recipe.model_dump(exclude={"baseline", "seed", "threads"}), **sid_settings},
        "dataset": dataset.digest,
        "sids": made.digest,
        "sid_shape": [made.catalogue.sids.shape[1], made.codes],
        "parameters": fitted.parameters,
        "seconds": round(seconds),
        "think_scale": fitted.think_scale,
        "likeness_scale": fitted.likeness_scale,
        "valid_ndcg@10": [round(value, 5) for value in fitted.curves.valid_ndcg],
    }
    if not trial:
        found |= _tested(holdout_ranks(fitted.ranker, Holdout.of(dataset), name=name))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    return found


def run_key(dataset: str, name: str, recipe: dict[str, Any], sids: dict[str, Any]) -> str:
    """What a run is told apart by: what was asked for, not what it was computed with.

    Precision and threads, and vectors that differ in their last digits, change a result as a seed does.
    """
    plain = {*COMPUTED, *(key for key, value in LATER.items() if recipe.get(key) == value)}
    asked = {key: value for key, value in recipe.items() if key not in plain}
    return json_digest([dataset, name, asked, sids])[:16]


def _tested(ranks: np.ndarray) -> dict[str, Any]:
    means = {metric: round(float(values.mean()), 6) for metric, values in per_user(ranks).items()}
    return {"test": means, "ranks": rank_string(ranks)}


def _label(name: str, trial: dict[str, Any]) -> str:
    changes = [f"{key}={value}" for key, value in sorted(trial.items())]
    return "-".join(["trial", name, *changes] if trial else [name])


def print_table(title: str, rows: dict[str, list[dict[str, Any]]]) -> None:
    """Means over seeds so far."""
    table = Table(title=title)
    for column in ("row", "seeds", "valid NDCG@10", *(f"test {metric}" for metric in METRICS), "seconds"):
        table.add_column(column, justify="left" if column == "row" else "right")
    for name, runs in rows.items():
        best = [best_valid(run) for run in runs]
        tested = [
            spread([run["test"][metric] for run in runs]) if "test" in runs[0] else "" for metric in METRICS
        ]
        seconds = sum(run["seconds"] for run in runs) / len(runs)
        table.add_row(name, str(len(runs)), spread(best), *tested, f"{seconds:.0f}")
    Console(width=150).print(table)


if __name__ == "__main__":
    app()
