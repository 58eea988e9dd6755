"""Two releases to roll between, of any size, and what people ask them."""

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
from car_model.evidence.golden import GoldenRequests
from car_model.evidence.verdict import ConditionResult, Verdict
from car_model.models.car import CAR
from car_model.recommender.recommender import Recommender
from car_model.training.recipe import parse_recipe
from registry.channels.channel import stage
from registry.releases.release import write_release
from registry.store.base import ObjectStore
from registry.store.open import open_store
from serving.deployment.deploy_channel import validate_release

WHO, WHY = "benchmark", "rollover"
DIMENSIONS = 64
GOLDEN = 8


def released(folder: Path, items: int) -> tuple[ObjectStore, dict[str, Path]]:
    """Two validated releases in a registry: digest -> bundle folder."""
    store, releases = open_store(folder / "registry"), {}
    for seed in (0, 1):
        place = folder / f"release-{seed}"
        made(items, seed).save(place / "bundle")
        release = write_release(store, place / "bundle", evidence(place, items)).release
        validate_release(store, release, WHO)
        stage(store, release, who=WHO, why=WHY)
        releases[release] = place / "bundle"
    return store, releases


def made(items: int, seed: int) -> Bundle:
    """A bundle of random vectors and weights."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    vectors = rng.normal(size=(items, DIMENSIONS)).astype(np.float32)
    book = fit(vectors, EncoderSpec(name="random"), "{title}", CodebookConfig(seed=seed))
    catalogue = Catalogue(names(items), [f"Item {at}" for at in range(items)], book.encode(vectors))
    model = CAR(parse_recipe({}).car(items, book.n_levels, book.codebook_size), *tables(catalogue))
    labels = CodeLabels([[""] * book.codebook_size for _ in range(book.n_levels)])
    priors = popularity_priors(rng.integers(1, 99, items + 1), catalogue, book.codebook_size)
    return Bundle(
        codebook=book,
        labels=labels,
        catalogue=catalogue,
        model=model.eval(),
        popular=priors[0],
        code_share=priors[1],
        think_scale=0.1,
        dataset_digest=f"{seed:064x}",
    )


def evidence(folder: Path, items: int) -> dict[str, Path]:
    """A verdict, and golden requests with the bundle's answers."""
    torch.set_num_threads(1)
    requests = asked_for(items)[:GOLDEN]
    recommender = Recommender.load(folder / "bundle")
    answers = [recommender.recommend(request) for request in requests]
    condition = ConditionResult(
        name="made for a benchmark", metric="none", value=None, bound="none", severity="block",
        verdict="pass", why="Benchmarks release without a gate.", detail="Nothing was measured.",
    )  # fmt: skip
    verdict = Verdict(blessed=True, bootstrap=True, policy="none", champion=None, conditions=(condition,))
    verdict.write(folder / "verdict.json")
    GoldenRequests(requests=tuple(requests), answers=tuple(answers)).write(folder / "golden.json")
    return {name: folder / name for name in ("verdict.json", "golden.json")}


def names(items: int) -> list[str]:
    """Item ids."""
    return [f"B{at:09d}" for at in range(items)]


def asked_for(items: int, count: int = 64) -> list[dict[str, Any]]:
    """Requests as people send them: histories of 1 to 50 items, with and without reasons."""
    rng = np.random.default_rng(7)
    known = names(items)
    return [
        {
            "history": [known[at] for at in rng.integers(0, items, rng.integers(1, 51))],
            "k": 10,
            "explain": bool(number % 2),
        }
        for number in range(count)
    ]
