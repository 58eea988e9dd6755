"""`python -m registry`: look at releases and move channels."""

from __future__ import annotations

from typing import Annotated

import typer

from registry.channels import channel as channels
from registry.channels.log import Entry
from registry.cli.maintenance import upkeep
from registry.cli.options import (
    DEFAULT_REGISTRY,
    AsJson,
    Channel,
    Expected,
    Registry,
    Release,
    ReleaseOrChannel,
    Who,
    Why,
    show_json,
    show_view,
)
from registry.cli.tables import history_table, release_view, releases_table
from registry.releases.release import find_release, list_releases, read_manifest
from registry.releases.validations import read_validations
from registry.store.base import ObjectStore
from registry.store.open import open_store

app = typer.Typer(
    help="Look at releases and move the channels that say which one is in use.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(upkeep)


@app.command("list")
def list_command(registry: Registry = DEFAULT_REGISTRY, as_json: AsJson = False) -> None:
    """List the releases, newest first, and the channels that use them."""
    store = open_store(registry)
    releases, used_by = list_releases(store), _used_by(store)
    if as_json:
        show_json(
            [one.model_dump(mode="json") | {"channels": used_by.get(one.release, [])} for one in releases]
        )
    elif releases:
        show_view(releases_table(releases, used_by))
    else:
        typer.echo(f"No releases in {store.url}.")


@app.command()
def show(release: ReleaseOrChannel, registry: Registry = DEFAULT_REGISTRY, as_json: AsJson = False) -> None:
    """Show all that a release's manifest says, and its later infra validations."""
    store = open_store(registry)
    manifest = read_manifest(store, channels.find(store, release))
    names, validations = _used_by(store).get(manifest.release, []), read_validations(store, manifest.release)
    if as_json:
        later = [one.model_dump(mode="json") for one in validations]
        show_json(manifest.model_dump(mode="json") | {"channels": names, "validations": later})
    else:
        show_view(release_view(manifest, names, validations))


@app.command()
def history(
    registry: Registry = DEFAULT_REGISTRY, channel: Channel = "production", as_json: AsJson = False
) -> None:
    """Show who put which release in use, when and why; newest first."""
    store = open_store(registry)
    entries = channels.history(store, channel)[::-1]
    if as_json:
        show_json([entry.model_dump(mode="json") for entry in entries])
    elif entries:
        show_view(history_table(entries))
    else:
        typer.echo(f"The channel {channel} in {store.url} is empty.")


@app.command()
def promote(
    *,
    release: Release,
    why: Why,
    who: Who,
    registry: Registry = DEFAULT_REGISTRY,
    channel: Channel = "production",
    expected: Expected = None,
    force: Annotated[
        bool, typer.Option("--force", help="Promote what the gate did not bless, or was never staged.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put a release in use; production takes what was in staging before."""
    store = open_store(registry)
    before = channels.head(store, channel)
    digest = find_release(store, release)
    entry = channels.promote(store, channel, digest, who=who, why=why, expected=expected, force=force)
    _report(channel, before, entry, as_json)


@app.command()
def rollback(
    *,
    why: Why,
    who: Who,
    registry: Registry = DEFAULT_REGISTRY,
    channel: Channel = "production",
    to: Annotated[
        str | None,
        typer.Option(help="Release to go back to; else the one before the current.", show_default=False),
    ] = None,
    expected: Expected = None,
    as_json: AsJson = False,
) -> None:
    """Put the release before the current one back in use."""
    store = open_store(registry)
    before = channels.head(store, channel)
    target = find_release(store, to) if to else None
    entry = channels.rollback(store, channel, who=who, why=why, to=target, expected=expected)
    _report(channel, before, entry, as_json)


def _used_by(store: ObjectStore) -> dict[str, list[str]]:
    heads: dict[str, list[str]] = {}
    for name in channels.list_channels(store):
        entry = channels.head(store, name)
        if entry:
            heads.setdefault(entry.release, []).append(name)
    return heads


def _report(channel: str, before: Entry | None, entry: Entry, as_json: bool) -> None:
    if as_json:
        show_json(entry.model_dump(mode="json"))
    elif before and before.nonce == entry.nonce:
        typer.echo(f"{channel} already uses {entry.release[:12]} (entry {entry.number}); nothing to do.")
    else:
        came = f", after {entry.previous[:12]}" if entry.previous else ""
        typer.echo(f"{channel} now uses {entry.release[:12]} (entry {entry.number}, {entry.action}{came}).")
