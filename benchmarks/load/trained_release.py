"""A trained bundle to serve in benchmarks, made once per data set and kept under .cache/serving."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.datasets.load import CACHE, load_dataset
from car_model.bundle import Bundle
from car_model.codebook.residual_kmeans import CodebookConfig
from car_model.codebook.semantic_ids import tokenize
from car_model.encoding.encoder import EncoderSpec
from car_model.training.recipe import parse_recipe
from car_model.training.train_car import fit_car
from common.digests import json_digest

RECIPE = {"epochs": 2, "text_dim": 64, "batch_size": 128}
USERS = 500  # whose histories are sent


@dataclass(frozen=True)
class TrainedRelease:
    """A bundle folder, and real histories of item ids to send."""

    name: str
    bundle: Path
    n_items: int
    histories: list[list[str]]


def trained_release(data: str) -> TrainedRelease:
    """The bundle of a data set (a folder or `movielens`); it is trained if it is not in the cache."""
    dataset = load_dataset(data)
    folder = CACHE / "serving" / json_digest([dataset.digest, RECIPE])[:16]
    if not (folder / "bundle" / "bundle.json").is_file():
        tokens = tokenize(dataset, EncoderSpec(), CodebookConfig(), CACHE / "vectors")
        tokens.save(folder / "codebook", folder / "catalogue.parquet")
        bundle, _ = fit_car(dataset, folder / "codebook", tokens.catalogue, parse_recipe(RECIPE))
        bundle.save(folder / "bundle")
    catalogue = Bundle.load(folder / "bundle").catalogue
    train = dataset.histories(catalogue.uids).train[:USERS]
    histories = [[catalogue.item_ids[uid - 1] for uid in history] for history in train]
    return TrainedRelease(dataset.report.name, folder / "bundle", catalogue.size, histories)
