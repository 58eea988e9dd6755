"""The commands that look after the folders of local runs: local-runs, clean."""

from __future__ import annotations

from typing import Annotated

import typer

from common.cli import PlainConsole, command_group, plain_table
from common.code_digest import code_digest
from common.home import WORK, Home
from registry.cli.tables import format_size

app = command_group("Look after the folders of local runs.")


@app.command("local-runs")
def local_runs(
    *,
    run: Annotated[
        str,
        typer.Argument(help="A run id or its beginning, a release or a channel: print that run's folder."),
    ] = "",
    registry: Annotated[
        str, typer.Option(envvar="CAR_REGISTRY", help="Where the release is; default: the home's.")
    ] = "",
) -> None:
    """List the runs of this machine, newest first, or find the folder of one."""
    from orchestration.local.runs import find_run, find_runs

    if run:
        typer.echo(find_run(WORK, run, registry or Home.load().registry).path)
        return
    table = plain_table("run", "folder", "size")
    for local in find_runs(WORK):
        table.add_row(local.run_id, str(local.path), format_size(local.size))
    PlainConsole(width=None if PlainConsole().is_terminal else 160).print(table)


@app.command()
def clean(
    *,
    keep: Annotated[int, typer.Option(min=1, help="How many runs stay, the newest.")] = 5,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")
    ] = False,
) -> None:
    """Remove the folders of old runs, and the caches of code that this checkout no longer has.

    Releases, servers and homes stay. While a run goes on, nothing is removed.
    """
    from orchestration.local.runs import clean as clean_runs
    from orchestration.local.runs import old_runs

    old = (old_runs if dry_run else clean_runs)(WORK, keep, code_digest())
    needed = f", {old.needed} of them because a newer one took outputs from them" if old.needed else ""
    typer.echo(
        f"{'Dry run; would free' if dry_run else 'Freed'} {format_size(old.size)}: {len(old.folders)} runs, "
        f"{len(old.caches)} caches of other code. {old.remaining} runs stay{needed}."
    )
