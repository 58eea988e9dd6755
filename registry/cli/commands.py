"""`car registry`: inspect releases, move channels, and keep a registry whole and small."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer

from common.cli import PlainConsole, command_group
from registry.channels import channel as channels
from registry.channels.log import Entry
from registry.cli.options import (
    AsJson,
    Channel,
    Expected,
    Registry,
    ReleaseOrChannel,
    Who,
    Why,
    show_json,
    show_problems,
    show_table,
)
from registry.cli.tables import difference_table, format_size, manifest_table, releases_table
from registry.maintenance.diff import compare
from registry.maintenance.garbage_collection import GRACE, find_garbage, garbage_collect
from registry.maintenance.verify import verify as verify_registry
from registry.releases.fetch import FetchedRelease
from registry.releases.gate import read_gate
from registry.releases.recipe import read_recipe
from registry.releases.release import find_release, list_releases, read_manifest
from registry.releases.validations import read_validations
from registry.store.base import in_parallel
from registry.store.open import open_store

app = command_group("Inspect releases, and move the channels that say which release is in use.")


@app.command("list")
def list_command(registry: Registry, as_json: AsJson = False) -> None:
    """List all releases, newest first, and the channels that use them."""
    store, problems = open_store(registry), list[str]()
    manifests, used_by = list_releases(store, problems), channels.channels_by_release(store, problems)
    gates = in_parallel(read_gate, [(store, manifest) for manifest in manifests])
    if as_json:
        show_json(
            [
                manifest.model_dump(mode="json")
                | {"gate": gate.model_dump(), "channels": used_by.get(manifest.release, [])}
                for manifest, gate in zip(manifests, gates, strict=True)
            ]
        )
    elif manifests:
        show_table(releases_table(manifests, gates, used_by))
    elif not problems:
        typer.echo(f"No releases in {store.url}.")
    show_problems(problems)


@app.command()
def show(release: ReleaseOrChannel, registry: Registry, as_json: AsJson = False) -> None:
    """Show a release's manifest, the gate's answer and the later validations."""
    store, problems = open_store(registry), list[str]()
    manifest = read_manifest(store, channels.find(store, release))
    gate, validations = read_gate(store, manifest), read_validations(store, manifest.release)
    recipe = read_recipe(FetchedRelease(store, manifest))
    used_by = channels.channels_by_release(store, problems).get(manifest.release, [])
    if as_json:
        reports = [validation.model_dump(mode="json") for validation in validations]
        facts = {"gate": gate.model_dump(), "channels": used_by, "validations": reports}
        trained = {"recipe": recipe.to_json() if recipe else None}
        show_json(manifest.model_dump(mode="json") | facts | trained)
    else:
        show_table(manifest_table(manifest, gate, used_by, validations, recipe))
    show_problems(problems)


@app.command()
def rollback(
    *,
    why: Why,
    who: Who,
    registry: Registry,
    channel: Channel = "production",
    to: Annotated[
        str | None,
        typer.Option(help="The release to return to; default: the previous one.", show_default=False),
    ] = None,
    expected: Expected = None,
    as_json: AsJson = False,
) -> None:
    """Return to the previous release. Works like undo: a second rollback returns to the one before."""
    store = open_store(registry)
    channels.require_channel(store, channel)
    before = channels.head(store, channel)
    target = find_release(store, to) if to else None
    entry = channels.rollback(store, channel, who=who, why=why, to=target, expected=expected)
    show_entry(channel, before, entry, as_json)


@app.command()
def diff(
    before: ReleaseOrChannel,
    after: ReleaseOrChannel,
    registry: Registry,
    as_json: AsJson = False,
) -> None:
    """Show what changed between two releases."""
    store = open_store(registry)
    difference = compare(store, channels.find(store, before), channels.find(store, after))
    if as_json:
        show_json(difference.model_dump(mode="json"))
    else:
        show_table(difference_table(difference))


@app.command()
def verify(
    *,
    release: Annotated[
        str | None,
        typer.Argument(
            help="A release's digest, its first characters, or a channel; default: everything.",
            show_default=False,
        ),
    ] = None,
    registry: Registry,
    every: Annotated[bool, typer.Option("--all", help="Verify every release and every channel.")] = False,
    as_json: AsJson = False,
) -> None:
    """Hash stored files again and check the channels' logs. Exit code 1 if anything is damaged."""
    if release is not None and every:
        raise typer.BadParameter("name a release or a channel, or say --all, not both.")
    store = open_store(registry)
    findings = verify_registry(store, channels.find(store, release) if release else None)
    if as_json:
        show_json(asdict(findings))
    else:
        show_problems(
            f"{store.url}/{name} is no file of a registry and is left alone." for name in findings.strays
        )
        for damage in findings.damage:
            PlainConsole().print(damage.what, soft_wrap=True)
        result = f"{len(findings.damage)} damaged" if findings.damage else "no damage"
        typer.echo(
            f"Checked {findings.releases} releases, {findings.blobs} files ({format_size(findings.size)}) "
            f"and {findings.channels} channels: {result}."
        )
    if findings.damage:
        raise typer.Exit(1)


@app.command()
def gc(
    *,
    keep: Annotated[
        int,
        typer.Option(
            min=1, help="Keep the releases in the last N entries of any channel.", show_default=False
        ),
    ],
    grace: Annotated[
        float, typer.Option("--grace-hours", min=0, help="Keep what was written or used within this time.")
    ] = GRACE.total_seconds() / 3600,
    registry: Registry,
    delete: Annotated[bool, typer.Option("--delete", help="Delete. Without this flag: dry run.")] = False,
    as_json: AsJson = False,
) -> None:
    """Garbage collection: delete releases that are out of use, and files that no release needs."""
    work = garbage_collect if delete else find_garbage
    garbage = work(open_store(registry), keep, timedelta(hours=grace))
    names = [state.name for state in garbage.objects]
    show_problems(garbage.problems)
    if as_json:
        show_json({"deleted": delete, "objects": names, "bytes": garbage.size, "kept": garbage.n_remaining})
        return
    for name in names:
        PlainConsole().print(name, soft_wrap=True)
    typer.echo(
        f"{'Deleted' if delete else 'Dry run, nothing was deleted. With --delete:'} "
        f"{len(garbage.manifests)} releases and {len(names) - len(garbage.manifests)} files, "
        f"{format_size(garbage.size)}; {garbage.n_remaining} releases stay."
    )


def show_entry(channel: str, before: Entry | None, entry: Entry, as_json: bool) -> None:
    """Print what became of a channel."""
    if as_json:
        show_json(entry.model_dump(mode="json"))
    elif before and before.nonce == entry.nonce:
        typer.echo(f"{channel} already uses {entry.release[:12]} (entry {entry.number}); nothing to do.")
    else:
        previous = f", after {entry.previous[:12]}" if entry.previous else ""
        typer.echo(
            f"{channel} now uses {entry.release[:12]} (entry {entry.number}, {entry.action}{previous})."
        )
