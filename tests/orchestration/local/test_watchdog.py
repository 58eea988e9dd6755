"""Steps end with their run, a server that one of them started does not."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

RUN = """
import os, subprocess, sys, time
from pathlib import Path
from orchestration.local.watchdog import RUN, watchdog

folder = Path(sys.argv[1])
os.environ[RUN] = str(folder)
with watchdog(folder):
    step = subprocess.Popen(["sleep", "60"])
    server = subprocess.Popen(["sleep", "60"], start_new_session=True)
    print(step.pid, server.pid, flush=True)
    time.sleep(60)
"""


def test_a_killed_run_takes_its_steps_along_but_no_server(tmp_path: Path) -> None:
    run = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert run.stdout
    step, server = (psutil.Process(int(pid)) for pid in run.stdout.readline().split())
    run.send_signal(signal.SIGKILL)
    run.wait()
    until = time.monotonic() + 30
    while step.is_running() and step.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert server.is_running()
    server.kill()
