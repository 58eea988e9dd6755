"""The lines a person sees during a run."""

from __future__ import annotations

import contextlib
import io
import time

import pytest

from orchestration.local.progress import Progress

BAR = "train CAR:  40%|████      | 12/30 [00:40<01:00,  2.1it/s]"


def test_steps_are_numbered_in_the_order_they_end() -> None:
    stream = io.StringIO()
    progress = Progress(3, stream)
    progress.cached("ingest")
    progress.started("train")
    progress.line("epoch 1 of 30")
    progress.failed("train")
    assert stream.getvalue().splitlines() == [
        "[ 1/3] ingest ....................   cached",
        "[ 2/3] train .....................   failed",
    ]


def test_bars_are_repeated_now_and_then_where_lines_cannot_be_overwritten() -> None:
    now = 0.0
    stream = io.StringIO()
    progress = Progress(1, stream, clock=lambda: now)
    progress.started("train")
    for now in range(0, 60, 5):  # noqa: B007 - the clock reads it
        progress.line(BAR)
        progress.line("any other line")
    now = 60.0
    progress.finished("train")
    shown = stream.getvalue().splitlines()
    assert shown == [f"        {BAR}"] * 3 + ["[ 1/1] train .....................   60.0 s"]


def test_on_a_terminal_the_bar_moves_and_what_a_step_writes_stays_off_the_screen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream, log = Terminal(), io.StringIO()
    progress = Progress(1, stream)
    with contextlib.redirect_stdout(log):
        progress.started("train")
        print("a line of the step's")
        progress.line(BAR)
        time.sleep(0.5)  # two refreshes
        progress.finished("train")
    assert log.getvalue() == "a line of the step's\n"
    assert "a line of the step's" not in stream.getvalue()
    assert "train  train CAR:  40%" in stream.getvalue()
    assert "[ 1/1] train" in stream.getvalue()


def test_what_a_step_writes_is_never_read_as_markup() -> None:
    stream = io.StringIO()
    progress = Progress(1, stream, clock=lambda: 0.0, quiet=0.0)
    progress.started("train")
    progress.line("[bold]5%|  | [/nonsense]")
    assert stream.getvalue() == "        [bold]5%|  | [/nonsense]\n"
