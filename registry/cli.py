"""`python -m registry`: look at releases and move channels."""

from __future__ import annotations

import getpass
import json
import socket
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType

from registry import channel as channels
from registry.log import Entry
from registry.release import find_release, list_releases, read_manifest
from registry.store import ObjectStore, open_store
from registry.tables import history_table, release_view, releases_table

DEFAULT_REGISTRY = ".car/registry"

app = typer.Typer(
    help="Look at releases and move the channels that say which one is in use.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def this_user() -> str:
    """user@host, as entries record it."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


Registry = Annotated[
    str, typer.Option(envvar="CAR_REGISTRY", help="A folder, or gs://bucket/prefix.", show_default=True)
]
Channel = Annotated[str, typer.Option("--channel", "-c", help="The channel's name.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Why = Annotated[str, typer.Option("--why", "--reason", help="The reason, for the audit trail.")]
Who = Annotated[
    str, typer.Option(default_factory=this_user, help="Who moves the channel.", show_default="user@host")
]
Expected = Annotated[
    int | None,
    typer.Option(
        help="Do it only if the channel's last entry has this number (0: none).", show_default=False
    ),
]
Release = Annotated[
    str, typer.Argument(help="A release's digest, or its first characters.", show_default=False)
]


@app.command("list")
def list_command(registry: Registry = DEFAULT_REGISTRY, as_json: AsJson = False) -> None:
    """List the releases, newest first, and the channels that use them."""
    store = open_store(registry)
    releases, used_by = list_releases(store), _used_by(store)
    if as_json:
        _print_json(
            [one.model_dump(mode="json") | {"channels": used_by.get(one.release, [])} for one in releases]
        )
    elif releases:
        _print(releases_table(releases, used_by))
    else:
        typer.echo(f"No releases in {store.url}.")


@app.command()
def show(
    release: Annotated[
        str,
        typer.Argument(help="A release's digest, its first characters, or a channel.", show_default=False),
    ],
    registry: Registry = DEFAULT_REGISTRY,
    as_json: AsJson = False,
) -> None:
    """Show all that a release's manifest says."""
    store = open_store(registry)
    used_by = _used_by(store)
    in_channel = [digest for digest, names in used_by.items() if release in names]
    manifest = read_manifest(store, in_channel[0] if in_channel else find_release(store, release))
    names = used_by.get(manifest.release, [])
    if as_json:
        _print_json(manifest.model_dump(mode="json") | {"channels": names})
    else:
        _print(release_view(manifest, names))


@app.command()
def history(
    registry: Registry = DEFAULT_REGISTRY, channel: Channel = "production", as_json: AsJson = False
) -> None:
    """Show who put which release in use, when and why; newest first."""
    store = open_store(registry)
    entries = channels.history(store, channel)[::-1]
    if as_json:
        _print_json([entry.model_dump(mode="json") for entry in entries])
    elif entries:
        _print(history_table(entries))
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
    force: Annotated[bool, typer.Option("--force", help="Promote against the gate's verdict.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a release in use."""
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
        _print_json(entry.model_dump(mode="json"))
    elif before and before.nonce == entry.nonce:
        typer.echo(f"{channel} already uses {entry.release[:12]} (entry {entry.number}); nothing to do.")
    else:
        came = f", after {entry.previous[:12]}" if entry.previous else ""
        typer.echo(f"{channel} now uses {entry.release[:12]} (entry {entry.number}, {entry.action}{came}).")


def _print(view: RenderableType) -> None:
    Console(highlight=False).print(view)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
