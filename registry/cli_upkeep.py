"""`python -m registry verify | gc | diff`: keep a registry whole and small, and compare what is in it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from registry.channel import find
from registry.options import DEFAULT_REGISTRY, AsJson, Registry, show_json
from registry.store import open_store
from registry.tables import size_text
from registry.verify import Findings, verify_all, verify_releases

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


def _summary(findings: Findings) -> str:
    checked = (
        f"Checked {findings.releases} releases, {findings.blobs} files ({size_text(findings.size)}) and "
        f"{findings.channels} channels"
    )
    return f"{checked}: {len(findings.damage)} damaged." if findings.damage else f"{checked}: all is whole."
