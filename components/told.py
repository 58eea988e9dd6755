"""How a command ends where something is wrong: one sentence on stderr, exit code 1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from components.access import AccessError
from components.arguments import ArgumentError
from components.cluster import ClusterError
from components.image import ContainerError
from components.local import StepError
from components.submit import SubmitError
from registry.errors import NO_ROOM, RegistryError, no_room
from serving.archive import ArchiveError
from serving.state import ServingError

TOLD = (
    AccessError, ArgumentError, ClusterError, ContainerError, StepError, SubmitError,
    ServingError, ArchiveError, RegistryError,
)  # fmt: skip


@contextmanager
def told() -> Iterator[None]:
    """End the command with one sentence for what a person can act on."""
    try:
        yield
    except TOLD as error:
        _say(str(error))
        raise typer.Exit(1) from error
    except OSError as error:
        if error.errno in NO_ROOM:
            _say(no_room(error.filename or "what this command writes", error))
        elif error.filename:
            _say(f"{error.filename} cannot be used: {error.strerror}.")
        else:
            raise
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        typer.echo("Stopped; run again to go on after the last finished step.", err=True)
        raise typer.Exit(130) from None


def _say(sentence: str) -> None:
    Console(stderr=True).print(sentence, style="red", markup=False, highlight=False, soft_wrap=True)
