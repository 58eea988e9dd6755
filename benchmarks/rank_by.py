"""Print what `"rank_by": "action"` changes: NDCG of liked and of disliked test items, and milliseconds.

    python -m benchmarks.rank_by --seeds 0,1,2,3,4

MovieLens-100K, leave-one-out. For every seed CAR and an action ranker are trained as the pipeline trains
them, and the gate's evidence on actions is taken. About 6 minutes per seed. Written to
benchmarks/results/rank_by.csv.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer

from benchmarks.datasets.load import load_dataset, text_vectors
from benchmarks.models.bundles import trained_bundle
from benchmarks.report.machine import machine
from benchmarks.report.rows import Row, write_rows
from benchmarks.report.statistics import mean_and_deviation
from benchmarks.report.table import Table
from car_model.evaluation.actions import evaluate_action_ranker
from car_model.recommender.recommender import Recommender
from car_model.training.recipe import RankerRecipe, Recipe
from car_model.training.train_ranker import fit_ranker

OUTPUT = Path("benchmarks/results/rank_by.csv")
METRIC = "ndcg@10"
WAYS = ("relevance", "action")

app = typer.Typer(add_completion=False)


class RankByRow(Row):
    """The evidence on ranking by action of one seed."""

    machine: str
    dataset: str
    seed: int
    evidence: dict[str, Any]
    """What evaluate writes about actions (`car_model.evaluation.actions`)."""


@app.command()
def main(
    data: Annotated[str, typer.Option(help="movielens, or a folder with actions.")] = "movielens",
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0,1,2,3,4",
) -> None:
    """Train and evaluate with every seed and print the table."""
    torch.set_num_threads(1)
    dataset = load_dataset(data)
    vectors = dict(zip(dataset.items["item_id"].astype(str), text_vectors(dataset), strict=True))
    rows = []
    for seed in map(int, seeds.split(",")):
        settings = {"seed": seed, "threads": 1}
        bundle, _ = trained_bundle(dataset, vectors, Recipe.model_validate(settings))
        ranked, summary = fit_ranker(dataset, bundle, RankerRecipe.model_validate(settings))
        evidence = evaluate_action_ranker(dataset, Recommender(ranked))
        if evidence is None:
            raise typer.BadParameter(f"no ranker for {dataset.report.name}: {summary.why}")
        measured = evidence.model_dump(mode="json")
        rows.append(RankByRow(machine=machine(), dataset=dataset.report.name, seed=seed, evidence=measured))
    write_rows(OUTPUT, rows)
    for table in tables(rows):
        table.print()


def tables(rows: list[RankByRow]) -> list[Table]:
    """NDCG of the users who liked their test item and of those who did not, for both ways to rank."""
    runs = [row.evidence for row in rows]
    columns = ["ranked by", "NDCG@10, liked", "change", "NDCG@10, disliked", "change"]
    columns += ["ms per answer (p50)", "against relevance"]
    cells = []
    for way in WAYS:
        line = [way]
        for part in ("liked", "disliked"):
            line.append(mean_and_deviation([run["ndcg"][part][way][METRIC]["mean"] for run in runs]))
            changes = [run["ndcg"][part]["paired"][METRIC]["relative"] for run in runs]
            line.append(mean_and_deviation(changes, "{:+.1%}") if way == "action" else "")
        times = [run["latency"][f"{way}_p50_ms"] for run in runs]
        ratios = [run["latency"][f"{way}_p50_ms"] / run["latency"]["relevance_p50_ms"] for run in runs]
        line += [f"{median(times):.2f}", mean_and_deviation(ratios, "{:.1f} x") if way == "action" else ""]
        cells.append(line)
    entropies = [run["normalised_entropy"]["mean"] for run in runs]
    without_actions = [run["normalised_entropy_without_actions"]["mean"] for run in runs]
    title = (
        f"{rows[0].dataset}, {len(rows)} seeds, mean and standard deviation; weights chosen on validation: "
        f"{', '.join(format(run['weight'], 'g') for run in runs)}; normalised entropy "
        f"{mean_and_deviation(entropies, '{:.3f}')}, of histories without actions "
        f"{mean_and_deviation(without_actions, '{:.3f}')}"
    )
    return [Table(title, columns, cells)]


if __name__ == "__main__":
    app()
