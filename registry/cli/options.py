"""Options that the registry's commands share."""

from __future__ import annotations

import getpass
import json
import shlex
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from common.cli import PlainConsole
from common.home import WORK, Home, HomeError, requested


def this_user() -> str:
    """user@host, as channel entries record it."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def home_registry() -> str:
    """The registry of the home. Raises HomeError before any run."""
    home = Home.load()
    if not home.is_recorded:
        raise HomeError(
            f"No run has made a home in {WORK.resolve()}: go to the folder in which car run ran, or name a "
            "registry with --registry."
        )
    return home.registry


def car_command(words: str, registry: str) -> str:
    """A line to paste, in any shell that is in this folder, for a command on this registry."""
    with suppress(HomeError):
        home = Home.load()
        same = home.registry == registry or Path(home.registry).resolve() == Path(registry).resolve()
        if home.is_recorded and same:
            return f"car --home {home.name} {words}" if requested.get() else f"car {words}"
    return f"car {words} --registry {shlex.quote(registry)}"


Registry = Annotated[
    str,
    typer.Option(
        envvar="CAR_REGISTRY",
        help="A folder, or gs://bucket/prefix.",
        default_factory=home_registry,
        show_default="the home's",
    ),
]
Channel = Annotated[str, typer.Option("--channel", "-c", help="Name of the channel.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Why = Annotated[str, typer.Option("--why", "--reason", help="The reason, for the audit trail.")]
Who = Annotated[
    str, typer.Option(default_factory=this_user, help="Who moves the channel.", show_default="user@host")
]
Expected = Annotated[
    int | None,
    typer.Option(
        help="Fail unless the channel's last entry has this number (0: no entry).", show_default=False
    ),
]
Release = Annotated[
    str, typer.Argument(help="A release's digest, or its first characters.", show_default=False)
]
ReleaseOrChannel = Annotated[
    str, typer.Argument(help="A release's digest, its first characters, or a channel.", show_default=False)
]


def show_table(table: RenderableType) -> None:
    """Print a table for people."""
    PlainConsole().print(table)


def show_problems(sentences: Iterable[str]) -> None:
    """Print what was passed over, on stderr."""
    for sentence in sentences:
        PlainConsole(stderr=True).print(sentence, soft_wrap=True)


def show_json(value: Any) -> None:
    """Print plain values as JSON for machines."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
