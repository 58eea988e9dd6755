"""Progress of a running pipeline: one line per step, and the running step's progress bar."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from typing import TextIO

from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from common.cli import PlainConsole

BAR = re.compile(r"\d+%\|")  # tqdm's mark
QUIET_SECONDS = 15.0  # between two prints of a bar if lines cannot be overwritten


class Progress:
    """Prints to what standard output is at construction, even if that is redirected later.

    On a terminal the running step's bar moves in place; elsewhere it is printed every 15 seconds.
    """

    def __init__(
        self,
        total: int,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        quiet: float = QUIET_SECONDS,
    ) -> None:
        self.console = PlainConsole(file=stream or sys.stdout, soft_wrap=True)
        self.total, self.done = total, 0
        self._clock, self._quiet = clock, quiet
        self._spinner = Spinner("dots")
        self._live: Live | None = None
        self._step = ""
        self._start = self._last_print = 0.0

    def started(self, step: str) -> None:
        """A step starts."""
        self._step, self._start = step, self._clock()
        self._last_print = self._start
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            self._spinner.update(text=Text(step))
            # Rich would put back its own standard output: what the step writes belongs to the log.
            self._live = Live(
                self._spinner,
                console=self.console,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()

    def line(self, text: str) -> None:
        """Take a line of the running step's output; only progress bars are shown."""
        if not BAR.search(text):
            return
        if self._live:
            self._spinner.update(text=Text(f"{self._step}  {text}", no_wrap=True, overflow="crop"))
        elif self._clock() - self._last_print >= self._quiet:
            self._last_print = self._clock()
            self.console.print(f"        {text}")

    def finished(self, step: str) -> None:
        """The running step succeeded."""
        self.ended(step, f"{self._clock() - self._start:6.1f} s")

    def cached(self, step: str) -> None:
        """A step was skipped because an earlier run had the same inputs."""
        self.ended(step, "  cached")

    def failed(self, step: str) -> None:
        """The running step failed."""
        self.ended(step, "  failed", style="red")

    def close(self) -> None:
        """Stop the animation."""
        if self._live:
            self._live.stop()
            self._live = None

    def note(self, text: str) -> None:
        """Something else that a person should know."""
        self.console.print(f"        {text}", style="yellow")

    def ended(self, step: str, outcome: str, style: str | None = None) -> None:
        """A step ended, in one way or another."""
        self.close()
        self.done += 1
        dots = "." * max(2, 26 - len(step))
        self.console.print(f"[{self.done:2}/{self.total}] {step} {dots} {outcome}", style=style)
