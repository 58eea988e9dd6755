"""Try a dataset's mapping without running the pipeline: python -m ingestion custom --data-dir my-data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from ingestion.config import DatasetConfig, IngestError
from ingestion.ingest import ingest
from ingestion.report import IngestReport
from ingestion.sources import NAMES, resolve

app = typer.Typer(add_completion=False)


@app.command()
def main(  # noqa: PLR0917 - options
    name: Annotated[str, typer.Argument(help=f"the dataset: {', '.join(NAMES)}")],
    output: Annotated[Path, typer.Option(help="the dataset folder to write")],
    data_dir: Annotated[str | None, typer.Option(help="where the data lies (amazon2014, custom)")] = None,
    cache_dir: Annotated[Path, typer.Option(help="for what is fetched")] = Path(".cache/datasets"),
    engine: Annotated[Literal["duckdb", "spark"] | None, typer.Option(help="what computes it")] = None,
    master: Annotated[str | None, typer.Option(help="where Spark runs: local[2], spark://, sc://")] = None,
) -> None:
    """Ingest a dataset into a folder and say what was kept and what was dropped."""
    try:
        config = resolve(name, data_dir, cache_dir)
        report = ingest(with_engine(config, engine, master), output, cache_dir)
    except (IngestError, OSError) as error:
        sentence = str(error)
        if isinstance(error, OSError):
            sentence = f"{error.filename or output} cannot be used: {error.strerror or error}."
        typer.secho(sentence, err=True, fg="red")
        raise typer.Exit(1) from error
    Console().print(summary(report))


def with_engine(config: DatasetConfig, engine: str | None, master: str | None) -> DatasetConfig:
    """The configuration with another engine or master, where one is given."""
    given = {"engine": engine} if engine else {}
    chosen = config.model_copy(update=given)
    if master is None:
        return chosen
    if chosen.engine != "spark":
        raise IngestError(f"--master {master} needs --engine spark; DuckDB runs in this process.")
    return chosen.model_copy(update={"spark": chosen.spark.model_copy(update={"master": master})})


def summary(report: IngestReport) -> Table:
    """Read, dropped by every rule, and kept: one line each."""
    table = Table(title=f"{report.name}: {report.users} users, {report.items} items", title_justify="left")
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
