"""Run a compiled pipeline on this machine with kfp.local: readable progress, a full log, one clear failure.

kfp.local reports through the root logger and prints what its child processes print. Both are captured here:
everything goes to the run's log, steps and progress bars to the screen. kfp.local would retry a failed step
and continue with steps that do not depend on it; here the first failure ends the run.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
import tempfile
import threading
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import yaml
from kfp import compiler, components, local
from kfp.dsl import Artifact
from kfp.dsl.graph_component import GraphComponent
from kfp.local import placeholder_utils

from common.code_digest import ROOT, code_digest
from common.errors import UserError
from common.home import RUNS
from orchestration.local.progress import Progress
from orchestration.local.runs import LOG, running
from orchestration.local.watchdog import RUN, watchdog
from orchestration.step import FAILURE, FAILURE_LINE

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
RUNNING = re.compile(r"Executing task '(.+)'$")
CACHED = re.compile(r"Task (\S+) cache hit")
ENDED = re.compile(r"Task '(.+)' finished with status (SUCCESS|FAILURE)")
SILENT = "it ended without a message; the system may have killed it (out of memory?)."
NO_ROOM = "No space left on device"  # as every library writes it that a step uses
TEMPORARY_BYTES = 1 << 20  # a step writes less: its own code
ENDED_WITHOUT = "Ended without a message: "  # a runner's own line about a step that could not say why


class StepError(UserError):
    """A step failed; the message names it, quotes its error and points to its pages and its log."""

    def __init__(self, step: str, sentence: str, log: Path) -> None:
        pages = sorted(log.parent.glob(f"*/{step}/*.html"))
        lines = [FAILURE.format(step=step, sentence=sentence), *(f"Its page: {page}" for page in pages)]
        super().__init__("\n".join([*lines, f"Everything it wrote: {log}"]))
        self.step, self.sentence, self.log = step, sentence, log


@dataclass(frozen=True)
class LocalRun:
    """The files of a local run."""

    ir: Path  # the compiled pipeline (IR YAML) to run
    folder: Path  # the run's artifacts and `run.log`
    cache: Path  # outputs of earlier steps by their inputs

    @classmethod
    def prepare(cls, work: Path, pipeline: GraphComponent) -> LocalRun:
        """Create a run's folder below `work` and compile the pipeline into it.

        Raises:
            UserError: steps could not write their temporary files.
        """
        temporary = os.environ.get("TMPDIR") or "/tmp"  # noqa: S108 - steps' own choice, by mktemp
        try:
            with tempfile.TemporaryFile(dir=temporary) as probe:
                probe.write(b"\0" * TEMPORARY_BYTES)
        except OSError as error:
            raise UserError(
                f"Steps cannot write to their temporary folder {temporary} ({error.strerror}): create it or "
                "make room, or set TMPDIR to another."
            ) from error
        runs = work.resolve() / RUNS
        runs.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{datetime.now(UTC):%Y%m%d-%H%M%S}-", dir=runs))
        (folder / "workspace").mkdir()
        ir = folder / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(ir))
        return cls(ir, folder, work.resolve() / "cache" / code_digest())

    @property
    def log(self) -> Path:
        """Everything that kfp.local and the steps write."""
        return self.folder / LOG

    def run(self, arguments: Mapping[str, Any], runner: object | None = None) -> dict[str, Artifact]:
        """Run the pipeline and return its output artifacts, by name.

        Args:
            runner: of kfp.local; by default every step is a process.

        Raises:
            StepError: at the first step that fails.
        """
        progress = Progress(count_steps(next(yaml.safe_load_all(self.ir.read_text()))))
        with (
            self.log.open("a", encoding="utf-8") as log,
            _capture_output(log, progress),
            running(self.folder.parent.parent),
            watchdog(self.folder),
            _step_environment(self.folder),
        ):
            local.init(
                runner=runner or local.SubprocessRunner(use_venv=False),
                pipeline_root=str(self.folder),
                workspace_root=str(self.folder / "workspace"),
                enable_caching=True,
                cache_root=str(self.cache),
            )
            pipeline = components.load_component_from_file(str(self.ir))
            return dict(pipeline(**arguments).outputs)


class _Screen(io.TextIOBase):
    """Stands in for standard output: whole lines to the log, progress bars to the screen."""

    def __init__(self, log: TextIO, progress: Progress) -> None:
        self.log, self.progress = log, progress
        self.recent: deque[str] = deque(maxlen=400)
        self._rest = ""
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
            for indented in lines:
                line = indented.removeprefix(" " * 4)  # kfp.local's indentation of a child's lines
                self.record(line)
                self.recent.append(line)
                self.progress.line(line)
        return len(text)

    def record(self, line: str) -> None:
        """Write a line to the log (not with print: kfp.local replaces it while a step runs)."""
        self.log.write(line + "\n")
        self.log.flush()


class _Events(logging.Filter):
    """Sees every record kfp.local logs, turns it into progress, and keeps it off the screen."""

    def __init__(self, screen: _Screen) -> None:
        super().__init__()
        self.screen, self.progress = screen, screen.progress

    def filter(self, record: logging.LogRecord) -> bool:
        text = COLOUR.sub("", record.getMessage())
        self.screen.record(f"{record.levelname}: {text}")
        if match := RUNNING.search(text):
            self.screen.recent.clear()
            self.progress.started(match[1])
        elif match := CACHED.search(text):
            self.progress.cached(match[1])
        elif (match := ENDED.search(text)) and match[2] == "SUCCESS":
            self.progress.finished(match[1])
        elif match:
            self.progress.failed(match[1])
            sentence = last_error(self.screen.recent)
            if NO_ROOM in sentence:
                advice = "" if "run again" in sentence else " Make room and run again."
                sentence = f"{sentence.rstrip('.')}.{advice} Finished steps are kept."
            raise StepError(match[1], sentence, Path(self.screen.log.name))
        return False


@contextlib.contextmanager
def _capture_output(log: TextIO, progress: Progress) -> Iterator[None]:
    """Send kfp.local's output to the log and to the progress display within the block."""
    screen = _Screen(log, progress)
    events, root = _Events(screen), logging.getLogger()
    level = root.level
    root.addFilter(events)
    root.setLevel(logging.INFO)
    try:
        with contextlib.redirect_stdout(screen), warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: screen.record(f"WARNING: {message}")
            yield
    finally:
        root.removeFilter(events)
        root.setLevel(level)
        progress.close()


