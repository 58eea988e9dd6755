"""Repeated items of a history are read as they were in training, whoever asks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from car_model.bundle import Bundle
from car_model.codebook.labels import CodeLabels
from car_model.data.dataset import Dataset, DatasetSettings
from car_model.data.histories import Repeats, kept_positions
from car_model.recommender.recommender import Recommender
from car_model.training.onboard import onboard
from car_model.training.recipe import Recipe
from car_model.training.train_car import fit_car
from ingestion.config import DatasetConfig, InteractionSource, ItemSource
from ingestion.ingest import ingest
from tests.car_model.action_ranker.liking import liking
from tests.car_model.builders import tiny_dataset
from tests.fixtures import tiny_vectors

RULES: tuple[Repeats, ...] = ("first", "last", "all")
KEPT = {"first": "i1 i4 i2 i9", "last": "i4 i1 i9 i2", "all": "i1 i4 i2 i1 i9 i2 i2"}
LOG = KEPT["all"].split()


@pytest.mark.parametrize("rule", RULES)
def test_ingestion_and_serving_keep_the_same_events(rule: Repeats, tmp_path: Path) -> None:
    """A log is ingested; the same log, sent as a history, is what training saw of it."""
    rng = np.random.default_rng(0)
    logs = {f"u{user}": rng.integers(0, 8, 30).tolist() for user in range(12)}
    rows = [(user, f"i{item}", at) for user, log in logs.items() for at, item in enumerate(log)]
    pd.DataFrame(rows, columns=["user_id", "item_id", "position"]).to_csv(tmp_path / "log.csv", index=False)
    items = pd.DataFrame({"item_id": [f"i{item}" for item in range(8)], "title": "a film"})
    items.to_csv(tmp_path / "items.csv", index=False)
    columns = {name: name for name in ("user_id", "item_id", "position")}
    config = DatasetConfig(
        interactions=InteractionSource(location=str(tmp_path / "log.csv"), columns=columns),
        items=ItemSource(location=str(tmp_path / "items.csv")),
        duplicates=rule,
    )
    ingest(config, tmp_path / "dataset")
    dataset = Dataset.load(tmp_path / "dataset")
    assert dataset.report.config.duplicates == rule
    data = dataset.histories({f"i{item}": item + 1 for item in range(8)})
    for user, train, valid, test in zip(data.users, data.train, data.valid, data.test, strict=True):
        served = np.array(logs[user])[kept_positions(np.array(logs[user]), rule)] + 1
        assert served.tolist() == [*train, valid, test]


@pytest.mark.parametrize("rule", RULES)
def test_a_history_with_repeats_is_answered_as_what_training_keeps_of_it(
    parts: Bundle, rule: Repeats, tmp_path: Path
) -> None:
    bundle = replace(parts, repeats=rule)
    bundle.save(tmp_path / "bundle")
    recommender, plain = Recommender.load(tmp_path / "bundle"), Recommender(parts)
    answer = recommender.recommend({"history": LOG, "k": 48})
    assert answer == plain.recommend({"history": KEPT[rule].split(), "k": 48})
    uids = recommender.catalogue.uids
    scores = recommender.scores([np.array([uids[item] for item in LOG])])  # what evaluation ranks by
    expected = plain.scores([np.array([uids[item] for item in KEPT[rule].split()])])
    assert scores.equal(expected)


def test_actions_stay_with_their_events() -> None:
    bundle = liking()[0]
    firsts = [5, 1, 5, 5]  # the later events of i1 and i2 were given a 1
    request = {"rank_by": "action", "k": 10}
    served = Recommender(replace(bundle, repeats="first")).recommend(
        {**request, "history": LOG, "actions": [5, 1, 5, 1, 5, 1, 1]}
    )
    kept = Recommender(bundle).recommend({**request, "history": KEPT["first"].split(), "actions": firsts})
    assert served == kept


def test_training_states_the_rule_and_onboarding_keeps_it(parts: Bundle, tmp_path: Path) -> None:
    dataset = tiny_dataset()
    report = dataset.report.model_copy(update={"config": DatasetSettings(duplicates="last")})
    parts.codebook.save(tmp_path)
    CodeLabels(parts.labels.words).save(tmp_path)
    recipe = Recipe(d_model=16, n_layers=1, n_heads=2, max_history=10, epochs=1, threads=1)
    trained, _ = fit_car(replace(dataset, report=report), tmp_path, parts.catalogue, recipe)
    assert trained.repeats == "last"
    assert onboard(trained, ["n"], ["N"], tiny_vectors()[:1]).repeats == "last"
