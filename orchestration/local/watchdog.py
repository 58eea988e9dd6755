"""Watchdog: kill leftover step processes when the parent run dies.

`python -m orchestration.local.watchdog FOLDER SESSION` waits until its standard input closes, which happens
however the run's process ends, and kills the run's remaining steps. A server started by the deploy step has
a session of its own, so it stays.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

RUN = "CAR_LOCAL_RUN"  # a run's folder, in the environment of its steps


@contextmanager
def watchdog(folder: Path) -> Iterator[None]:
    """Within the block, steps (processes with `RUN` in their environment) end with this process."""
    command = [sys.executable, "-m", "orchestration.local.watchdog", str(folder), str(os.getsid(0))]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, start_new_session=True):
        yield  # leaving closes its input, and waits for it


def end_steps(folder: str, session: int) -> int:
    """Kill the processes of a run in a session; returns their number."""
    count = 0
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if process.environ().get(RUN) == folder and os.getsid(process.pid) == session:
                process.kill()
                count += 1
    return count


def main() -> None:
    """Wait for the run's process to end, then end its steps."""
    sys.stdin.read()
    end_steps(sys.argv[1], int(sys.argv[2]))


if __name__ == "__main__":
    main()
