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


if __name__ == "__main__":
    folder, session = sys.argv[1:]
    sys.stdin.read()  # until the run's process has ended
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if process.environ().get(RUN) == folder and os.getsid(process.pid) == int(session):
                process.kill()
