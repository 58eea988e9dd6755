"""What every command line prints: text as it is, whatever it holds."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest
from rich.text import Text

from common.cli import PlainConsole, plain_table

ROOT = Path(__file__).resolve().parents[2]
ODD = ("[/]", "[import]", "[bold]tea[/bold]", "[/red]", "\\[x]", "[link=x]y", ":tea: 12:30", "1 of 3 [2]")


@pytest.mark.parametrize("text", ODD)
def test_text_is_printed_as_it_is(text: str) -> None:
    stream = io.StringIO()
    table = plain_table("#", text)
    table.add_row("1", text)
    table.title = text
    console = PlainConsole(file=stream, width=80)
    console.print(text)
    console.print(table)
    assert stream.getvalue().count(text) == 4


def test_escape_sequences_are_visible_and_styles_still_work() -> None:
    stream = io.StringIO()
    console = PlainConsole(file=stream, force_terminal=True, color_system="standard", width=80)
    table = plain_table("#", "title")
    table.add_row(Text("x", "green"), "a\x1b[31mb\x9bc\rd\x07")
    console.print(table)
    printed = stream.getvalue()
    assert "a\\x1b[31mb\\x9bc\\rd\\x07" in printed
    assert "\x1b[32mx" in printed


def test_only_the_plain_console_prints() -> None:
    command = ["git", "grep", "-lE", r"\bConsole\(|rich\.markup", "--", "*.py", ":!tests", ":!benchmarks"]
    files = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    assert files == []
