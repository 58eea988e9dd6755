"""`python -m registry verify | gc | diff`: keep a registry whole and small, and compare what is in it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer

from registry.channels.channel import find
from registry.cli.options import DEFAULT_REGISTRY, AsJson, Registry, ReleaseOrChannel, show_json, show_view
from registry.cli.tables import diff_view, size_text
from registry.maintenance.diff import compare
from registry.maintenance.garbage_collect import GRACE, collect, plan
from registry.maintenance.verify import Findings, verify_all, verify_releases
from registry.store.open import open_store

upkeep = typer.Typer()


@upkeep.command()
def verify(
    release: Annotated[
        str | None,
        typer.Argument(
            help="A release's digest, its first characters, or a channel; without it all is checked.",
            show_default=False,
        ),
    ] = None,
    registry: Registry = DEFAULT_REGISTRY,
    every: Annotated[bool, typer.Option("--all", help="Check every release and every channel.")] = False,
    as_json: AsJson = False,
) -> None:
    """Hash stored files again and follow the channels' logs; exit code 1 where something is damaged."""
    if release is not None and every:
        raise typer.BadParameter("name a release or a channel, or say --all, not both.")
    store = open_store(registry)
    findings = verify_all(store) if release is None else verify_releases(store, [find(store, release)])
    if as_json:
        show_json(asdict(findings))
    else:
        for one in findings.damage:
            typer.echo(one.what)
        typer.echo(_summary(findings))
    if findings.damage:
        raise typer.Exit(1)


@upkeep.command()
def diff(
    before: ReleaseOrChannel,
    after: ReleaseOrChannel,
    registry: Registry = DEFAULT_REGISTRY,
    as_json: AsJson = False,
) -> None:
    """Show what changed between two releases."""
    store = open_store(registry)
    found = compare(store, find(store, before), find(store, after))
    if as_json:
        show_json(found.model_dump(mode="json"))
    else:
        show_view(diff_view(found))


@upkeep.command()
def gc(
    keep: Annotated[
        int, typer.Option(min=1, help="Keep what the last N entries of any channel name.", show_default=False)
    ],
    grace: Annotated[
        float, typer.Option("--grace-hours", min=0, help="Keep what was written or used since then.")
    ] = GRACE.total_seconds() / 3600,
    registry: Registry = DEFAULT_REGISTRY,
    delete: Annotated[
        bool, typer.Option("--delete", help="Do it; without it, only say what would go.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove releases that fell out of use, and files that no release needs."""
    work = collect if delete else plan
    done = work(open_store(registry), keep, timedelta(hours=grace))
    names = [one.name for one in (*done.releases, *done.blobs)]
    if as_json:
        show_json({"deleted": delete, "objects": names, "bytes": done.size, "kept": done.kept})
        return
    for name in names:
        typer.echo(name)
    went = "went" if delete else "would go (--delete does it)"
    typer.echo(
        f"{len(done.releases)} releases and {len(done.blobs)} files, {size_text(done.size)}, {went}; "
        f"{done.kept} releases stay."
    )


def _summary(findings: Findings) -> str:
    checked = (
        f"Checked {findings.releases} releases, {findings.blobs} files ({size_text(findings.size)}) and "
        f"{findings.channels} channels"
    )
    return f"{checked}: {len(findings.damage)} damaged." if findings.damage else f"{checked}: all is whole."
