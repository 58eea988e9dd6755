import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from car_model.evidence.data_profile import DataProfile
from car_model.evidence.drift import RisenItems
from validation.data.drift import POPULAR, item_shares, js_distance, measure_drift, profile_tables
from validation.data.policy import DriftPolicy
from validation.gate.policy import load_policy

SHARES = st.lists(st.sampled_from([0.0]) | st.floats(1e-6, 1), min_size=2, max_size=12).filter(
    lambda parts: sum(parts) > 0.01
)


def tables(users, items, *, seed=0, prefix="i", exponent=1.0, length=8):
    """Users with some interactions each, over items whose popularity falls by a power law."""
    rng = np.random.default_rng(seed)
    chance = 1.0 / np.arange(1, items + 1) ** exponent
    sizes = rng.poisson(length, users) + 1
    rows = [(f"u{user}", f"{prefix}{item}") for user, size in enumerate(sizes)
            for item in rng.choice(items, size, p=chance / chance.sum())]  # fmt: skip
    return pd.DataFrame(rows, columns=["user_id", "item_id"])


def drift(now, before):
    """Figures between two tables of interactions, each the profile of its own."""
    profiles = [profile_tables(table, table[["item_id"]].drop_duplicates()) for table in (now, before)]
    stored = json.dumps(profiles[1].to_json(), allow_nan=False)  # as the release keeps it
    return measure_drift(profiles[0], DataProfile.model_validate_json(stored), item_shares(now), "c" * 64)


def test_equal_data_does_not_drift():
    figures = drift(tables(300, 250), tables(300, 250))
    for name in ("interactions", "users", "items", "median_interactions"):
        assert getattr(figures, name).ratio == 1.0
    assert (figures.activity.distance, figures.popularity.distance) == (0.0, 0.0)
    assert (figures.action.shift, figures.newest.days_back) == (None, None)  # there are none to move


def test_chance_alone_stays_below_the_warning():
    figures = drift(tables(1000, 500, seed=1), tables(1000, 500, seed=2))
    assert 0 < figures.activity.distance < 0.2
    assert 0 < figures.popularity.distance < 0.2


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ({"exponent": 6.0}, "popularity"),  # a flood on one item
        ({"length": 80}, "activity"),
    ],
)
def test_what_no_count_shows_is_beyond_the_block(change, moved):
    figures = drift(tables(400, 300, **change), tables(400, 300))
    assert getattr(figures, moved).distance > DriftPolicy().max_distance


def test_ids_given_out_anew_show_however_flat_popularity_is():
    popularity = drift(
        tables(400, 900, exponent=0.1, prefix="new-"), tables(400, 900, exponent=0.1)
    ).popularity
    assert (popularity.ratio, popularity.now) == (0.0, 0.0)
    calm = drift(tables(400, 900, exponent=0.5, seed=1), tables(400, 900, exponent=0.5)).popularity
    assert calm.ratio > DriftPolicy().min_popular_ratio


def test_popularity_is_of_productions_items_and_all_others():
    before = pd.DataFrame({"user_id": list("aabb"), "item_id": ["x", "x", "y", "z"]})
    now = pd.DataFrame({"user_id": list("aabb"), "item_id": ["x", "new", "new", "new"]})
    popularity = drift(now, before).popularity
    assert (popularity.items, popularity.before, popularity.now) == (3, 1.0, 0.25)
    assert popularity.risen == RisenItems(items=1, now=0.75, before_at_most=0.0)
    apart = jensenshannon([0.25, 0, 0, 0.75], [0.5, 0.25, 0.25, 0], 2)
    assert popularity.distance == pytest.approx(apart, abs=1e-6)


