"""Errors, interruptions and tables of every command line, as a person sees them."""

from __future__ import annotations

import errno
import io
import os
import runpy
import warnings

import pytest
import typer
from typer.testing import CliRunner

from common.cli import PlainConsole, command_group, plain_table
from common.code_digest import image_digest
from common.errors import UserError

SENTENCE = "a.json is damaged: " + "its checksum is another one; " * 5 + "write it again."
NO_ROOM = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out.json")
FORBIDDEN = PermissionError(errno.EACCES, os.strerror(errno.EACCES), "out.json")


def fail_with(error: BaseException) -> typer.Typer:
    app = command_group("A test.")

    @app.command()
    def walk() -> None:
        raise error

    @app.command()
    def run() -> None:
        raise error

    return app


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError(SENTENCE), 1, SENTENCE),
        (NO_ROOM, 1, "There is no room for out.json (No space left on device): free some and run again."),
        (FORBIDDEN, 1, "out.json cannot be used: Permission denied."),
        (KeyboardInterrupt(), 130, "Stopped; run again to continue after the last finished step."),
    ],
)
def test_a_failure_is_one_line_on_stderr_however_narrow_the_terminal(
    error: BaseException, code: int, line: str
) -> None:
    result = CliRunner().invoke(fail_with(error), ["run"], env={"COLUMNS": "40"})
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.splitlines() == [line]


@pytest.mark.parametrize("error", [OSError("no file is named"), ValueError("a mistake of ours")])
def test_what_nobody_expected_keeps_its_traceback(error: Exception) -> None:
    result = CliRunner().invoke(fail_with(error), ["run"])
    assert result.exception is error


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_help_is_shown_when_nothing_is_asked_and_by_both_flags(arguments: list[str]) -> None:
    result = CliRunner().invoke(fail_with(ValueError()), arguments)
    assert "A test." in result.output
    assert "walk" in result.output


def test_a_table_has_one_line_under_its_header_and_none_around_it() -> None:
    stream = io.StringIO()
    table = plain_table("Step", "Seconds")
    table.add_row("ingest", "2.0")
    table.add_row("train", "31.5")
    PlainConsole(file=stream, width=80).print(table)
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert lines == [
        "Step     Seconds",
        "────────────────",
        "ingest   2.0",
        "train    31.5",
    ]


def test_the_header_of_a_table_stands_out_on_a_terminal() -> None:
    stream = io.StringIO()
    table = plain_table("Step")
    table.add_row("train")
    PlainConsole(file=stream, width=80, force_terminal=True, color_system="standard").print(table)
    assert "\x1b[1mStep" in stream.getvalue()
    assert "\x1b[1mtrain" not in stream.getvalue()


def test_the_digest_of_the_code_is_printed_when_asked_for_and_not_on_import(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with warnings.catch_warnings(action="ignore"):
        runpy.run_module("common.code_digest", run_name="__main__")
        assert capsys.readouterr().out == f"{image_digest()}\n"
        runpy.run_module("common.code_digest", run_name="imported")
    assert capsys.readouterr().out == ""
