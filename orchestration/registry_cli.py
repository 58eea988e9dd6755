"""The registry's commands, with those that need more: the model library, or the servers of this machine."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from common.home import Home, HomeError
from registry.channels import channel as channels
from registry.cli.commands import app, show_entry
from registry.cli.options import (
    AsJson,
    Channel,
    Expected,
    Registry,
    Release,
    Who,
    Why,
    car_command,
    show_json,
    show_problems,
    show_table,
)
from registry.cli.tables import history_table
from registry.releases.layout import STAGING
from registry.releases.release import find_release
from registry.store.open import open_store


@app.command()
def history(registry: Registry, channel: Channel = "production", as_json: AsJson = False) -> None:
    """Show who put which release in use, when and why; newest first."""
    from serving.deployment.deploy_channel import find_difference
    from serving.torchserve.state_dir import ServedChannel, StateDir

    store = open_store(registry)
    channels.require_channel(store, channel)
    entries = channels.history(store, channel)[::-1]
    if as_json:
        show_json([entry.model_dump(mode="json") for entry in entries])
    elif entries:
        show_table(history_table(entries))
    else:
        typer.echo(f"The channel {channel} in {store.url} is empty.")
    problems = list[str]()
    for state in map(StateDir, Home.all_servers(problems)):
        served = ServedChannel.load_or_none(state)
        if served and served.matches(ServedChannel.of(state, channel, store.url)):
            problems += find_difference(state)
    show_problems(problems)


@app.command()
def promote(
    *,
    release: Release,
    why: Why,
    who: Who,
    registry: Registry,
    channel: Channel = "production",
    new_channel: Annotated[
        bool, typer.Option("--new-channel", help="Make the channel if it is not there.")
    ] = False,
    expected: Expected = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Even if the gate did not bless it, never compared it, or it was never in staging.",
        ),
    ] = False,
    validate: Annotated[
        bool,
        typer.Option(
            help="Prove first that the release can be served, if that was never done (not for staging); "
            "--no-validate refuses it instead, for hosts without TorchServe."
        ),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Put a release in use. Production takes only releases that were in staging before."""
    from serving.deployment.deploy_channel import require_validation

    store = open_store(registry)
    channels.require_channel(store, channel, new=new_channel)
    before = channels.head(store, channel)
    digest = find_release(store, release)

    def prepare() -> None:
        if channel != STAGING and (report := require_validation(store, digest, who if validate else None)):
            typer.echo(report.summary(), err=True)

    entry = channels.promote(
        store, channel, digest, who=who, why=why, expected=expected, force=force, prepare=prepare
    )
    show_entry(channel, before, entry, as_json)


@app.command()
def onboard(
    *,
    items: Annotated[Path, typer.Argument(help="CSV, TSV, JSONL or Parquet: item_id, title, text columns.")],
    release: Annotated[str, typer.Option(help="The release to add them to, or its channel.")] = "production",
    registry: Registry,
    cache: Annotated[Path | None, typer.Option(help="Folder of text vectors that survives runs.")] = None,
    dataset: Annotated[
        Path | None,
        typer.Option(help="The dataset.json that says how to read them; by default the home's, if it fits."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a release with new items, scored through their semantic IDs; no channel moves."""
    from orchestration.onboard import onboard_items

    store = open_store(registry)
    of_home = None
    with suppress(HomeError):  # a registry that was named needs no home
        home = Home.load()
        of_home = home.mapping if open_store(home.registry).url == store.url else None
    result = onboard_items(store, channels.find(store, release), items, cache, dataset, likely_config=of_home)
    if as_json:
        show_json({"release": result.manifest.release, "added": result.n_new, "known": result.n_known})
        return
    digest, parent = result.manifest.release[:12], (result.manifest.parent or "")[:12]
    typer.echo(
        f"Wrote release {digest}: {parent} with {result.n_new} new items ({result.n_known} were known)."
    )
    typer.echo("No channel uses it yet. To put it in use:")
    for words, effect in (
        (f"registry promote {digest} --channel {STAGING} --why '...'", "to look at it"),
        (f"infra-validate {digest}", "a TorchServe must give its golden answers"),
        (f"registry promote {digest} --why '...'", "production uses it"),
        ("deploy production", "this machine's server; pods and --follow do so by themselves"),
    ):
        typer.echo(f"  {car_command(words, store.url)}  # {effect}")
