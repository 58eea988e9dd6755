"""What training on a sample of the catalogue costs in quality: validation NDCG@10 by number of negatives.

    python -m benchmarks.sampled --data PATH/amazon2014/Beauty

One recipe, one seed, a short budget; all items, then samples of them. What is saved shows on large catalogues
(`benchmarks.scale`). Written to benchmarks/results/speed/sampled.json.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.data import CACHE, load_dataset
from benchmarks.machine import machine
from benchmarks.sheets import Sheet
from car_model.codebook.residual_kmeans import CodebookConfig
from car_model.codebook.tokenize import tokenize
from car_model.encoding.encoder import EncoderSpec
from car_model.training.recipe import parse_recipe
from car_model.training.train_car import fit_car

OUTPUT = Path("benchmarks/results/speed/sampled.json")
NEGATIVES = (0, 512, 2048)

app = typer.Typer(add_completion=False)


@app.command()
def main(
    data: Annotated[str, typer.Option(help="movielens, or an Amazon 2014 set's folder")],
    epochs: int = 8,
    output: Path = OUTPUT,
) -> None:
    """Train with every number of negatives, print the table, write the figures."""
    dataset = load_dataset(data)
    tokens = tokenize(dataset, EncoderSpec(), CodebookConfig(), CACHE / "vectors")
    runs = []
    with tempfile.TemporaryDirectory(prefix="car-") as folder:
        tokens.save(Path(folder) / "codebook", Path(folder) / "catalogue.parquet")
        for negatives in NEGATIVES:
            recipe = parse_recipe({"epochs": epochs, "batch_size": 128, "negatives": negatives})
            _, curves = fit_car(dataset, Path(folder) / "codebook", tokens.catalogue, recipe)
            runs.append({"negatives": negatives, "valid": max(curves["valid_ndcg@10"])})
    found = {"machine": machine(), "data": dataset.report["name"], "epochs": epochs, "runs": runs}
    found["items"] = tokens.catalogue.size
    output.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    for sheet in sheets(found):
        sheet.print()


def sheets(found: dict[str, Any]) -> list[Sheet]:
    """Quality against the full softmax's."""
    full = found["runs"][0]
    rows = [
        [
            f"{one['negatives']:,} drawn, and targets"
            if one["negatives"]
            else f"all {found['items']:,} items",
            f"{one['valid']:.4f}",
            "" if one is full else f"{one['valid'] / full['valid'] - 1:+.1%}",
        ]
        for one in found["runs"]
    ]
    title = f"{found['data']}, {found['epochs']} epochs, one seed: negatives a step"
    return [Sheet(title, ["softmax over", "best validation NDCG@10", "against all"], rows)]


if __name__ == "__main__":
    app()
