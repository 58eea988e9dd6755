"""Turn expected errors into a one-line message and exit code 1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from common.errors import DISK_FULL, UserError, disk_full_message


@contextmanager
def report_errors() -> Iterator[None]:
    """Print an expected error of the block as one sentence on stderr, without a traceback, and exit.

    Raises:
        typer.Exit: with code 1 after a UserError or a file that can't be used, with 130 after Ctrl-C.
    """
    try:
        yield
    except UserError as error:
        _print_error(str(error))
        raise typer.Exit(1) from error
    except OSError as error:
        if error.errno in DISK_FULL:
            _print_error(disk_full_message(error.filename or "what this command writes", error))
        elif error.filename:
            _print_error(f"{error.filename} cannot be used: {error.strerror}.")
        else:
            raise
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        typer.echo("Stopped; run again to go on after the last finished step.", err=True)
        raise typer.Exit(130) from None


def _print_error(sentence: str) -> None:
    Console(stderr=True).print(sentence, style="red", markup=False, highlight=False, soft_wrap=True)
