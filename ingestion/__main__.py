"""Try the mapping of a dataset without the pipeline: python -m ingestion custom --data-dir my-data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from common.cli import PlainConsole
from ingestion.config import IngestError
from ingestion.ingest import ingest
from ingestion.report import IngestReport
from ingestion.sources import NAMES, resolve

app = typer.Typer(add_completion=False)


@app.command()
def main(  # noqa: PLR0917 - options
    name: Annotated[str, typer.Argument(help=f"the dataset: {', '.join(NAMES)}")],
    output: Annotated[Path, typer.Option(help="the dataset folder to write")],
    data_dir: Annotated[str | None, typer.Option(help="folder of the data (amazon2014, custom)")] = None,
    cache_dir: Annotated[Path, typer.Option(help="folder for downloads")] = Path(".cache/datasets"),
    engine: Annotated[Literal["duckdb", "spark"] | None, typer.Option(help="engine that computes it")] = None,
    master: Annotated[str | None, typer.Option(help="address of Spark: local[2], spark://, sc://")] = None,
) -> None:
    """Ingest a dataset into a folder, and print how many rows were kept and dropped."""
    try:
        config = resolve(name, data_dir, cache_dir)
        config = config.model_copy(update={"engine": engine or config.engine})
        if master and config.engine != "spark":
            raise IngestError(f"--master {master} needs --engine spark; DuckDB runs in this process.")
        if master:
            spark = config.spark.model_copy(update={"master": master})
            config = config.model_copy(update={"spark": spark})
        report = ingest(config, output, cache_dir)
    except (IngestError, OSError) as error:
        sentence = str(error)
        if isinstance(error, OSError):
            sentence = f"{error.filename or output} cannot be used: {error.strerror or error}."
        typer.secho(sentence, err=True, fg="red")
        raise typer.Exit(1) from error
    PlainConsole().print(summary(report))


def summary(report: IngestReport) -> Table:
    """The report as a table: rows read, dropped by each rule, and kept."""
    cold = f", and {report.cold_items:,} without interactions" if report.cold_items else ""
    title = f"{report.name}: {report.users:,} users, {report.items:,} items{cold}"
    table = Table(title=title, title_justify="left")
    table.add_column("rows")
    table.add_column("interactions", justify="right")
    table.add_column("items", justify="right")
    table.add_row("read", f"{report.read.interactions:,}", f"{report.read.items:,}")
    for rule, rows in report.dropped.interactions.items():
        table.add_row(f"dropped: {rule}", f"{rows:,}", "")
    for rule, rows in report.dropped.items.items():
        table.add_row(f"dropped: {rule} (catalogue)", "", f"{rows:,}")
    table.add_row("kept", f"{report.kept.interactions:,}", f"{report.kept.items:,}", style="bold")
    return table


if __name__ == "__main__":
    app(prog_name="python -m ingestion")
