"""The folders of local runs: find one by its run id, and remove the old ones.

A run holds the lock of all run folders while it goes on, shared with other runs: nothing is removed then,
because steps may read what earlier runs left. What is served and released was copied out of them.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from common.home import RUNS
from registry.channels.channel import find
from registry.releases.release import read_manifest
from registry.store.open import open_store

LOG = "run.log"
CACHED = "cache hit"  # in the log, after a step's name


class RunsError(UserError):
    """There is no such run, or runs can't be removed now; the message is one sentence."""


@dataclass(frozen=True)
class RunFolder:
    """One local run, finished or not."""

    path: Path

    @property
    def run_id(self) -> str:
        """The id that releases and reports name the run by."""
        return self.path.name

    @property
    def steps(self) -> set[str]:
        """Steps that the run did itself."""
        return {path.name for path in self.path.glob("*/*/")}

    @property
    def cached_steps(self) -> set[str]:
        """Steps whose outputs the run took from an earlier one."""
        log = self.path / LOG
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
        return {line.split(f" {CACHED}")[0].split()[-1] for line in lines if f" {CACHED}" in line}

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return folder_size(self.path)


@dataclass(frozen=True)
class OldRuns:
    """What cleaning removes, or removed."""

    folders: tuple[Path, ...]  # of runs
    caches: tuple[Path, ...]  # of code that this checkout no longer has
    needed: int  # older runs that stay, because a newer one that stays took outputs from them
    remaining: int  # runs that stay, these included
    size: int  # bytes


def find_runs(work: Path) -> list[RunFolder]:
    """All local runs, the newest first."""
    folders = (work / RUNS).iterdir() if (work / RUNS).is_dir() else ()
    return [RunFolder(path) for path in sorted(folders, reverse=True) if path.is_dir()]


def find_run(work: Path, name: str, registry: str) -> RunFolder:
    """The folder of a run, by the beginning of its id, or by a release or channel of the registry.

    Raises:
        RunsError: none was made here, or its folder is gone.
        RegistryError: there is no such run, release or channel.
    """
    runs = find_runs(work)
    if matches := [run for run in runs if run.run_id.startswith(name)]:
        return matches[0]
    store = open_store(registry)
    manifest = read_manifest(store, find(store, name))
    if matches := [run for run in runs if run.run_id == manifest.run_id]:
        return matches[0]
    origin = f"run {manifest.run_id}" if manifest.run_id else "no run (onboard writes such releases)"
    raise RunsError(
        f"Release {manifest.release[:12]} was made by {origin}, which has no folder in {work.resolve()}."
    )


@contextmanager
def running(work: Path) -> Iterator[None]:
    """Within the block a run goes on: no run folder is removed."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / f"{RUNS}.lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield


def old_runs(work: Path, keep: int, code: str) -> OldRuns:
    """What `clean` would remove.

    Args:
        keep: the newest runs that stay.
        code: digest of the code of now; steps can't use the caches of other code.
    """
    runs = find_runs(work)
    newest, older = runs[:keep], runs[keep:]
    borrowed = {step for run in newest for step in run.cached_steps}
    needed = [run for run in older if run.steps & borrowed]
    folders = tuple(run.path for run in older if run not in needed)
    caches = tuple(
        path
        for name in ("cache", "checkpoints")
        for path in sorted((work / name).glob("*"))
        if path.name != code
    )
    size = sum(map(folder_size, folders + caches))
    return OldRuns(folders, caches, len(needed), len(newest) + len(needed), size)


def clean(work: Path, keep: int, code: str) -> OldRuns:
    """Remove old runs, and the caches of other code; returns what was removed.

    Raises RunsError while a run goes on.
    """
    work.mkdir(parents=True, exist_ok=True)
    with (work / f"{RUNS}.lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunsError(
                f"A run goes on in {work.resolve()}, which may read what earlier runs left: nothing was "
                "removed. Clean again when it has ended."
            ) from None
        removed = old_runs(work, keep, code)
        for folder in (*removed.folders, *removed.caches):
            shutil.rmtree(folder)
    return removed


def folder_size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
