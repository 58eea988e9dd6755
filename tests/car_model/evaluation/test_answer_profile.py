"""The answer profile: measured by the recommender, part of the bundle, refused where it is damaged."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from car_model.bundle import HEADER, Bundle, BundleError
from car_model.evaluation.answer_profile import add_answer_profile, measure_answers
from car_model.metrics.answer_drift import FILE, TOP, AnswerProfile, AnswerProfileError
from car_model.recommender.recommender import Recommender
from car_model.training.onboard import onboard
from common.digests import tree_digest
from tests.fixtures import tiny_histories, tiny_parts, tiny_vectors

USERS = 40


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return add_answer_profile(tiny_parts(epochs=1), tiny_histories())


@pytest.fixture
def folder(bundle: Bundle, tmp_path: Path) -> Path:
    bundle.save(tmp_path / "bundle")
    return tmp_path / "bundle"


def profile_of(bundle: Bundle) -> AnswerProfile:
    assert bundle.answer_profile is not None
    return bundle.answer_profile


def test_it_counts_what_the_recommender_answers(bundle: Bundle) -> None:
    """By another route: answers instead of score tables."""
    profile, recommender, data = profile_of(bundle), Recommender(bundle), tiny_histories()
    ids, uids = bundle.catalogue.item_ids, bundle.catalogue.uids
    assert profile.requests == USERS
    for thinking in range(4):
        best, codes = [], np.zeros(4, dtype=int)
        for history in data.train:
            request = {"history": [ids[uid - 1] for uid in history], "k": TOP, "thinking": thinking}
            items = recommender.recommend(request)["items"]
            best.append(items[0]["score"])
            codes += np.bincount(
                [bundle.catalogue.sids[uids[item["item_id"]] - 1, 0] for item in items], minlength=4
            )
        assert np.abs(profile.codes[thinking] - codes).sum() <= 2  # a tie at the tenth place
        edges = np.quantile(best, np.linspace(0.1, 0.9, 9))
        assert profile.edges[thinking] == pytest.approx(edges, abs=2e-4)
    assert profile.scores.sum(axis=1).tolist() == [USERS] * 4
    assert profile.scores.min() >= 2  # deciles of 40
    assert profile.codes.sum(axis=1).tolist() == [USERS * TOP] * 4


def test_what_is_retired_or_known_counts_for_nothing(bundle: Bundle) -> None:
    retired = frozenset(f"i{at}" for at in range(1, 49) if at % 4)
    smaller = replace(bundle, catalogue=replace(bundle.catalogue, retired=retired))
    profile, data = measure_answers(Recommender(smaller), tiny_histories()), tiny_histories()
    assert profile is not None
    offered = set(range(4, 49, 4))
    expected = [min(TOP, len(offered - set(history.tolist()))) for history in data.train]
    assert profile.codes.sum(axis=1).tolist() == [sum(expected)] * 4


def test_the_same_inputs_give_the_same_bytes(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    again = add_answer_profile(tiny_parts(epochs=1), tiny_histories())
    again.save(tmp_path / "again")
    assert tree_digest(tmp_path / "again") == tree_digest(folder)
    Bundle.load(folder).save(tmp_path / "loaded")
    assert tree_digest(tmp_path / "loaded") == tree_digest(folder)


def test_the_release_has_another_digest_with_another_profile(folder: Path, tmp_path: Path) -> None:
    from registry.releases.bundle_files import release_digest

    before = release_digest(folder)
    bundle = Bundle.load(folder)
    profile = profile_of(bundle)
    replace(bundle, answer_profile=replace(profile, codes=profile.codes + 1)).save(tmp_path / "other")
    assert release_digest(tmp_path / "other") != before


def test_a_bundle_without_one_says_nothing_of_it(tmp_path: Path) -> None:
    tiny_parts(epochs=1).save(tmp_path)
    assert "answer_profile" not in (tmp_path / HEADER).read_text()
    assert not (tmp_path / FILE).exists()
    assert Bundle.load(tmp_path).answer_profile is None


def test_onboarded_items_leave_it_as_it_is(bundle: Bundle) -> None:
    grown = onboard(bundle, ["new"], ["New"], tiny_vectors(49)[48:])
    assert grown.answer_profile is bundle.answer_profile


def test_users_are_spread_evenly_and_no_more_than_asked(bundle: Bundle) -> None:
    profile = measure_answers(Recommender(bundle), tiny_histories(), users=7)
    assert profile is not None
    assert profile.requests == 7
    assert profile.codes.sum() == 7 * TOP * 4


def test_without_holdout_histories_there_is_none(bundle: Bundle) -> None:
    data = tiny_histories()
    assert measure_answers(Recommender(bundle), replace(data, valid=np.zeros_like(data.valid))) is None


def test_a_changed_byte_is_refused(folder: Path) -> None:
    text = (folder / FILE).read_text()
    (folder / FILE).write_text(text.replace('"requests": 40', '"requests": 41'))
    with pytest.raises(BundleError, match="profile"):
        Bundle.load(folder)


def test_a_lost_or_added_profile_is_refused(folder: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    tiny_parts(epochs=1).save(plain)
    shutil.copy(folder / FILE, plain / FILE)
    (folder / FILE).unlink()
    for broken in (folder, plain):
        with pytest.raises(BundleError, match="profile"):
            Bundle.load(broken)


@pytest.mark.parametrize("value", [7, None, []])
def test_a_header_that_names_none_properly_is_refused(folder: Path, value: Any) -> None:
    header = json.loads((folder / HEADER).read_text()) | {"answer_profile": value}
    (folder / HEADER).write_text(json.dumps(header))
    with pytest.raises(BundleError, match="profile"):
        Bundle.load(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"requests": 0},
        {"requests": None},
        {"codes": [[1, 2], [3]]},
        {"codes": [[1, 2]]},
        {"codes": []},
        {"codes": [[-1, 2]] * 4},
        {"scores": {"edges": [[2.0, 1.0]] * 4, "counts": [[1, 1, 1]] * 4}},
        {"scores": {"edges": [[1.0, float("nan")]] * 4, "counts": [[1, 1, 1]] * 4}},
        {"scores": {"edges": [[1.0, 2.0]] * 4, "counts": [[1, 1]] * 4}},
        {"scores": 3},
        {"code_spread": -1},
        {"code_spread": float("inf")},
    ],
)
def test_a_profile_that_makes_no_sense_is_refused(
    bundle: Bundle, tmp_path: Path, change: dict[str, Any]
) -> None:
    path = tmp_path / FILE
    profile_of(bundle).save(path)
    AnswerProfile.load(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(AnswerProfileError, match="profile"):
        AnswerProfile.load(path)


@pytest.mark.parametrize("content", ["", "[]", "{", "null", "\x00"])
def test_a_profile_that_is_no_object_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(AnswerProfileError, match=r"profile\.json can't be read"):
        AnswerProfile.load(tmp_path / FILE)
