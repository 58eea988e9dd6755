"""The registry's commands and `onboard`, which needs the model library."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from registry.channels.channel import find
from registry.cli.commands import app
from registry.cli.options import AsJson, Registry, show_json
from registry.store.open import open_store


@app.command()
def onboard(
    *,
    items: Annotated[Path, typer.Argument(help="CSV, TSV, JSONL or Parquet: item_id, title, text columns.")],
    release: Annotated[str, typer.Option(help="The release to add them to, or its channel.")] = "production",
    registry: Registry,
    cache: Annotated[Path | None, typer.Option(help="Folder of text vectors that survives runs.")] = None,
    dataset: Annotated[Path | None, typer.Option(help="The dataset.json that says how to read them.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a release with new items, scored through their semantic IDs; no channel moves."""
    from orchestration.onboard import onboard_items

    store = open_store(registry)
    result = onboard_items(store, find(store, release), items, cache, dataset)
    if as_json:
        show_json({"release": result.manifest.release, "added": result.n_new, "known": result.n_known})
        return
    digest, parent = result.manifest.release[:12], (result.manifest.parent or "")[:12]
    typer.echo(
        f"Wrote release {digest}: {parent} with {result.n_new} new items ({result.n_known} were known)."
    )
    typer.echo(f"Put it in use: car registry promote {digest} --channel staging --reason '...'")
