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
from registry.errors import RegistryError
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
        Console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        typer.echo("Stopped; run again to go on after the last finished step.", err=True)
        raise typer.Exit(130) from None