def test_a_flood_on_an_item_that_was_not_popular_shows():
    calm = tables(2000, 2000, seed=1)
    flood = pd.DataFrame({"user_id": [f"bot{at}" for at in range(len(calm) // 2)], "item_id": "i1500"})
    popularity = drift(pd.concat([tables(2000, 2000, seed=2), flood]), calm).popularity
    assert popularity.distance > load_bound("popularity moved little")
    assert popularity.risen.now > 0.3
    assert popularity.risen.before_at_most < 0.05


def load_bound(name):
    return next(condition.at_most for condition in load_policy().conditions if condition.name == name)


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), min_size=120, max_size=120), st.integers(0, 2**32 - 1))
def test_the_distance_told_is_at_most_the_one_among_all_items(counts, seed):
    """Production knows its hundred most popular items; what it does not know must never be made up."""
    rng = np.random.default_rng(seed)
    old = np.array(counts) + 1
    new = rng.permutation(old) * rng.integers(1, 9, len(old))
    parts = [{f"i{at}": n / side.sum() for at, n in enumerate(side)} for side in (old, new)]
    popular = dict(sorted(parts[0].items(), key=lambda item: (-item[1], item[0]))[:POPULAR])
    before = profile_tables(tables(5, 5), tables(5, 5)).model_copy(update={"popular": popular})
    distance = measure_drift(before, before, parts[1], "c" * 64).popularity.distance
    assert distance <= js_distance(list(parts[0].values()), list(parts[1].values())) + 1e-5


def test_a_profile_stays_small_and_is_the_same_in_any_order():
    table = tables(500, 2000, exponent=0.2)
    profile = profile_tables(table, table[["item_id"]].drop_duplicates())
    shuffled = table.sample(frac=1, random_state=3)
    assert profile_tables(shuffled, shuffled[["item_id"]].drop_duplicates()) == profile
    assert len(profile.popular) == POPULAR
    assert list(profile.popular) == sorted(profile.popular, key=lambda item: (-profile.popular[item], item))
    assert sum(profile.activity) == pytest.approx(1, abs=1e-5)


def test_activity_counts_users_by_powers_of_two():
    table = pd.DataFrame({"user_id": list("a" + "b" * 2 + "c" * 3 + "d" * 4 + "e" * 9), "item_id": "x"})
    assert profile_tables(table, table).activity == (0.2, 0.2, 0.4, 0.0, 0.2)


@settings(deadline=None)
@given(SHARES, SHARES)
def test_the_distance_is_the_one_of_the_textbook(first, second):
    size = max(len(first), len(second))
    padded = [np.pad(part, (0, size - len(part))) for part in (first, second)]
    distance = js_distance(first, second)
    assert 0 <= distance <= 1
    assert distance == js_distance(second, first)
    expected = jensenshannon(*padded, 2)
    assert distance == pytest.approx(0 if math.isnan(expected) else expected, abs=1e-5)


@settings(deadline=None)
@given(SHARES, SHARES)
def test_places_that_are_merged_never_make_the_distance_greater(first, second):
    size = max(len(first), len(second))
    parts = [np.pad(part, (0, size - len(part))) for part in (first, second)]
    merged = [[*part[:1], part[1:].sum()] for part in parts]
    assert js_distance(*merged) <= js_distance(*parts) + 1e-5


def test_what_cannot_be_told_is_null():
    table = tables(50, 20)
    plain = profile_tables(table, table)
    dated = table.assign(timestamp=pd.Timestamp("2020-01-31", tz="UTC"), action=np.arange(len(table)) % 5)
    full = profile_tables(dated, dated)
    lost = measure_drift(plain, full, item_shares(table), "c" * 64)
    assert (lost.action.shift, lost.newest.days_back) == (None, None)
    won = measure_drift(full, plain, item_shares(table), "c" * 64)
    assert (won.action.shift, won.newest.days_back) == (None, None)
    constant = profile_tables(*(dated.assign(action=1.0),) * 2)
    assert measure_drift(full, constant, item_shares(dated), "c" * 64).action.shift is None
    assert measure_drift(constant, constant, item_shares(dated), "c" * 64).action.shift == 0.0


def test_days_back_and_shift_have_their_sign_and_unit():
    table = tables(50, 20)
    early = table.assign(
        timestamp=pd.Timestamp("2020-01-31", tz="UTC"),
        action=[1.0, 3.0] * (len(table) // 2) + [2.0] * (len(table) % 2),
    )
    late = early.assign(timestamp=pd.Timestamp("2020-02-02T12:00", tz="UTC"), action=early["action"] - 2)
    figures = drift(early, late)
    assert figures.newest.days_back == 2.5
    assert drift(late, early).newest.days_back == -2.5
    assert figures.action.shift == pytest.approx(2 / early["action"].std(ddof=0), abs=1e-5)


def test_the_gates_blocking_bounds_are_those_that_validate_holds_to_before_training():
    policy = DriftPolicy()
    bounds = {
        item.metric[1:]: item
        for item in load_policy().conditions
        if item.metric[0] == "drift" and item.severity == "block"
    }
    for name in ("interactions", "users", "items"):
        assert bounds.pop((name, "ratio")).between == (policy.min_ratio, policy.max_ratio)
    low, high = bounds.pop(("median_interactions", "ratio")).between
    assert (1 / low, high) == (pytest.approx(policy.max_median_ratio, abs=0.05), policy.max_median_ratio)
    assert bounds.pop(("action", "shift")).at_most == policy.max_action_shift
    assert bounds.pop(("popularity", "ratio")).at_least == policy.min_popular_ratio
    assert bounds.pop(("newest", "days_back")).at_most == policy.max_days_back
    for name in ("activity", "popularity"):
        assert bounds.pop((name, "distance")).at_most == policy.max_distance
    assert bounds.pop(("retired", "share")).at_most == policy.max_retired_share
    assert not bounds
