"""What the pipeline's steps do, one stage a process, on made-up data (`benchmarks.datasets.synthetic`).

Every stage reads what the stages before have written into the folder, and is timed with that reading.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.report.machine import peak_memory
from car_model.bundle import Bundle, popularity_priors, tables
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
from car_model.training.recipe import Recipe
from ingestion.config import DatasetConfig
from ingestion.ingest import ingest as run_ingest
from validation.data.policy import DataPolicy
from validation.data.validate import validate_dataset

STEPS, BATCH, ANSWERS, NEGATIVES = 20, 128, 50, 4096
Figures = dict[str, Any]


def ingest(folder: Path, config: DatasetConfig) -> Figures:
    """Sources to canonical tables: rules, k-core, split."""
    report = run_ingest(config, folder / "dataset")
    return {"interactions": report.kept.interactions, "users": report.users, "items": report.items}


def validate(folder: Path, config: DatasetConfig) -> Figures:
    """Great Expectations over all tables, Data Docs and the profile."""
    profile = folder / "data_profile.json"
    validate_dataset(folder / "dataset", DataPolicy(), folder / "docs.html", profile=profile)
    return {}


def tokenize(folder: Path, config: DatasetConfig) -> Figures:
    """Vectors to semantic IDs: codebook, encoding, labels, health. Embedding is not part of it."""
    dataset = Dataset.load(folder / "dataset")
    known = {f"i{row:07d}": row for row in range(len(np.load(folder / "vectors.npy", mmap_mode="r")))}
    rows = [known[item] for item in dataset.items["item_id"]]
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")[rows]
    made = tokenize_vectors(dataset, vectors, EncoderSpec(), CodebookConfig())
    made.save(folder / "codebook", folder / "catalogue.parquet")
    return {"codes": made.codebook.codebook_size, "collision_rate": made.health.collision_rate}


def train(folder: Path, config: DatasetConfig) -> Figures:
    """Reading the histories, and training steps: over the whole catalogue, and over a sample of it."""
    torch.set_num_threads(2)
    data, model = _histories(folder), _model(folder).train()
    full = _steps(model, data)
    model.negatives = Negatives(torch.from_numpy(data.counts(model.config.n_items)), NEGATIVES)
    return full | {f"sampled_{name}": value for name, value in _steps(model, data).items()}


def _steps(model: CAR, data: Histories) -> Figures:
    """Median seconds of a step, and the hours that an epoch would take."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    taken, targets = [], 0
    for inputs, wanted in islice(batches(data.train, 50, BATCH, np.random.default_rng(0), False), STEPS):
        started = time.perf_counter()
        model.loss(inputs, wanted)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        taken.append(time.perf_counter() - started)
        targets += int((wanted > 0).sum())
    every = int(sum(len(seq) - 1 for seq in data.train))
    step = float(np.median(taken[1:]))
    return {"step_s": step, "epoch_h": step * STEPS * every / targets / 3600}


def answer(folder: Path, config: DatasetConfig) -> Figures:
    """Loading a release and answering requests, ten items each, without reasons."""
    torch.set_num_threads(1)
    data, catalogue = _histories(folder), Catalogue.load(folder / "catalogue.parquet")
    book, model = Codebook.load(folder / "codebook"), _model(folder).eval()
    popular, share = popularity_priors(data.counts(catalogue.size), catalogue, book.codebook_size)
    labels = CodeLabels.load(folder / "codebook")
    bundle = Bundle(
        codebook=book,
        labels=labels,
        catalogue=catalogue,
        model=model,
        popular=popular,
        code_share=share,
        think_scale=0.1,
        similarity_scale=1.0,
        dataset_digest="",
    )
    recommender, taken = Recommender(bundle), []
    for seq in data.train[:ANSWERS]:
        history = [catalogue.item_ids[uid - 1] for uid in seq]
        started = time.perf_counter()
        recommender.recommend({"history": history, "k": 10, "explain": False})
        taken.append(time.perf_counter() - started)
    return {"answer_ms": 1000 * float(np.median(taken))}


STAGES: dict[str, Callable[[Path, DatasetConfig], Figures]] = {
    "ingest": ingest,
    "validate": validate,
    "tokenize": tokenize,
    "train": train,
    "answer": answer,
}


def staged(name: str, folder: Path, config: DatasetConfig) -> Figures:
    """Run a stage in this process: what it tells, its seconds, and the most memory the process held, MiB."""
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    started = time.perf_counter()
    told = STAGES[name](folder, config)
    return {**told, "seconds": time.perf_counter() - started, "memory": peak_memory()}


def _histories(folder: Path) -> Histories:
    catalogue = Catalogue.load(folder / "catalogue.parquet")
    return Dataset.load(folder / "dataset").histories(catalogue.uids)


def _model(folder: Path) -> CAR:
    catalogue, book = Catalogue.load(folder / "catalogue.parquet"), Codebook.load(folder / "codebook")
    torch.manual_seed(0)
    config = Recipe.model_validate({"text": 0}).car(catalogue.size, book.n_levels, book.codebook_size)
    return CAR(replace(config, text_dim=0), *tables(catalogue))
