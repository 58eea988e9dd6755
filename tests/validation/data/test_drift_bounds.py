import json

import pytest

from car_model.evidence.data_profile import DataProfile
from validation.data.drift import compare_profiles
from validation.data.policy import DataPolicy, DriftPolicy

POPULAR = {"a": 0.3, "b": 0.2}
BASE = {
    "interactions": 1000,
    "users": 100,
    "items": 50,
    "interactions_per_user": [3, 5, 7, 10, 13, 15, 20],
    "action": {"missing_share": 0.0, "mean": 3.5, "std": 1.1, "quantiles": [1, 2, 3, 4, 4, 5, 5]},
    "first": "2020-01-01T00:00:00Z",
    "last": "2020-06-30T00:00:00Z",
    "activity": [0.1, 0.2, 0.3, 0.4],
    "popular": POPULAR,
}


def compared(now, before=BASE, shares=POPULAR, **policy):
    """Findings that failed."""
    now = DataProfile.model_validate_json(json.dumps(BASE | now))
    return [
        finding
        for finding in compare_profiles(now, before, DriftPolicy(**policy), shares, "c" * 64)[0]
        if not finding.ok
    ]


def failed(*changes, **policy):
    return [finding.problem for finding in compared(*changes, **policy)]


def test_the_same_data_has_not_drifted():
    assert failed({}) == []


def test_a_profile_survives_its_file(tmp_path):
    profile = DataProfile.model_validate_json(json.dumps(BASE))
    profile.write(tmp_path / "data_profile.json")
    assert DataProfile.read(tmp_path / "data_profile.json") == profile


@pytest.mark.parametrize(
    ("now", "told"),
    [
        ({"interactions": 499}, "499 interactions are 0.5 times production's 1,000"),
        ({"interactions": 10_001}, "10,001 interactions are 10 times"),
        ({"users": 49}, "49 users"),
        ({"items": 24}, "24 items"),
        ({"interactions_per_user": [3, 5, 7, 31, 40, 50, 60]}, "the median user has 31 interactions"),
        ({"interactions_per_user": [1, 1, 2, 3, 3, 4, 5]}, "the median user has 3 interactions"),
        ({"action": BASE["action"] | {"mean": 2.3}}, "the mean action is 2.3, production's was 3.5"),
        ({"action": None}, "no interaction has an action"),
        ({"last": "2020-05-01T00:00:00Z"}, "2020-05-01, 60 days before production's"),
        ({"first": None, "last": None}, "lost their timestamps"),
        ({"activity": [0.9, 0.1]}, "the spread of interactions over users is 0.79 from production's"),
    ],
)
def test_what_moved_too_far_is_told(now, told):
    (sentence,) = failed(now)
    assert told in sentence
    assert sentence.startswith("Drift against production: ") and sentence.endswith(".")


@pytest.mark.parametrize(
    "now", [{"interactions": 500}, {"interactions": 10_000}, {"last": "2020-05-31T00:00:00Z"}, {"users": 999}]
)
def test_thresholds_are_inclusive(now):
    assert failed(now) == []


def test_drift_can_be_a_warning():
    assert [finding.stops for finding in compared({"users": 1}, severity="warn")] == [False]


def test_item_ids_given_out_anew_are_told():
    (sentence,) = failed({}, BASE, {"x1": 0.3, "x2": 0.2, "x3": 0.5}, max_distance=1.0)
    assert "2 most popular items had 50.0% of the interactions and have 0.0%" in sentence


def test_a_flood_on_one_item_is_told():
    (sentence,) = failed({}, BASE, {"a": 0.1, "b": 0.05, "robots": 0.85}, max_distance=0.2)
    assert "the spread of interactions over items is 0.62 from" in sentence


@pytest.mark.parametrize(
    "previous",
    [{}, BASE | {"users": 0}, BASE | {"users": float("nan")}, BASE | {"extra": 1}, BASE | {"format": 1},
     BASE | {"activity": [0.0]}, BASE | {"popular": {"a": -1}},
     BASE | {"activity": None}, BASE | {"popular": None},
     BASE | {"interactions_per_user": [1]}, {key: BASE[key] for key in BASE if key != "items"}, [], "text"],
)  # fmt: skip
def test_a_profile_that_cannot_be_read_stops_the_run(previous):
    (finding,) = compared({}, previous, severity="warn")
    assert "Production's data profile cannot be read" in finding.problem
    assert finding.stops


@pytest.mark.parametrize(
    "wrong",
    [
        {"action_min": 5, "action_max": 1},
        {"min_users": 0},
        {"max_orphan_share": 1.5},
        {"earliest": "soon"},
        {"action_max": float("nan")},
        {"drift": {"max_ratio": float("inf")}},
        {"earliest": "2020-01-01T00:00:00Z", "latest": "2019-01-01T00:00:00Z"},
        {"action_mim": 1},
        {"drift": {"min_ratio": 0}},
    ],
)
def test_a_doubtful_data_policy_is_refused(wrong):
    with pytest.raises(ValueError, match=r"action|users|orphan|earliest|ratio"):
        DataPolicy.model_validate(wrong)
