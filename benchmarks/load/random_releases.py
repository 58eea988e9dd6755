"""Two releases of any size with random weights, and requests to send them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from car_model.bundle import Bundle, popularity_priors, tables
from car_model.codebook.labels import CodeLabels
from car_model.codebook.residual_kmeans import CodebookConfig, fit
from car_model.data.catalogue import Catalogue
from car_model.encoding.encoder import EncoderSpec
from car_model.evidence.evaluation import GoldenRequests
from car_model.evidence.verdict import ConditionResult, Verdict
from car_model.models.car import CAR
from car_model.recommender.recommender import Recommender
from car_model.training.recipe import parse_recipe
from registry.channels.channel import stage
from registry.releases.bundle_files import release_digest
from registry.releases.release import write_release
from registry.store.base import ObjectStore
from registry.store.open import open_store
from serving.deployment.deploy_channel import validate_release

WHO, WHY = "benchmark", "rollover"
DIMENSIONS = 64
GOLDEN = 8


def write_releases(folder: Path, n_items: int) -> tuple[ObjectStore, dict[str, Path]]:
    """Two validated releases in a registry: digest -> bundle folder."""
    store, releases = open_store(folder / "registry"), {}
    for seed in (0, 1):
        path = folder / f"release-{seed}"
        random_bundle(n_items, seed).save(path / "bundle")
        release = write_release(store, path / "bundle", write_evidence(path, n_items)).release
        validate_release(store, release, WHO)
        stage(store, release, who=WHO, why=WHY)
        releases[release] = path / "bundle"
    return store, releases


def random_bundle(n_items: int, seed: int) -> Bundle:
    """A bundle of random vectors and weights."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    vectors = rng.normal(size=(n_items, DIMENSIONS)).astype(np.float32)
    codebook = fit(vectors, EncoderSpec(name="random"), "{title}", CodebookConfig(seed=seed))
    catalogue = Catalogue(item_ids(n_items), [f"Item {i}" for i in range(n_items)], codebook.encode(vectors))
    model = CAR(parse_recipe({}).car(n_items, codebook.n_levels, codebook.codebook_size), *tables(catalogue))
    labels = CodeLabels([[""] * codebook.codebook_size for _ in range(codebook.n_levels)])
    popular, code_share = popularity_priors(
        rng.integers(1, 99, n_items + 1), catalogue, codebook.codebook_size
    )
    return Bundle(
        codebook=codebook,
        labels=labels,
        catalogue=catalogue,
        model=model.eval(),
        popular=popular,
        code_share=code_share,
        think_scale=0.1,
        dataset_digest=f"{seed:064x}",
    )


def write_evidence(folder: Path, n_items: int) -> dict[str, Path]:
    """A verdict, and golden requests with the bundle's answers."""
    torch.set_num_threads(1)
    requests = random_requests(n_items)[:GOLDEN]
    recommender = Recommender.load(folder / "bundle")
    answers = [recommender.recommend(request) for request in requests]
    condition = ConditionResult(
        name="made for a benchmark", metric="none", value=None, bound="none", severity="block",
        verdict="pass", why="Benchmarks release without a gate.", detail="Nothing was measured.",
    )  # fmt: skip
    verdict = Verdict(
        blessed=True,
        bootstrap=True,
        policy="none",
        release=release_digest(folder / "bundle"),
        holdout=None,
        champion="none",
        conditions=(condition,),
    )
    verdict.write(folder / "verdict.json")
    GoldenRequests(requests=tuple(requests), answers=tuple(answers)).write(folder / "golden.json")
    return {name: folder / name for name in ("verdict.json", "golden.json")}


def item_ids(n_items: int) -> list[str]:
    """Item ids."""
    return [f"B{i:09d}" for i in range(n_items)]


def random_requests(n_items: int, count: int = 64) -> list[dict[str, Any]]:
    """Requests with histories of 1 to 50 items, every other one with reasons."""
    rng, ids = np.random.default_rng(7), item_ids(n_items)
    return [
        {
            "history": [ids[i] for i in rng.integers(0, n_items, rng.integers(1, 51))],
            "k": 10,
            "explain": bool(number % 2),
        }
        for number in range(count)
    ]
