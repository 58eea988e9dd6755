"""The step that trains a ranker: a bundle without actions passes through byte for byte."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from car_model.bundle import Bundle
from car_model.data.dataset import Dataset
from car_model.evidence.training import RankerSummary
from common.digests import tree_digest
from components.training.train_ranker import train_ranker
from registry.releases.bundle_files import release_digest
from tests.car_model.action_ranker.liking import QUICK, liking, rated
from tests.car_model.builders import tiny_dataset

SETTINGS = json.dumps(QUICK.model_copy(update={"epochs": 4}).model_dump(exclude_defaults=True))

FACTS = {
    "model": "m",
    "codebook": "k",
    "catalogue": "c",
    "data": "d",
}  # KFP adds its own


def write(dataset: Dataset, folder: Path) -> None:
    folder.mkdir()
    dataset.interactions.to_parquet(folder / "interactions.parquet")
    dataset.items.to_parquet(folder / "items.parquet")
    (folder / "report.json").write_text(dataset.report.model_dump_json())


def trained(
    folder: Path, dataset: Dataset, bundle: Bundle, ranker: str = SETTINGS, training: bool = True
) -> Any:
    folder.mkdir()
    write(dataset, folder / "dataset")
    bundle.save(folder / "bundle")
    artifacts = {
        name: dsl.Artifact(uri=str(folder / name))
        for name in ("dataset", "bundle", "ranked_bundle", "ranker_summary")
    }
    artifacts["bundle"].metadata |= FACTS | {"display_name": "bundle", "store_session_info": "s"}
    train_ranker.python_func(
        **artifacts, ranker=ranker, training=training, checkpoints=str(folder / "states")
    )
    return artifacts, RankerSummary.read(artifacts["ranker_summary"].path)


def plain() -> Bundle:
    return replace(liking()[0], ranker=None)


def test_with_actions_the_bundle_gets_a_ranker_and_the_same_digest_every_time(tmp_path: Path) -> None:
    runs = [trained(tmp_path / name, rated(), plain(), SETTINGS) for name in ("one", "two")]
    for artifacts, summary in runs:
        assert summary.trained is True
        assert artifacts["ranked_bundle"].metadata == {**FACTS, "ranker": True}
        assert Bundle.load(Path(artifacts["ranked_bundle"].path)).ranker is not None
    first, second = (release_digest(artifacts["ranked_bundle"].path) for artifacts, _ in runs)
    assert first == second != release_digest(runs[0][0]["bundle"].path)


@pytest.mark.parametrize(
    ("dataset", "ranker", "training", "why"),
    [
        (tiny_dataset(), "{}", True, "the interactions have no actions."),
        (rated(), "off", True, "none was asked for."),
        (rated(), "{}", False, "nothing was trained, and production has none."),
    ],
)
def test_otherwise_it_passes_through(
    tmp_path: Path, dataset: Dataset, ranker: str, training: bool, why: str
) -> None:
    artifacts, summary = trained(tmp_path / "run", dataset, plain(), ranker, training)
    assert summary == RankerSummary(trained=False, why=why)
    assert tree_digest(artifacts["ranked_bundle"].path) == tree_digest(artifacts["bundle"].path)
    assert artifacts["ranked_bundle"].metadata == {**FACTS, "ranker": False}


def test_without_training_the_champions_ranker_is_carried_on_unless_none_is_wanted(tmp_path: Path) -> None:
    artifacts, _ = trained(tmp_path / "kept", rated(), liking()[0], SETTINGS, training=False)
    assert tree_digest(artifacts["ranked_bundle"].path) == tree_digest(artifacts["bundle"].path)
    assert artifacts["ranked_bundle"].metadata["ranker"] is True
    artifacts, summary = trained(tmp_path / "off", rated(), liking()[0], ranker="off", training=False)
    assert Bundle.load(Path(artifacts["ranked_bundle"].path)).ranker is None
    assert summary.why == "none was asked for."
