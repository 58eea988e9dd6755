"""Texts to semantic IDs with the real embedded encoder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from car_model.catalogue import Catalogue
from car_model.codebook import Codebook, CodebookError
from car_model.dataset import Dataset
from car_model.digests import tree_digest
from car_model.encoder import EncoderError, EncoderSpec
from car_model.labels import CodeLabels
from car_model.quantise import CodebookConfig
from car_model.tokenization import Tokenized, tokenize

pytestmark = pytest.mark.integration
CONFIG = CodebookConfig(levels=2, codes=4)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vectors")


@pytest.fixture(scope="module")
def made(dataset: Dataset, cache: Path) -> Tokenized:
    return tokenize(dataset, EncoderSpec(), CONFIG, cache)


def test_the_catalogue_follows_the_items(made: Tokenized, dataset: Dataset) -> None:
    assert made.catalogue.item_ids == dataset.items["item_id"].tolist()
    assert made.catalogue.titles == dataset.items["title"].tolist()
    assert made.codebook.template == "{title}; {genre}; {year}"
    assert made.codebook.encoder.precision in {"bf16", "fp32"}
    assert made.codebook.encoder.weights


def test_genres_fall_into_codes_of_their_own(made: Tokenized, dataset: Dataset) -> None:
    """Four genres, four codes: most items share their genre's code, and its label says which."""
    first = made.catalogue.sids[:, 0]
    for genre, rows in dataset.items.groupby("genre").indices.items():
        code = np.bincount(first[rows]).argmax()
        assert (first[rows] == code).mean() > 0.7
        assert set(made.labels.words[0][code].split(", ")) & set(genre.split())


def test_a_second_run_gives_the_same_bytes_with_and_without_cache(
    made: Tokenized, dataset: Dataset, cache: Path, tmp_path: Path
) -> None:
    made.save(tmp_path / "first" / "codebook", tmp_path / "first" / "catalogue.parquet")
    for run, folder in (("cached", cache), ("fresh", None)):
        again = tokenize(dataset, EncoderSpec(), CONFIG, folder)
        again.save(tmp_path / run / "codebook", tmp_path / run / "catalogue.parquet")
        assert tree_digest(tmp_path / run) == tree_digest(tmp_path / "first")
        assert again.health == made.health


def test_what_is_saved_loads_and_encodes_alike(made: Tokenized, tmp_path: Path) -> None:
    made.save(tmp_path / "codebook", tmp_path / "catalogue.parquet")
    assert Codebook.load(tmp_path / "codebook").version == made.codebook.version
    assert CodeLabels.load(tmp_path / "codebook") == made.labels
    assert Catalogue.load(tmp_path / "catalogue.parquet").digest == made.catalogue.digest


def test_health_describes_this_catalogue(made: Tokenized) -> None:
    assert made.health["items"] == 48
    assert made.health["levels"] == 2
    assert 0 < made.health["residual"][1] < made.health["residual"][0] < 1
    json.dumps(made.health, allow_nan=False)


def test_an_empty_catalogue_is_refused(dataset: Dataset, cache: Path) -> None:
    with pytest.raises(EncoderError, match="catalogue is empty"):
        tokenize(replace(dataset, items=dataset.items[:0]), EncoderSpec(), CONFIG, cache)


def test_a_catalogue_of_one_text_is_refused(dataset: Dataset, cache: Path) -> None:
    items = dataset.items.assign(title="Same", genre="", year="")
    with pytest.raises(CodebookError, match="1 distinct texts"):
        tokenize(replace(dataset, items=items), EncoderSpec(), CONFIG, cache)
