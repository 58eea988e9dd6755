"""Print time and memory of every pipeline stage for up to 10 M interactions, and how both grow.

    python -m benchmarks.scale --parts 16,4,1

Synthetic data (`benchmarks.datasets.synthetic`): 10 M interactions of 1 M users with 500 k items, and the 4th
and 16th part of all three. Every stage runs in a process of its own and reads what the stages before have
written; its peak memory includes imports. Growth is the exponent: the slope on logarithmic axes. About 10
minutes. Written to benchmarks/results/scale.csv; what is in there is not measured again unless --again names
its stage.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks.datasets.synthetic import Scale, write
from benchmarks.report.machine import machine, peak_memory
from benchmarks.report.rows import Row, read_rows, write_rows
from benchmarks.report.table import Table
from car_model.bundle import Bundle, popularity_priors
from car_model.bundle import tables as item_tables
from car_model.codebook.codebook import Codebook
from car_model.codebook.labels import CodeLabels
from car_model.codebook.residual_kmeans import CodebookConfig
from car_model.codebook.semantic_ids import tokenize_vectors
from car_model.data.catalogue import Catalogue
from car_model.data.dataset import Dataset
from car_model.data.histories import Histories, batches
from car_model.encoding.encoder import EncoderSpec
from car_model.models.car import CAR
from car_model.models.losses import Negatives
from car_model.recommender.recommender import Recommender
from car_model.training.recipe import parse_recipe
from ingestion.config import DatasetConfig
from ingestion.ingest import ingest
from validation.data.policy import DataPolicy
from validation.data.validate import validate_dataset

OUTPUT = Path("benchmarks/results/scale.csv")
FOLDER = Path(".cache/scale")
MEMORY_LIMIT = 12 * 1024  # MiB that no stage may exceed
STEPS, BATCH, ANSWERS, NEGATIVES = 20, 128, 50, 4096

Details = dict[str, float]
app = typer.Typer(add_completion=False)


class ScaleRow(Row):
    """One stage at one size."""

    machine: str
    stage: str
    part: int
    """The size is the full one divided by this."""
    seconds: float
    memory_mib: float
    """Peak memory of the stage's process."""
    details: Details
    """What the stage measures besides, such as seconds of a training step."""


@app.command()
def main(
    parts: Annotated[str, typer.Option(help="Parts of the full size, separated by commas.")] = "16,4,1",
    again: Annotated[str, typer.Option(help="Stages to measure again, separated by commas.")] = "",
) -> None:
    """Measure what is missing and print the tables."""
    rows = [row for row in read_rows(OUTPUT, ScaleRow) if row.stage not in again.split(",")]
    for part in map(int, parts.split(",")):
        folder = FOLDER / str(part)
        config = write(Scale.of(part), folder)
        for stage in STAGES:
            if any((row.stage, row.part) == (stage, part) for row in rows):
                continue
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                row = pool.submit(run_stage, stage, part, folder, config).result()
            rows = sorted([*rows, row], key=lambda row: (list(STAGES).index(row.stage), -row.part))
            write_rows(OUTPUT, rows)
            typer.echo(f"1/{part} {stage}: {row.seconds:.0f} s, {row.memory_mib:,.0f} MiB {row.details}")
    for table in tables(rows):
        table.print()


def run_stage(stage: str, part: int, folder: Path, config: DatasetConfig) -> ScaleRow:
    """Run a stage in this process and measure it."""
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    start = time.perf_counter()
    details = STAGES[stage](folder, config)
    seconds = time.perf_counter() - start
    return ScaleRow(
        machine=machine(), stage=stage, part=part, seconds=seconds, memory_mib=peak_memory(), details=details
    )


def ingest_stage(folder: Path, config: DatasetConfig) -> Details:
    """Sources to canonical tables: rules, k-core, split."""
    report = ingest(config, folder / "dataset")
    return {"interactions": report.kept.interactions, "users": report.users, "items": report.items}


def validate_stage(folder: Path, config: DatasetConfig) -> Details:
    """Great Expectations over all tables, Data Docs and the profile."""
    profile = folder / "data_profile.json"
    validate_dataset(folder / "dataset", DataPolicy(), folder / "docs.html", profile=profile)
    return {}


def tokenize_stage(folder: Path, config: DatasetConfig) -> Details:
    """Vectors to semantic IDs: codebook, encoding, labels, health. Embedding is not part of it."""
    dataset = Dataset.load(folder / "dataset")
    table = np.load(folder / "vectors.npy", mmap_mode="r")
    positions = {f"i{row:07d}": row for row in range(len(table))}
    vectors = table[[positions[item] for item in dataset.items["item_id"]]]
    tokens = tokenize_vectors(dataset, vectors, EncoderSpec(), CodebookConfig())
    tokens.save(folder / "codebook", folder / "catalogue.parquet")
    return {"codes": tokens.codebook.codebook_size, "collision_rate": tokens.health.collision_rate}


