"""Print perplexity, error and collisions of codebooks of different sizes on a catalogue.

    python -m benchmarks.codebook --data movielens
    python -m benchmarks.codebook --data PATH/amazon2014/Beauty

About 3 minutes; writes no file.
"""

from __future__ import annotations

from typing import Annotated

import typer

from benchmarks.datasets.load import CACHE, load_dataset
from benchmarks.report.table import Table
from car_model.codebook.residual_kmeans import CodebookConfig, default_codebook_size
from car_model.codebook.semantic_ids import tokenize
from car_model.encoding.encoder import EncoderSpec

ALL_AXES = 10_000
app = typer.Typer(add_completion=False)


@app.command()
def main(
    data: Annotated[str, typer.Option(help="movielens, or an Amazon 2014 folder.")] = "movielens",
    seed: int = 0,
) -> None:
    """Fit a codebook of every size, with and without projection on the main axes."""
    dataset = load_dataset(data)
    default = default_codebook_size(len(dataset.items))
    rows = []
    for axes in (16, 32, 64, ALL_AXES):
        for codes in sorted({16, 32, 64, 128, default}):
            config = CodebookConfig(codebook_size=codes, axes=axes, seed=seed)
            health = tokenize(dataset, EncoderSpec(), config, CACHE / "vectors").health
            rows.append(
                [
                    "all" if axes == ALL_AXES else str(axes),
                    f"{codes}{' (default)' if codes == default else ''}",
                    ", ".join(f"{value:.0f}" for value in health.perplexity),
                    f"{health.residual[-1]:.0%}",
                    f"{health.collision_rate:.1%}",
                ]
            )
    columns = ["axes", "codes", "perplexity by level", "not explained after level 4", "collisions"]
    Table(f"{dataset.report.name}: four levels, by axes and codes", columns, rows).print()


if __name__ == "__main__":
    app()
