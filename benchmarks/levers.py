"""Levers that CAR lacks, tried on validation: smoothing, starts from texts, fusions, rotary positions.

    python -m benchmarks.levers --data PATH/amazon2014/Beauty

CAR's recipe with fewer epochs and a seed that is reported nowhere else; test items are never ranked. A lever
that stays ahead here would go on to three seeds. Written to benchmarks/results/speed/levers.json.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.data import CACHE, load_dataset
from benchmarks.lever_models import Attending, CoarseFirst, Smoothed, Weighted, from_texts, rotary
from benchmarks.machine import machine
from benchmarks.rows import settings_of
from benchmarks.sheets import Sheet
from car_model.bundle import tables
from car_model.encoder import EncoderSpec
from car_model.model import CAR
from car_model.quantise import CodebookConfig
from car_model.recipe import parse_recipe
from car_model.tokenization import tokenize
from car_model.training import train

OUTPUT = Path("benchmarks/results/speed/levers.json")
SEED = 9

app = typer.Typer(add_completion=False)


LEVERS: dict[str, Callable[..., CAR]] = {
    "CAR as it is": CAR,
    "label smoothing 0.1": Smoothed,
    "UID rows start from texts": from_texts,
    "fusion by attention": Attending,
    "fusion with a learned weight a level": Weighted,
    "think loss halved from level to level": CoarseFirst,
    "rotary positions": rotary,
}


@app.command()
def main(
    data: Annotated[str, typer.Option(help="an Amazon 2014 set's folder")],
    epochs: int = 12,
    output: Path = OUTPUT,
) -> None:
    """Train with every lever, print the table, write the figures."""
    dataset = load_dataset(data)
    name = dataset.report["name"]
    catalogue = tokenize(dataset, EncoderSpec(), CodebookConfig(), CACHE / "vectors").catalogue
    histories = dataset.histories(catalogue.uids)
    recipe = parse_recipe({**settings_of("car", name), "epochs": epochs, "seed": SEED})
    runs = []
    for title, made in LEVERS.items():
        torch.manual_seed(SEED)
        codes = int(catalogue.sids.max()) + 1
        model = made(recipe.car(catalogue.size, catalogue.sids.shape[1], codes), *tables(catalogue))
        with tempfile.TemporaryDirectory(prefix="car-") as folder:
            curves = train(model, histories, recipe.budget(), Path(folder), title)
        runs.append({"lever": title, "valid": max(curves["valid_ndcg@10"])})
    found = {"machine": machine(), "data": name, "epochs": epochs, "runs": runs}
    output.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    for sheet in sheets(found):
        sheet.print()


def sheets(found: dict[str, Any]) -> list[Sheet]:
    """Quality against CAR as it is."""
    base = found["runs"][0]["valid"]
    rows = [[one["lever"], f"{one['valid']:.4f}", f"{one['valid'] / base - 1:+.1%}"] for one in found["runs"]]
    title = f"{found['data']}, {found['epochs']} epochs, one seed"
    return [Sheet(title, ["lever", "best validation NDCG@10", "against CAR"], rows)]


if __name__ == "__main__":
    app()
