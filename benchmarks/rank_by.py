"""What `"rank_by": "action"` does to answers: liked test items found, disliked ones left, milliseconds spent.

    python -m benchmarks.rank_by --seeds 0,1,2,3,4

MovieLens-100K, leave-one-out. With every seed CAR and a ranker by action are trained as the pipeline trains
them, and the part `action` of the gate's evidence is taken. Written to benchmarks/results/speed/rank_by.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch
import typer

from benchmarks.datasets.load import load_dataset, text_vectors
from benchmarks.models.bundles import fitted
from benchmarks.report.machine import machine
from benchmarks.report.table import Sheet
from car_model.data.dataset import Dataset
from car_model.evaluation.actions import evaluate_action_ranker
from car_model.recommender.recommender import Recommender
from car_model.training.recipe import RankerRecipe, Recipe
from car_model.training.train_ranker import fit_ranker

OUTPUT = Path("benchmarks/results/speed/rank_by.json")
METRIC = "ndcg@10"
WAYS = ("relevance", "action")

app = typer.Typer(add_completion=False)


@app.command()
def main(
    data: str = typer.Option("movielens", help="movielens, or a folder whose interactions have actions"),
    seeds: str = typer.Option("0,1,2,3,4", help="separated by commas"),
    output: Path = OUTPUT,
) -> None:
    """Train and evaluate with every seed, print the table, write the figures."""
    torch.set_num_threads(1)
    dataset = load_dataset(data)
    vectors = dict(zip(dataset.items["item_id"].astype(str), text_vectors(dataset), strict=True))
    runs = [one(dataset, vectors, int(seed)) for seed in seeds.split(",")]
    found = {"machine": machine(), "data": dataset.report.name, "runs": runs}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    for sheet in sheets(found):
        sheet.print()


def one(dataset: Dataset, vectors: dict[str, Any], seed: int) -> dict[str, Any]:
    """The evidence on ranking by action with one seed, and what validation chose."""
    settings = {"seed": seed, "threads": 1}
    bundle, _ = fitted(dataset, None, vectors, Recipe.model_validate(settings))
    ranked, told = fit_ranker(dataset, bundle, RankerRecipe.model_validate(settings))
    if not told.trained:
        raise typer.BadParameter(f"no ranker for {dataset.report.name}: {told.why}")
    return {
        "seed": seed,
        **evaluate_action_ranker(dataset, Recommender(ranked), told).model_dump(mode="json"),
    }


def sheets(found: dict[str, Any]) -> list[Sheet]:
    """Both ways to rank side by side: NDCG of those who liked their test item and of those who did not."""
    runs = found["runs"]
    columns = [
        "ranked by",
        "NDCG@10, liked",
        "change",
        "NDCG@10, disliked",
        "change",
        "ms an answer (p50)",
        "against relevance",
    ]
    rows = []
    for way in WAYS:
        row = [way]
        for part in ("liked", "disliked"):
            row.append(_spread([run["ndcg"][part][way][METRIC]["mean"] for run in runs], "{:.4f}"))
            changes = [run["ndcg"][part]["paired"][METRIC]["relative"] for run in runs]
            row.append(_spread(changes, "{:+.1%}") if way == "action" else "")
        spent = [run["latency"][f"{way}_p50_ms"] for run in runs]
        times = [run["latency"][f"{way}_p50_ms"] / run["latency"]["relevance_p50_ms"] for run in runs]
        row += [f"{median(spent):.2f}", _spread(times, "{:.1f} x") if way == "action" else ""]
        rows.append(row)
    entropies = [run["normalised_entropy"]["mean"] for run in runs]
    blind = [run["normalised_entropy_without_actions"]["mean"] for run in runs]
    title = (
        f"{found['data']}, {len(runs)} seeds, mean and standard deviation; weights chosen on validation: "
        f"{', '.join(format(run['weight'], 'g') for run in runs)}; normalised entropy "
        f"{_spread(entropies, '{:.3f}')}, of histories without actions {_spread(blind, '{:.3f}')}"
    )
    return [Sheet(title, columns, rows)]


def _spread(values: list[float], form: str) -> str:
    spread = f" ± {form.format(stdev(values)).lstrip('+')}" if len(values) > 1 else ""
    return form.format(mean(values)) + spread


if __name__ == "__main__":
    app()
