"""One training as a folder: what processes on other machines are given, and what they give back.

    inputs/    dataset/, codebook/, catalogue.parquet, and parent/, a bundle, where training starts warm
    job.json   the recipe and where the resumable state lies, from here; written last
    failed/    a file for every process that failed
    watched    touched again and again by who waits for the result; processes end if nobody does
    result/    bundle/ and curves.json, renamed to here when they are complete

`torchrun -m car_model.training.torchrun_job` is every process of it, with the folder in CAR_FIT_JOB.
Whoever orders it must see the folder too; who starts the processes is not known here.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import psutil
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import record

from car_model.bundle import Bundle
from car_model.data.catalogue import Catalogue
from car_model.data.dataset import Dataset
from car_model.evidence.training import TrainingCurves
from car_model.training.distributed import join
from car_model.training.recipe import parse_recipe
from car_model.training.train_car import fit_car
from common.digests import file_digest, json_digest, tree_digest
from common.errors import UserError

FOLDER = "CAR_FIT_JOB"
PARENT = "CAR_FIT_PARENT"  # id of a process of this machine without which nobody waits for the result
ABANDONED, LOOK = 1800, 60  # seconds without a sign from who waits, and between looks for one
BROKEN = re.compile(r"connection|gloo|nccl|socket|broken pipe|timed? ?out", re.IGNORECASE)


@dataclass(frozen=True)
class Inputs:
    """A dataset's and a codebook's folders, a catalogue's file, and the parent bundle's folder, if any."""

    dataset: Path
    codebook: Path
    catalogue: Path
    parent: Path | None = None

    def digest(self, recipe: Mapping[str, Any]) -> str:
        """SHA-256 (hex) of their content and of the recipe."""
        folders = [folder for folder in (self.dataset, self.codebook, self.parent) if folder]
        return json_digest([*map(tree_digest, folders), file_digest(self.catalogue), dict(recipe)])


@dataclass(frozen=True)
class Failure:
    """Why a process failed; `broken` if it only lost its connection to the others."""

    sentence: str
    broken: bool


@dataclass(frozen=True)
class FitJob:
    """The folder of one training."""

    folder: Path

    def write(self, inputs: Inputs, recipe: Mapping[str, Any], state: Path | None) -> None:
        """Create the folder anew. `state` stays where it is, relative to the folder, on every machine."""
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "failed").mkdir(parents=True)
        for name in ("dataset", "codebook", "parent"):
            if source := getattr(inputs, name):
                shutil.copytree(source, self.folder / "inputs" / name)
        shutil.copyfile(inputs.catalogue, self.folder / "inputs" / "catalogue.parquet")
        self.watch()
        relative = os.path.relpath(state, self.folder) if state else None
        (self.folder / "job.json").write_text(json.dumps({"recipe": dict(recipe), "state": relative}))

    def watch(self) -> None:
        """Say that somebody still waits for the result."""
        with contextlib.suppress(OSError):  # now and then a shared folder does not answer
            (self.folder / "watched").touch()

    def abandoned(self) -> bool:
        """Whether nobody has waited for the result for half an hour: longer than a lost step stays away."""
        with contextlib.suppress(OSError):
            return time.time() - (self.folder / "watched").stat().st_mtime > ABANDONED
        return False

    def run(self) -> None:
        """Train with the other processes; the first one leaves the bundle and the curves."""
        job, inputs = json.loads((self.folder / "job.json").read_text()), self.folder / "inputs"
        parent = Bundle.load(inputs / "parent") if (inputs / "parent").is_dir() else None
        data, items = Dataset.load(inputs / "dataset"), Catalogue.load(inputs / "catalogue.parquet")
        state = self.folder / job["state"] if job["state"] else None
        recipe = parse_recipe(job["recipe"])
        bundle, curves = fit_car(data, inputs / "codebook", items, recipe, checkpoint=state, parent=parent)
        if join().first:
            partial = self.folder / "result.partial"
            shutil.rmtree(partial, ignore_errors=True)
            bundle.save(partial / "bundle")
            curves.write(partial / "curves.json")
            partial.rename(self.folder / "result")

    def result(self) -> tuple[Bundle, TrainingCurves]:
        """The trained bundle and its curves. Raises FileNotFoundError if the training has left no result."""
        folder = self.folder / "result"
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is missing: the training has left no result.")
        return Bundle.load(folder / "bundle"), TrainingCurves.read(folder / "curves.json")

    def fail(self, rank: int, error: BaseException) -> None:
        """Record why a process failed."""
        sentence = str(error)
        if not isinstance(error, UserError | ValueError):
            sentence = f"{type(error).__name__}: {error}"
        lost = isinstance(error, RuntimeError) and bool(BROKEN.search(sentence))
        failure = Failure(" ".join(sentence.split()), lost or isinstance(error, dist.DistError))
        (self.folder / "failed" / f"{rank}.json").write_text(json.dumps(asdict(failure)))

    def failures(self) -> dict[int, Failure]:
        """Why processes failed, by rank; processes that were killed leave nothing."""
        files = sorted((self.folder / "failed").glob("*.json"))
        return {int(file.stem): Failure(**json.loads(file.read_text())) for file in files}


class _Lines(io.TextIOBase):
    """Turn a progress bar that moves in place into lines, for logs."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(text.replace("\r", "\n"))
        self.stream.flush()
        return len(text)


def _end_with(parent: int) -> None:
    """End this process when another one of the machine has ended, however that came about."""
    with contextlib.suppress(psutil.NoSuchProcess):
        while psutil.Process(parent).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.5)
    os._exit(1)


def _end_if_abandoned(job: FitJob) -> None:
    """End this process when nobody waits for the result any more."""
    while not job.abandoned():
        time.sleep(LOOK)
    print("Nobody has waited for this training for half an hour; it ends here.", flush=True)
    os._exit(1)


@record  # lets torchrun name the failure in its own report
def main() -> None:
    """One process of the training in the folder that CAR_FIT_JOB names."""
    job, rank = FitJob(Path(os.environ[FOLDER])), int(os.environ.get("RANK", "0"))
    (job.folder / "failed" / f"{rank}.json").unlink(missing_ok=True)  # of a process that this one replaces
    threading.Thread(target=_end_if_abandoned, args=[job], daemon=True).start()
    if parent := os.environ.get(PARENT):
        threading.Thread(target=_end_with, args=[int(parent)], daemon=True).start()
    with contextlib.redirect_stderr(_Lines(sys.stderr)):
        try:
            job.run()
        except Exception as error:
            job.fail(rank, error)
            raise


if __name__ == "__main__":
    main()
