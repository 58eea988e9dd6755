"""`python -m registry onboard`: let a release recommend new items without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from registry.channel import find
from registry.errors import ReleaseError
from registry.options import DEFAULT_REGISTRY, AsJson, Registry, show_json
from registry.store import open_store

onboarding = typer.Typer()


@onboarding.command()
def onboard(
    items: Annotated[Path, typer.Argument(help="CSV, TSV, JSONL or Parquet: item_id, title, text columns.")],
    release: Annotated[str, typer.Option(help="The release to add them to, or its channel.")] = "production",
    registry: Registry = DEFAULT_REGISTRY,
    cache: Annotated[Path | None, typer.Option(help="Folder of text vectors kept between runs.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a release that offers new items too, scored through their semantic IDs; no channel moves."""
    from registry.onboard import onboard_items  # noqa: PLC0415 - seconds of imports that only this needs

    store = open_store(registry)
    try:
        made = onboard_items(store, find(store, release), items, cache)
    except ValueError as error:  # the model library's sentences
        raise ReleaseError(str(error)) from error
    if as_json:
        show_json({"release": made.manifest.release, "added": made.added, "known": made.known})
        return
    short, parent = made.manifest.release[:12], (made.manifest.parent or "")[:12]
    typer.echo(f"Wrote release {short}: {parent} with {made.added} new items ({made.known} were known).")
    typer.echo(f"Put it in use: python -m registry promote {short} --channel staging --reason '...'")
