"""Which settings rank best: CAR's variants against SASRec and popularity, several seeds, one table.

    python -m benchmarks.ablation --data movielens --seeds 3
    python -m benchmarks.ablation --data amazon2014 --data-dir DIR --variants car,sasrec,no-fusion

Each (variant, seed) is written to benchmarks/results/ as it ends and is not run again. Choices are made on
the validation column; the test column is for the record.
"""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from car_model.baselines import Popularity
from car_model.checkpoint import load_sasrec
from car_model.dataset import Dataset
from car_model.digests import json_digest
from car_model.encoder import EncoderSpec
from car_model.evaluation import Baseline, Holdout, holdout_ranks
from car_model.fitting import fit_car, fit_sasrec
from car_model.metrics import per_user
from car_model.quantise import CodebookConfig
from car_model.recipe import parse_recipe
from car_model.recommend import Recommender
from car_model.tokenization import Tokenized, tokenize
from ingestion.ingest import ingest
from ingestion.sources import resolve

CACHE = Path(".cache")
RESULTS = Path("benchmarks/results")
CODEBOOK = ("levels", "codes", "axes")
VARIANTS: dict[str, dict[str, Any]] = {
    "popularity": {},
    "sasrec": {},
    "sasrec, dropout .3": {"dropout": 0.3},
    "sasrec, learning rate 1e-3": {"learning_rate": 1e-3},
    "sasrec, learning rate 3e-3": {"learning_rate": 3e-3},
    "sasrec, history 100": {"history": 100},
    "car": {},
    "car, no fusion": {"fusion": "none"},
    "car, gated fusion": {"fusion": "gated"},
    "car, no think loss": {"think_weight": 0.0},
    "car, think weight .3": {"think_weight": 0.3},
    "car, think weight 1": {"think_weight": 1.0},
    "car, untied heads": {"tied": False},
    "car, full chunk": {"layout": "full"},
    "car, dropout .3": {"dropout": 0.3},
    "car, learning rate 1e-3": {"learning_rate": 1e-3},
    "car, learning rate 3e-3": {"learning_rate": 3e-3},
    "car, history 100": {"history": 100},
    "car, 1 level": {"levels": 1},
    "car, 2 levels": {"levels": 2},
    "car, 32 codes": {"codes": 32},
    "car, 128 codes": {"codes": 128},
    "car, all axes": {"axes": 10_000},
}

app = typer.Typer(add_completion=False)


@app.command()
def main(
    data: str = "movielens", data_dir: str = "", seeds: int = 3, variants: str = "", epochs: int = 0
) -> None:
    """Run what is missing and print the table."""
    dataset = load_dataset(data, data_dir)
    chosen = [name.strip() for name in variants.split(";")] if variants else list(VARIANTS)
    budget = {"epochs": epochs} if epochs else {}
    rows = {}
    for name in chosen:
        found = [_result(dataset, name, {**VARIANTS[name], **budget}, seed) for seed in range(seeds)]
        rows[name] = found
    _print(dataset, rows)


def load_dataset(data: str, data_dir: str) -> Dataset:
    """Ingest a named dataset, as the pipeline does."""
    config = resolve(data, data_dir or None, CACHE / "sources")
    with TemporaryDirectory() as folder:
        ingest(config, Path(folder) / "dataset", CACHE / "sources")
        return Dataset.load(Path(folder) / "dataset")


def _result(dataset: Dataset, name: str, settings: dict[str, Any], seed: int) -> dict[str, Any]:
    key = json_digest([dataset.digest, name, settings, seed, parse_recipe({}).model_dump()])[:16]
    path = (
        RESULTS
        / f"ablation-{dataset.report['name']}"
        / f"{name.replace(' ', '-').replace(',', '')}-{seed}-{key}.json"
    )
    if path.is_file():
        return json.loads(path.read_text())
    found = {"variant": name, "settings": settings, "seed": seed, "machine": machine()}
    found.update(_run(dataset, name, settings, seed))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    return found


def _run(dataset: Dataset, name: str, settings: dict[str, Any], seed: int) -> dict[str, Any]:
    sizes = {key: value for key, value in settings.items() if key in CODEBOOK}
    recipe = parse_recipe(
        {**{key: value for key, value in settings.items() if key not in CODEBOOK}, "seed": seed}
    )
    tokens = tokenize(dataset, EncoderSpec(), CodebookConfig(**sizes), CACHE / "vectors")
    start = time.monotonic()
    with TemporaryDirectory() as folder:
        ranker, curves = _fit(name, dataset, tokens, recipe, Path(folder))
    seconds = time.monotonic() - start
    test = {
        metric: float(values.mean())
        for metric, values in per_user(holdout_ranks(ranker, Holdout.of(dataset))).items()
    }
    best = max(curves.get("valid_ndcg@10", [0.0]))
    return {"test": test, "valid_ndcg@10": best, "seconds": seconds, "epochs": len(curves.get("epoch", []))}


def _fit(
    name: str, dataset: Dataset, tokens: Tokenized, recipe: Any, folder: Path
) -> tuple[Any, dict[str, list]]:
    catalogue = tokens.catalogue
    if name.startswith("popularity"):
        counts = dataset.histories(catalogue.uids).counts(catalogue.size)
        return Baseline(catalogue, Popularity(counts), recipe.history), {}
    if name.startswith("sasrec"):
        curves = fit_sasrec(dataset, catalogue, recipe, folder)
        return Baseline(catalogue, load_sasrec(folder), recipe.history), curves
    tokens.save(folder / "codebook", folder / "catalogue.parquet")
    bundle, curves = fit_car(dataset, folder / "codebook", catalogue, recipe)
    return Recommender(bundle), {**curves, "think_scale": [bundle.think_scale]}


def machine() -> str:
    """What the numbers were measured on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{platform.machine()}, {torch.get_num_threads()} threads, {gpu}, torch {torch.__version__}"


def _print(dataset: Dataset, rows: dict[str, list[dict[str, Any]]]) -> None:
    table = Table(
        title=f"{dataset.report['name']}: mean of {len(next(iter(rows.values())))} seeds ± standard deviation"
    )
    for column in ("variant", "valid NDCG@10", "test Recall@10", "test NDCG@10", "seconds"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    for name, found in rows.items():
        columns = [[run["valid_ndcg@10"] for run in found]]
        columns += [[run["test"][metric] for run in found] for metric in ("recall@10", "ndcg@10")]
        table.add_row(name, *map(_spread, columns), f"{mean(run['seconds'] for run in found):.0f}")
    Console().print(table)
    Console().print(machine())


def _spread(values: list[float]) -> str:
    return f"{mean(values):.4f} ± {stdev(values) if len(values) > 1 else 0.0:.4f}"


if __name__ == "__main__":
    app()
