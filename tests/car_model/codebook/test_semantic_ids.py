"""Texts to semantic IDs with the real embedded encoder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from car_model.codebook.codebook import Codebook, CodebookError
from car_model.codebook.labels import CodeLabels
from car_model.codebook.mode import CodebookMode
from car_model.codebook.residual_kmeans import CodebookConfig
from car_model.codebook.semantic_ids import Parent, Tokenized, tokenize
from car_model.data.catalogue import Catalogue
from car_model.data.dataset import Dataset
from car_model.encoding.encoder import EncoderError, EncoderSpec
from common.digests import tree_digest

pytestmark = pytest.mark.integration
CONFIG = CodebookConfig(n_levels=2, codebook_size=4)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vectors")


@pytest.fixture(scope="module")
def tokens(dataset: Dataset, cache: Path) -> Tokenized:
    return tokenize(dataset, EncoderSpec(), CONFIG, cache)


def test_the_catalogue_follows_the_items(tokens: Tokenized, dataset: Dataset) -> None:
    assert tokens.catalogue.item_ids == dataset.items["item_id"].tolist()
    assert tokens.catalogue.titles == dataset.items["title"].tolist()
    assert tokens.codebook.template == "{title}; {genre}; {year}"
    assert tokens.codebook.encoder.precision in {"bf16", "fp32"}
    assert tokens.codebook.encoder.weights


def test_texts_that_are_cut_are_counted(tokens: Tokenized, dataset: Dataset, cache: Path) -> None:
    assert tokens.health.texts_cut == 0
    long = dataset.items.assign(
        title=[f"{title} " + "tea " * 200 * (row < 12) for row, title in enumerate(dataset.items["title"])]
    )
    cut = tokenize(replace(dataset, items=long), EncoderSpec(), CONFIG, cache)
    assert cut.health.texts_cut == 12 / len(long)
    longer = tokenize(replace(dataset, items=long), EncoderSpec(max_tokens=256), CONFIG, cache)
    assert longer.health.texts_cut == 0


def test_genres_fall_into_codes_of_their_own(tokens: Tokenized, dataset: Dataset) -> None:
    """Four genres, four codes: most items share their genre's code, and its label says which."""
    first = tokens.catalogue.sids[:, 0]
    for genre, rows in dataset.items.groupby("genre").indices.items():
        code = np.bincount(first[rows]).argmax()
        assert (first[rows] == code).mean() > 0.7
        assert set(tokens.labels.words[0][code].replace(",", "").split()) & set(genre.split())


def test_a_second_run_gives_the_same_bytes_with_and_without_cache(
    tokens: Tokenized, dataset: Dataset, cache: Path, tmp_path: Path
) -> None:
    tokens.save(tmp_path / "first" / "codebook", tmp_path / "first" / "catalogue.parquet")
    for run, folder in (("cached", cache), ("fresh", None)):
        again = tokenize(dataset, EncoderSpec(), CONFIG, folder)
        again.save(tmp_path / run / "codebook", tmp_path / run / "catalogue.parquet")
        assert tree_digest(tmp_path / run) == tree_digest(tmp_path / "first")
        assert again.health == tokens.health


def test_what_is_saved_loads_and_encodes_alike(tokens: Tokenized, tmp_path: Path) -> None:
    tokens.save(tmp_path / "codebook", tmp_path / "catalogue.parquet")
    assert Codebook.load(tmp_path / "codebook").version == tokens.codebook.version
    assert CodeLabels.load(tmp_path / "codebook") == tokens.labels
    assert Catalogue.load(tmp_path / "catalogue.parquet").digest == tokens.catalogue.digest


def test_health_describes_this_catalogue(tokens: Tokenized) -> None:
    assert tokens.health.items == 48
    assert tokens.health.n_levels == 2
    assert 0 < tokens.health.residual[1] < tokens.health.residual[0] < 1
    json.dumps(tokens.health.to_json(), allow_nan=False)


def test_an_empty_catalogue_is_refused(dataset: Dataset, cache: Path) -> None:
    with pytest.raises(EncoderError, match="catalogue is empty"):
        tokenize(replace(dataset, items=dataset.items[:0]), EncoderSpec(), CONFIG, cache)


def test_a_catalogue_of_one_text_is_refused(dataset: Dataset, cache: Path) -> None:
    items = dataset.items.assign(title="Same", genre="", year="")
    with pytest.raises(
        CodebookError, match="all texts of the catalogue are equal to the encoder; check that"
    ):
        tokenize(replace(dataset, items=items), EncoderSpec(), CONFIG, cache)


@pytest.fixture(scope="module")
def parent(tokens: Tokenized) -> Parent:
    return Parent(tokens.codebook, tokens.labels, tokens.catalogue)


@pytest.fixture(scope="module")
def tomorrow(dataset: Dataset) -> Dataset:
    """Two items new, one gone with all that was done with it, another order of rows."""
    gone = dataset.items["item_id"].iloc[5]
    new = dataset.items.iloc[[0, 1]].assign(item_id=["n1", "n2"], title=["Novel one", "Novel two"])
    items = pd.concat([new, dataset.items[dataset.items["item_id"] != gone]], ignore_index=True)
    remaining = dataset.interactions[dataset.interactions["item_id"] != gone]
    return replace(dataset, items=items, interactions=remaining)


