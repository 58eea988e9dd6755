"""A registry with one release that was really trained: embedded encoder, tiny dataset, golden answers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from car_model.codebook.residual_kmeans import CodebookConfig
from car_model.codebook.semantic_ids import tokenize
from car_model.encoding.encoder import EncoderSpec
from car_model.evaluation.evaluate import Holdout
from car_model.evaluation.golden import record_golden
from car_model.recommender.recommender import Recommender
from car_model.training.recipe import parse_recipe
from car_model.training.train_car import fit_car
from registry.releases.release import write_release
from registry.store.base import ObjectStore
from registry.store.open import open_store
from tests.car_model.builders import tiny_dataset
from tests.registry.bundles import make_evidence

NEW = pd.DataFrame({
    "item_id": ["n1", "n2", "i1"],
    "title": ["Film number 101", "Film number 102", "Film number 0"],
    "genre": ["space opera", "crime drama", "crime drama"],
    "year": ["1999", "1991", "1990"],
})  # fmt: skip


def trained_release(folder: Path, bootstrap: bool = False, **evidence: Path) -> tuple[ObjectStore, str]:
    """Train, evaluate golden requests and release, with more evidence if given; registry and digest."""
    dataset = tiny_dataset()
    tokenized = tokenize(
        dataset, EncoderSpec(), CodebookConfig(n_levels=2, codebook_size=4), folder / "vectors"
    )
    tokenized.save(folder / "codebook", folder / "catalogue.parquet")
    recipe = parse_recipe({"d_model": 16, "n_layers": 1, "epochs": 8, "threads": 1})
    bundle, _ = fit_car(dataset, folder / "codebook", tokenized.catalogue, recipe)
    bundle.save(folder / "bundle")
    files = make_evidence(folder / "evidence", folder / "bundle", bootstrap=bootstrap)
    files |= {"golden.json": folder / "golden.json"} | {
        f"{name}.json": path for name, path in evidence.items()
    }
    record_golden(Recommender(bundle), Holdout.of(dataset)).write(folder / "golden.json")
    store = open_store(folder / "registry")
    return store, write_release(store, folder / "bundle", files).release