def train_stage(folder: Path, config: DatasetConfig) -> Details:
    """Reading the histories, and training steps: over the whole catalogue, and over a sample of it."""
    torch.set_num_threads(2)
    data, model = load_histories(folder), untrained_car(folder).train()
    full = time_steps(model, data)
    counts = torch.from_numpy(data.counts(model.config.n_items))
    model.negatives = Negatives(counts, NEGATIVES)
    return full | {f"sampled_{name}": value for name, value in time_steps(model, data).items()}


def time_steps(model: CAR, data: Histories) -> Details:
    """Median seconds of a step, and the hours that an epoch would take."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    seconds, n_targets = [], 0
    for inputs, targets in islice(batches(data.train, 50, BATCH, np.random.default_rng(0), False), STEPS):
        start = time.perf_counter()
        model.loss(inputs, targets)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - start)
        n_targets += int((targets > 0).sum())
    n_total = int(sum(len(history) - 1 for history in data.train))
    step = float(np.median(seconds[1:]))
    return {"step_s": step, "epoch_h": step * STEPS * n_total / n_targets / 3600}


def answer_stage(folder: Path, config: DatasetConfig) -> Details:
    """Loading a release and answering requests for ten items, without reasons."""
    torch.set_num_threads(1)
    data, catalogue = load_histories(folder), Catalogue.load(folder / "catalogue.parquet")
    codebook, model = Codebook.load(folder / "codebook"), untrained_car(folder).eval()
    popular, code_share = popularity_priors(data.counts(catalogue.size), catalogue, codebook.codebook_size)
    labels = CodeLabels.load(folder / "codebook")
    bundle = Bundle(
        codebook=codebook,
        labels=labels,
        catalogue=catalogue,
        model=model,
        popular=popular,
        code_share=code_share,
        think_scale=0.1,
        similarity_scale=1.0,
        dataset_digest="",
    )
    recommender = Recommender(bundle)
    seconds = []
    for uids in data.train[:ANSWERS]:
        history = [catalogue.item_ids[uid - 1] for uid in uids]
        start = time.perf_counter()
        recommender.recommend({"history": history, "k": 10, "explain": False})
        seconds.append(time.perf_counter() - start)
    return {"answer_ms": 1000 * float(np.median(seconds))}


STAGES: dict[str, Callable[[Path, DatasetConfig], Details]] = {
    "ingest": ingest_stage,
    "validate": validate_stage,
    "tokenize": tokenize_stage,
    "train": train_stage,
    "answer": answer_stage,
}


def load_histories(folder: Path) -> Histories:
    """The data set's histories in UIDs."""
    catalogue = Catalogue.load(folder / "catalogue.parquet")
    return Dataset.load(folder / "dataset").histories(catalogue.uids)


def untrained_car(folder: Path) -> CAR:
    """CAR with random weights (seed 0) over the stage's catalogue."""
    catalogue, codebook = Catalogue.load(folder / "catalogue.parquet"), Codebook.load(folder / "codebook")
    torch.manual_seed(0)
    config = parse_recipe({}).car(catalogue.size, codebook.n_levels, codebook.codebook_size)
    return CAR(replace(config, text_dim=0), *item_tables(catalogue))


def exponent(values: dict[int, float]) -> float | None:
    """Slope from the smallest to the largest size on logarithmic axes, of values by part."""
    if len(values) < 2:
        return None
    largest, smallest = min(values), max(values)
    return math.log(values[largest] / values[smallest]) / math.log(smallest / largest)


def tables(rows: Sequence[ScaleRow]) -> list[Table]:
    """Seconds and memory of every stage at every size, and their growth."""
    parts = sorted({row.part for row in rows}, reverse=True)
    columns = [f"{Scale.of(part).interactions:,}" for part in parts]

    def line(name: str, values: dict[int, float], form: str) -> list[str]:
        cells = [form.format(values[part]) if part in values else "" for part in parts]
        slope = exponent(values)
        return [name, *cells, "" if slope is None else f"{slope:.2f}"]

    stages = list(dict.fromkeys(row.stage for row in rows))
    seconds = {stage: {row.part: row.seconds for row in rows if row.stage == stage} for stage in stages}
    memory = {stage: {row.part: row.memory_mib for row in rows if row.stage == stage} for stage in stages}
    inner = [
        line(title, {row.part: row.details[key] for row in rows if key in row.details}, form)
        for key, title, form in (
            ("step_s", "a training step of 128 users, s", "{:.3f}"),
            ("sampled_step_s", "the same with 4,096 negatives, s", "{:.3f}"),
            ("epoch_h", "an epoch of all users, hours", "{:.2f}"),
            ("sampled_epoch_h", "the same with 4,096 negatives, hours", "{:.2f}"),
            ("answer_ms", "an answer without reasons, ms", "{:.1f}"),
        )
    ]
    header = ["stage", *columns, "exponent"]
    return [
        Table(
            "Seconds per stage, by interactions",
            header,
            [line(stage, values, "{:,.0f}") for stage, values in seconds.items()],
        ),
        Table(
            f"Peak memory, MiB (limit {MEMORY_LIMIT:,})",
            header,
            [line(stage, values, "{:,.0f}") for stage, values in memory.items()],
        ),
        Table("Within the stages", header, inner),
    ]


if __name__ == "__main__":
    app()
