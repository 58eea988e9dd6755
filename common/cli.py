"""One style for every command line: errors in one sentence, exit codes, help."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from common.errors import DISK_FULL, UserError, disk_full_message

DONE, FAILED, USAGE, NOT_PROMOTED, INTERRUPTED = 0, 1, 2, 3, 130  # exit codes; click exits with USAGE
# All but tab and line feed, and what turns the direction of text: they can steer a terminal.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


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
        raise typer.Exit(FAILED) from error
    except OSError as error:
        if error.errno in DISK_FULL:
            _print_error(disk_full_message(error.filename or "what this command writes", error))
        elif error.filename:
            _print_error(f"{error.filename} cannot be used: {error.strerror}.")
        else:
            raise
        raise typer.Exit(FAILED) from error
    except KeyboardInterrupt:
        typer.echo("Stopped; run again to continue after the last finished step.", err=True)
        raise typer.Exit(INTERRUPTED) from None


class ReportingGroup(TyperGroup):
    """A group of commands whose expected errors are printed as one sentence; see `report_errors`."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        with report_errors():
            return super().invoke(ctx)


def command_group(help_text: str) -> typer.Typer:
    """An empty command line in the style of all of them."""
    return typer.Typer(
        cls=ReportingGroup,
        help=help_text,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def plain_table(*columns: str) -> Table:
    """An empty table in the style of all of them."""
    return Table(
        *columns, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1), header_style="bold"
    )


class PlainConsole(Console):
    """A console that prints text as it is: brackets are no markup, `:tea:` is no emoji, escapes are visible.

    What is to be bold or coloured is a `Text` with a style.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Turn a string, printed or in a table's cell, into text; control characters are shown as escapes."""
        return super().render_str(CONTROL.sub(lambda match: repr(match[0])[1:-1], text), **options)


def _print_error(sentence: str) -> None:
    PlainConsole(stderr=True).print(sentence, style="red", soft_wrap=True)
