"""Print test Recall and NDCG of CAR, its ablations and its baselines, as mean and deviation over seeds.

    python -m benchmarks.accuracy --data PATH/amazon2014/Beauty --model car --seeds 0,1,2
    python -m benchmarks.accuracy --data PATH/amazon2014/Beauty --model sasrec,car --order shuffled
    python -m benchmarks.accuracy --data movielens --model car --set dropout=0.3 --seeds 0

A run took 1 minute on a GPU and 5 to 20 minutes on two cores. It is added to the data set's table under
benchmarks/results/accuracy/ and is not run again if it is in there already; a run that was killed continues
from its last epoch. A trial of other settings (`--set`) is measured on validation and never ranks test items.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from statistics import mean
from typing import Annotated, Any

import typer

from benchmarks.datasets.load import CACHE, ORDERS, Order, load_dataset, tokens
from benchmarks.models.fit import fit_model
from benchmarks.models.variants import SID_SETTINGS, TITLES, VARIANTS, settings_of
from benchmarks.report.machine import machine
from benchmarks.report.rows import read_rows
from benchmarks.report.runs import ACCURACY, AccuracyRun, append_accuracy, table_path
from benchmarks.report.statistics import mean_and_deviation, rank_string
from benchmarks.report.table import Table
from car_model.data.dataset import Dataset
from car_model.evaluation.evaluate import Holdout, holdout_ranks
from car_model.metrics.ranking import per_user
from car_model.training.recipe import Recipe, parse_recipe
from common.digests import json_digest
from common.errors import UserError

NOT_COMPARED = {"baseline", "seed", "threads"}  # settings that are not stored
METRICS = ("recall@5", "ndcg@5", "recall@10", "ndcg@10")
app = typer.Typer(add_completion=False)


@app.command()
def main(
    data: Annotated[str, typer.Option(help="movielens, or the folder of an Amazon 2014 data set.")],
    model: Annotated[str, typer.Option(help="Variants, separated by commas; or all.")] = "car",
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0,1,2",
    order: Annotated[str, typer.Option(help="Same-day interactions: stored or shuffled.")] = "stored",
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="setting=value: a trial of another recipe.")
    ] = None,
) -> None:
    """Train what is missing and print the table."""
    names = list(VARIANTS) if model == "all" else [name.strip() for name in model.split(",")]
    for name in names:
        if name not in VARIANTS:
            raise typer.BadParameter(f"there is no model {name!r}; there are: {', '.join(VARIANTS)}.")
    if order not in ORDERS:
        raise typer.BadParameter(f"there is no order {order!r}; there are: {', '.join(ORDERS)}.")
    trial = dict(parse_change(text) for text in changes or ())
    try:
        dataset = load_dataset(data, order)  # type: ignore[arg-type]
        for name in names:  # before hours are spent
            split_settings(name, dataset.report.name, trial, seed=0)
    except (ValueError, UserError) as error:
        raise typer.BadParameter(str(error)) from None
    runs: dict[str, list[AccuracyRun]] = {}
    for name in names:
        for seed in map(int, seeds.split(",")):
            run = run_or_read(dataset, order, name, seed, trial)  # type: ignore[arg-type]
            runs.setdefault(name, []).append(run)
            summary(f"{dataset.report.name}, same-day order {order}", runs).print()


def parse_change(text: str) -> tuple[str, Any]:
    """`dropout=0.3` -> ("dropout", 0.3); a value that is not JSON is text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"--set {text!r} is not setting=value.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def split_settings(
    name: str, dataset: str, trial: Mapping[str, Any], seed: int
) -> tuple[Recipe, dict[str, Any]]:
    """A variant's recipe on a data set, and the settings of its SIDs.

    Raises:
        ValueError: a setting is unknown or wrong.
    """
    settings = {**settings_of(name, dataset), **trial}
    sid_settings = {key: settings.pop(key) for key in SID_SETTINGS if key in settings}
    return parse_recipe({**settings, "seed": seed}), sid_settings


def run_or_read(
    dataset: Dataset, order: Order, name: str, seed: int, trial: Mapping[str, Any]
) -> AccuracyRun:
    """Train and evaluate a variant with one seed, unless the same run is in the data set's table."""
    recipe, sid_settings = split_settings(name, dataset.report.name, trial, seed)
    items = tokens(dataset, **sid_settings)
    run = AccuracyRun(
        model=name,
        seed=seed,
        trial=dict(trial),
        settings=recipe.model_dump(exclude=NOT_COMPARED),
        sid_method=sid_settings.get("method", "rkmeans"),
        n_levels=items.catalogue.sids.shape[1],
        codebook_size=items.codebook_size,
        valid_ndcg_at_10=[],
        think_scale=0.0,
        similarity_scale=0.0,
        parameters=0,
        seconds=0,
        machine=machine(),
        dataset_digest=dataset.digest,
        sids_digest=items.digest,
    )
    path = table_path(ACCURACY, dataset.report.name, order)
    for stored in read_rows(path, AccuracyRun):
        if is_same_run(stored, run):
            return stored
    variant, started = VARIANTS[name], time.monotonic()
    # Variants that differ only in how they rank share a checkpoint and are trained once.
    trained = json_digest([dataset.digest, items.digest, variant.kind, recipe.model_dump()])[:16]
    fitted = fit_model(
        variant.kind,
        items,
        dataset.histories(items.catalogue.uids),
        recipe,
        CACHE / "accuracy" / trained,
        text_similarity=variant.text_similarity,
    )
    results: dict[str, Any] = {
        "valid_ndcg_at_10": [round(value, 5) for value in fitted.curves.valid_ndcg],
        "think_scale": fitted.think_scale,
        "similarity_scale": fitted.similarity_scale,
        "parameters": fitted.parameters,
        "seconds": round(time.monotonic() - started),
    }
    ranks = None
    if not trial:
        test_ranks = holdout_ranks(fitted.ranker, Holdout.of(dataset), name=name)
        ranks = rank_string(test_ranks)
        for metric, values in per_user(test_ranks).items():
            results[metric.replace("@", "_at_")] = round(float(values.mean()), 6)
    run = run.model_copy(update=results)
    append_accuracy(path, run, ranks)
    return run


def is_same_run(stored: AccuracyRun, run: AccuracyRun) -> bool:
    """Whether two runs have equal inputs.

    The precision, the machine and vectors that differ in their last digits do not count: they change a result
    as another seed does. Settings that a stored run has no value for had their default.
    """
    defaults = parse_recipe({}).model_dump(exclude=NOT_COMPARED)
    settings = [{**defaults, **each.settings, "precision": ""} for each in (stored, run)]
    names = {"model", "seed", "trial", "dataset_digest", "sid_method", "n_levels", "codebook_size"}
    return stored.model_dump(include=names) == run.model_dump(include=names) and settings[0] == settings[1]


def summary(title: str, runs: Mapping[str, list[AccuracyRun]]) -> Table:
    """Means and deviations over the seeds so far."""
    columns = ["model", "seeds", "valid NDCG@10", *(f"test {metric}" for metric in METRICS), "seconds"]
    rows = []
    for name, seeds in runs.items():
        cells = [TITLES[name], str(len(seeds)), mean_and_deviation([run.best_valid for run in seeds])]
        for metric in METRICS:
            cells.append("" if seeds[0].trial else mean_and_deviation([run.metric(metric) for run in seeds]))
        rows.append([*cells, f"{mean(run.seconds for run in seeds):.0f}"])
    return Table(title, columns, rows)


if __name__ == "__main__":
    app()
