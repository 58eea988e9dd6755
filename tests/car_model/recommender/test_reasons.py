"""What reasons claim is true, on two catalogues: real films, and a shop whose goods have descriptions."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from car_model.bundle import Bundle, popularity_priors, tables
from car_model.codebook.residual_kmeans import CodebookConfig
from car_model.codebook.semantic_ids import tokenize_vectors
from car_model.data.dataset import Dataset
from car_model.encoding.encoder import EncoderSpec
from car_model.models.car import CAR, CARConfig
from car_model.recommender.explain import NEAR
from car_model.recommender.recommender import Recommender
from ingestion.config import DatasetConfig, InteractionSource, ItemSource
from ingestion.ingest import ingest
from ingestion.sources import resolve

LONGEST = 160
EMPTY = re.compile(r"\b(just|use|universally|with|levels?|75mm)\b", re.IGNORECASE)
USERS = 60


def shop(folder: Path) -> DatasetConfig:
    """Goods in four categories; every description has the same empty words, and titles have sizes."""
    kinds = {
        "Filament": "3D Printing > Filament",
        "Nozzle": "3D Printing > Nozzles & Hotends",
        "Nail Lacquer": "Beauty > Nail Polish",
        "Hand Cream": "Beauty > Creams & Moisturizers",
    }
    makers, tones = ("Acme", "Brilla", "Cosmo", "Delta"), ("Ruby", "Coral", "Plum", "Navy", "Olive", "Rose")
    goods = [
        {
            "sku": f"g{number}",
            "name": f"{maker} {kind} {tone}, 1.75mm, use with just about any {'very ' * number}long thing",
            "category": kinds[kind],
            "maker": maker,
            "description": f"Just use it, universally. The {tone.lower()} {kind.lower()}, with ease.",
        }
        for number, (maker, kind, tone) in enumerate(product(makers, kinds, tones))
    ]
    rng, rows = np.random.default_rng(0), []
    for user in range(80):
        kind = list(kinds)[user % 4]
        weights = np.array([9.0 if kind in good["name"] else 1.0 for good in goods])
        bought = rng.choice(len(goods), 14, replace=False, p=weights / weights.sum())
        rows += [{"customer": f"u{user}", "sku": f"g{good}", "at": at} for at, good in enumerate(bought)]
    pd.DataFrame(rows).to_csv(folder / "sales.csv", index=False)
    (folder / "goods.jsonl").write_text("\n".join(map(json.dumps, goods)))
    columns = {"user_id": "customer", "item_id": "sku", "position": "at"}
    texts = {"item_id": "sku", "title": "name"} | {n: n for n in ("category", "maker", "description")}
    return DatasetConfig(
        interactions=InteractionSource(location=str(folder / "sales.csv"), columns=columns),
        items=ItemSource(location=str(folder / "goods.jsonl"), columns=texts),
    )


@dataclass(frozen=True)
class Explained:
    """Answers with reasons, and what they are checked against."""

    items: pd.DataFrame  # by item id
    vectors: dict[str, np.ndarray]  # of texts, by item id
    answers: list[tuple[list[str], dict[str, Any]]]  # histories of all lengths, and the answers


@pytest.fixture(scope="module", params=["movielens", "shop"])
def explained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Explained:
    """An untrained model: what it says of texts, categories and lengths has to be true all the same."""
    folder = tmp_path_factory.mktemp(request.param)
    is_shop = request.param == "shop"
    config = shop(folder) if is_shop else resolve("movielens", None, folder / "cache")
    ingest(config, folder / "dataset")
    dataset = Dataset.load(folder / "dataset")
    counts = TfidfVectorizer(sublinear_tf=True).fit_transform(dataset.texts())
    vectors = TruncatedSVD(min(64, counts.shape[1] - 1), random_state=0).fit_transform(counts)
    vectors = vectors.astype(np.float32)
    codes = CodebookConfig(n_levels=3, codebook_size=4 if is_shop else 24)
    tokens = tokenize_vectors(dataset, vectors, EncoderSpec(name="tf-idf"), codes)
    catalogue, size = tokens.catalogue, tokens.codebook.codebook_size
    torch.manual_seed(0)
    model = CAR(
        CARConfig(catalogue.size, 3, size, d_model=16, n_layers=1, n_heads=2, max_history=10),
        *tables(catalogue),
    )
    popular, share = popularity_priors(
        dataset.histories(catalogue.uids).counts(catalogue.size), catalogue, size
    )
    bundle = Bundle(
        codebook=tokens.codebook,
        labels=tokens.labels,
        catalogue=catalogue,
        model=model,
        popular=popular,
        code_share=share / 2,
        think_scale=0.1,
        dataset_digest=dataset.digest,
        similarity_scale=10.0,
    )
    recommender = Recommender(bundle)
    histories = [
        [catalogue.item_ids[uid - 1] for uid in history]
        for history in dataset.histories(catalogue.uids).train[:USERS]
    ]
    answers = [(history, recommender.recommend({"history": history})) for history in histories]
    centred = vectors - tokens.codebook.mean
    ids = dataset.items["item_id"]
    return Explained(dataset.items.set_index("item_id"), dict(zip(ids, centred, strict=True)), answers)


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))


def test_the_item_that_a_reason_likens_has_the_nearest_text_of_the_history(explained: Explained) -> None:
    likened = 0
    for history, answer in explained.answers:
        for item in answer["items"]:
            own = explained.vectors[item["item_id"]]
            cosines = {past: cosine(own, explained.vectors[past]) for past in history}
            nearest = max(cosines.values())
            alike = item["alike"]
            assert nearest < NEAR + 0.01 if alike is None else nearest > NEAR - 0.01  # in half precision
            if alike:
                likened += 1
                assert cosines[alike["item_id"]] == pytest.approx(nearest, abs=0.01)
                assert alike["similarity"] == pytest.approx(nearest, abs=0.01)
                [reason] = [reason for reason in item["reasons"] if reason.startswith("Like “")]
                assert reason[6:].split("”")[0].rstrip("…") in " ".join(alike["title"].split())
            else:
                assert not any(reason.startswith("Like ") for reason in item["reasons"])
    assert likened > USERS


def test_words_are_whole_ones_of_the_title_or_the_categories(explained: Explained) -> None:
    columns = [name for name in explained.items.columns if name != "description"]
    worded = 0
    for _, answer in explained.answers:
        for item in answer["items"]:
            own = " ; ".join(explained.items.loc[item["item_id"], columns].fillna("").astype(str))
            terms = [term for step in item["path"] for term in step["words"].split(", ") if term]
            worded += bool(terms)
            assert all(
                re.search(rf"(?<![\w.]){re.escape(term)}(?![\w])", own, re.IGNORECASE) for term in terms
            )
            interest = re.fullmatch(
                r"Fits the interest in (.*)\.|(.*) often comes next\.", item["reasons"][0]
            )
            if interest:
                assert set((interest[1] or interest[2]).split(" and ")) <= set(terms)
    assert worded > 5 * USERS


def test_reasons_are_short_and_say_nothing_empty(explained: Explained) -> None:
    for _, answer in explained.answers:
        for item in answer["items"]:
            reasons = item["reasons"]
            assert 1 <= len(reasons) <= 2
            assert len(" ".join(reasons)) <= LONGEST
            assert all(reason.endswith(".") for reason in reasons)
            assert not EMPTY.search(re.sub("“.*?”", "", " ".join(reasons)))  # titles may say them