@pytest.mark.parametrize("mode", ["fit", "reuse", "refresh"])
def test_a_lineage_keeps_its_uids_in_every_mode(
    parent: Parent, tomorrow: Dataset, cache: Path, mode: CodebookMode
) -> None:
    tokens = tokenize(tomorrow, EncoderSpec(), CONFIG, cache, mode=mode, parent=parent)
    old = parent.catalogue
    assert tokens.catalogue.item_ids[: old.size] == old.item_ids
    assert tokens.catalogue.item_ids[old.size :] == ["n1", "n2"]
    assert tokens.catalogue.retired == {old.item_ids[5]}
    assert (tokens.health.items, tokens.health.cold_items) == (47, 2)
    assert tokens.health.mode == mode
    assert tokens.health.parent == parent.codebook.version
    assert (tokens.health.churn.added, tokens.health.churn.retired) == (2, 1)
    assert tokens.health.unexplained_new > 0
    json.dumps(tokens.health.to_json(), allow_nan=False)


def test_reuse_keeps_codebook_labels_and_sids_to_the_byte(
    parent: Parent, tomorrow: Dataset, cache: Path, tmp_path: Path
) -> None:
    tokens = tokenize(tomorrow, EncoderSpec(), CodebookConfig(), cache, mode="reuse", parent=parent)
    tokens.save(tmp_path / "after", tmp_path / "a.parquet")
    parts = Tokenized(parent.codebook, tokens.labels, parent.catalogue, {})  # labels of items: today's texts
    parts.save(tmp_path / "before", tmp_path / "b.parquet")
    assert tree_digest(tmp_path / "after") == tree_digest(tmp_path / "before")
    assert tokens.labels.words == parent.labels.words
    assert set(tokens.labels.items) == {
        *parent.labels.items,
        "n1",
        "n2",
    }  # cold items have words of their own
    assert tokens.health.churn.whole == tokens.health.churn.unasked == 0
    assert np.array_equal(tokens.catalogue.sids[: parent.catalogue.size], parent.catalogue.sids)


def test_a_new_fit_on_purpose_is_no_unasked_churn(parent: Parent, tomorrow: Dataset, cache: Path) -> None:
    config = CodebookConfig(n_levels=2, codebook_size=4, seed=9)
    tokens = tokenize(tomorrow, EncoderSpec(), config, cache, mode="fit", parent=parent)
    assert tokens.health.churn.unasked is None
    assert tokens.health.churn.whole > 0


def test_an_edited_text_churns_even_under_reuse(parent: Parent, dataset: Dataset, cache: Path) -> None:
    items = dataset.items.copy()
    items.loc[0, ["title", "genre"]] = ["A quite different thing", "garden furniture"]
    tokens = tokenize(
        replace(dataset, items=items), EncoderSpec(), CONFIG, cache, mode="reuse", parent=parent
    )
    changed = tokens.catalogue.sids[0].tolist() != parent.catalogue.sids[0].tolist()
    assert tokens.health.churn.unasked == (round(1 / 48, 6) if changed else 0)
    assert tokens.catalogue.titles[0] == "A quite different thing"
    assert tokens.health.unexplained_new is None  # there is no new item to misdescribe


@pytest.mark.parametrize("mode", ["reuse", "refresh"])
def test_without_a_parent_a_codebook_is_fit(
    tokens: Tokenized, dataset: Dataset, cache: Path, mode: CodebookMode
) -> None:
    first = tokenize(dataset, EncoderSpec(), CONFIG, cache, mode=mode)
    assert first.codebook.version == tokens.codebook.version
    assert (first.health.mode, first.health.parent, first.health.churn) == ("fit", None, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": "f" * 64}, "encoder weights"),
        ({"max_tokens": 7}, "max_tokens 7"),
        ({"normalisation": "none"}, "normalisation 'none'"),
    ],
)
def test_a_parent_of_another_encoder_is_refused(
    parent: Parent, dataset: Dataset, cache: Path, change: dict, message: str
) -> None:
    foreign = replace(parent.codebook, encoder=replace(parent.codebook.encoder, **change))
    for mode in ("reuse", "refresh"):
        with pytest.raises(CodebookError, match=message):
            tokenize(
                dataset, EncoderSpec(), CONFIG, cache, mode=mode, parent=replace(parent, codebook=foreign)
            )


def test_a_parent_of_another_text_template_is_refused(parent: Parent, dataset: Dataset, cache: Path) -> None:
    foreign = replace(parent, codebook=replace(parent.codebook, template="{plot}"))
    with pytest.raises(CodebookError, match=r"template '\{plot\}'"):
        tokenize(dataset, EncoderSpec(), CONFIG, cache, mode="reuse", parent=foreign)


def test_a_fit_may_follow_a_parent_of_another_encoder(parent: Parent, tomorrow: Dataset, cache: Path) -> None:
    """Nothing is known of a retired item's vector then: it gets an average item's SID."""
    foreign = replace(parent.codebook, encoder=replace(parent.codebook.encoder, weights="f" * 64))
    tokens = tokenize(
        tomorrow, EncoderSpec(), CONFIG, cache, mode="fit", parent=replace(parent, codebook=foreign)
    )
    gone = tokens.catalogue.sids[tokens.catalogue.uids[next(iter(tokens.catalogue.retired))] - 1]
    assert gone.tolist() == tokens.codebook.encode(tokens.codebook.mean[None])[0].tolist()