@contextlib.contextmanager
def _step_environment(folder: Path) -> Iterator[None]:
    """Set the environment of steps: unbuffered output, slow progress bars, this Python and code, the run.

    The run's id is its folder's name, so that releases lead to it; kfp.local's own is eight random digits.
    kfp.local writes `sys.executable` into a shell script as it is, which a folder with a space breaks, and
    into every argument that holds the word python3. So steps find this Python by its folder.
    """
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    previous, executable = dict(os.environ), sys.executable
    random_id = placeholder_utils.make_random_id
    placeholder_utils.make_random_id = lambda: folder.name
    os.environ.update(
        PATH=os.pathsep.join((str(Path(executable).parent), previous.get("PATH", os.defpath))),
        PYTHONUNBUFFERED="1",
        TQDM_MININTERVAL="1",
        PYTHONPATH=path,
        OMP_WAIT_POLICY="PASSIVE",  # idle threads of a step must not spin on a shared machine
        **{RUN: str(folder)},
    )
    sys.executable = "python3"
    try:
        yield
    finally:
        sys.executable = executable
        placeholder_utils.make_random_id = random_id
        for name in os.environ.keys() - previous.keys():
            del os.environ[name]
        os.environ.update(previous)


def count_steps(spec: Mapping[str, Any]) -> int:
    """Number of steps that a run of a compiled pipeline can have: of conditional groups, only the largest."""

    def count(component: Mapping[str, Any]) -> int:
        if "dag" not in component:
            return 1
        always, branches = 0, [0]
        for task in component["dag"]["tasks"].values():
            steps = count(spec["components"][task["componentRef"]["name"]])
            if "condition" in task.get("triggerPolicy", {}):
                branches.append(steps)
            else:
                always += steps
        return always + max(branches)

    return count(spec["root"])


def last_error(lines: deque[str] | list[str]) -> str:
    """Why a step failed, from its output: what it said itself, or else what its runner or Python said."""
    failures = [match["sentence"] for line in lines if (match := FAILURE_LINE.search(line))]
    reports = [line.removeprefix(ENDED_WITHOUT) for line in lines if line.startswith(ENDED_WITHOUT)]
    if failures or reports:
        return (failures or reports)[-1]
    if any(line.startswith("Traceback (most recent call") for line in lines):  # it could not even start
        return next(line.strip() for line in reversed(lines) if line.strip())
    return SILENT
