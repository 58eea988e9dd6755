"""The steps evaluate and gate as plain functions use the champion and the policy that they are given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kfp import dsl

from car_model.bundle import Bundle
from car_model.data.dataset import Dataset
from car_model.evaluation import evaluate as evaluation_library
from car_model.evaluation.evaluate import Holdout, holdout_ranks
from car_model.metrics.ranking import summary
from car_model.recommender.recommender import Recommender
from car_model.weights import save_baseline
from components.gate.evaluate import evaluate
from components.gate.gate import gate
from registry.releases.release import write_release
from registry.store.open import open_store
from tests.car_model.builders import tiny_dataset, tiny_sasrec
from tests.fixtures import tiny_parts
from tests.registry.bundles import make_evidence
from tests.validation.gate_evidence import good_evaluation


def artifact(path: Path, content: Any = None, **metadata: Any) -> dsl.Artifact:
    if content is not None:
        path.write_text(json.dumps(content))
    return dsl.Artifact(uri=str(path), metadata=metadata)


def saved(dataset: Dataset, folder: Path) -> Path:
    folder.mkdir()
    dataset.interactions.to_parquet(folder / "interactions.parquet")
    dataset.items.to_parquet(folder / "items.parquet")
    (folder / "report.json").write_text(dataset.report.model_dump_json())
    return folder


def weakened(parts: Bundle) -> Bundle:
    """Another model over the same catalogue: its item vectors are shuffled."""
    weights = parts.model.state_dict()
    order = np.random.default_rng(0).permutation(len(weights["uid.weight"]) - 1) + 1
    weights["uid.weight"][1:] = weights["uid.weight"][order]
    parts.model.load_state_dict(weights)
    return parts


def test_the_champion_is_the_release_in_production_and_not_the_challenger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation_library, "LATENCY_REQUESTS", 20)
    challenger, production = tmp_path / "challenger", tmp_path / "production"
    tiny_parts(epochs=1).save(challenger)
    weakened(tiny_parts(epochs=1)).save(production)
    registry = open_store(str(tmp_path / "registry"))
    champion = write_release(registry, production, make_evidence(tmp_path / "evidence", production)).release
    save_baseline(tiny_sasrec(), 3.0, tmp_path / "sasrec")
    sound, nothing = good_evaluation(champion), artifact(tmp_path / "curves.json", {})
    dataset, evaluation = tiny_dataset(), artifact(tmp_path / "evaluation")
    evaluate.python_func(
        dataset=artifact(saved(dataset, tmp_path / "dataset")),
        bundle=artifact(challenger, model="m", data="d"),
        sasrec=artifact(tmp_path / "sasrec", digest="s"),
        health=artifact(tmp_path / "health.json", sound["codebook"]),
        drift=artifact(tmp_path / "drift.json", sound["drift"]),
        car_curves=nothing,
        sasrec_curves=nothing,
        ranker_summary=artifact(tmp_path / "ranker.json", {"trained": False}),
        registry=str(tmp_path / "registry"),
        champion=champion,
        evaluation=evaluation,
        golden=artifact(tmp_path / "golden"),
    )
    evidence = json.loads(Path(evaluation.path).read_text())
    holdout = Holdout.of(dataset)
    theirs = summary(holdout_ranks(Recommender.load(production), holdout))
    assert evidence["champion"]["release"] == champion
    compared = evidence["champion"]["models"]
    assert compared["champion"] == {name: part.model_dump() for name, part in theirs.items()}
    assert compared["champion"] != compared["challenger"] == evidence["models"]["challenger"]
    assert evidence["champion"]["holdout"] == evidence["holdout"]["digest"] == evaluation.metadata["holdout"]
    assert evidence["similarity"]["sasrec"] == 3.0
    assert evidence["paired"]["champion"]["ndcg@10"]["difference"] != 0


POLICY = "conditions: [{{name: mine, metric: paired.popularity.ndcg@10.low, above: {bound}, why: w}}]"


@pytest.mark.parametrize(
    ("policy", "users", "blessed"),
    [
        ("", 943, True),
        ("", 150, False),
        (POLICY.format(bound=0.5), 943, False),
        (POLICY.format(bound=0), 150, True),
    ],
)
def test_the_gate_judges_by_the_policy_that_it_is_given(
    tmp_path: Path, policy: str, users: int, blessed: bool
) -> None:
    evaluation = good_evaluation()
    evaluation["slices"] = {}
    evaluation["holdout"] |= {"users": users, "hits": round(users * 0.14)}
    evaluation["champion"] |= {"users": users, "users_share": 1.0}
    evaluation |= {"action": None, "cold": None}
    evaluation["not_measured"] = {"action": "there are no actions.", "cold": "no test item is cold."}
    verdict = artifact(tmp_path / "verdict")
    answer = gate.python_func(
        evaluation=artifact(tmp_path / "evaluation.json", evaluation, digest="e"),
        policy=policy, bootstrap=False, forced=[], verdict=verdict,
    )  # fmt: skip
    assert answer is blessed
    written = json.loads(Path(verdict.path).read_text())
    assert written["blessed"] is verdict.metadata["blessed"] is blessed
    assert ("mine" in {condition["name"] for condition in written["conditions"]}) == bool(policy)
