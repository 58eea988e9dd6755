"""How good codebooks of different sizes are on a catalogue: perplexity, error and collisions, in one table.

python -m benchmarks.codebook --data movielens
python -m benchmarks.codebook --data PATH/amazon2014/Beauty
"""

from __future__ import annotations

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.datasets.load import CACHE, load_dataset
from car_model.codebook.residual_kmeans import CodebookConfig, default_codebook_size
from car_model.codebook.semantic_ids import tokenize
from car_model.encoding.encoder import EncoderSpec

ALL_AXES = 10_000
app = typer.Typer(add_completion=False)


@app.command()
def main(data: str = "movielens", seed: int = 0) -> None:
    """Fit a codebook of every size, with and without the projection on the main axes."""
    dataset = load_dataset(data)
    usual = default_codebook_size(len(dataset.items))
    table = Table(title=f"{dataset.report.name}: four levels, by axes and codes")
    for column in (
        "axes",
        "codes",
        "perplexity, level by level",
        "not explained after level 4",
        "collisions",
    ):
        table.add_column(column, justify="right")
    for axes in (16, 32, 64, ALL_AXES):
        for codes in sorted({16, 32, 64, 128, usual}):
            config = CodebookConfig(codebook_size=codes, axes=axes, seed=seed)
            health = tokenize(dataset, EncoderSpec(), config, CACHE / "vectors").health
            table.add_row(
                "all" if axes == ALL_AXES else str(axes),
                f"{codes}{' (default)' if codes == usual else ''}",
                ", ".join(f"{value:.0f}" for value in health.perplexity),
                f"{health.residual[-1]:.0%}",
                f"{health.collision_rate:.1%}",
            )
    Console(width=110).print(table)


if __name__ == "__main__":
    app()
