"""The population stability index, and that chance alone does not look like drift."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from car_model.metrics.answer_drift import (
    AnswerProfile,
    beyond_chance,
    code_drift,
    mixture,
    psi,
    score_drift,
    shares,
)

SMALL, LARGE = 0.1, 0.25  # the index's usual reading
CODES, DEPTHS = 64, 3


def make_profile(requests: int = 1000, seed: int = 0) -> AnswerProfile:
    """Codes as skewed as real ones; ten items an answer."""
    rng = np.random.default_rng(seed)
    codes = np.stack([rng.multinomial(10 * requests, zipf(shift)) for shift in range(DEPTHS)])
    scores = np.full((DEPTHS, 10), requests // 10)
    return AnswerProfile(
        requests=requests,
        edges=np.tile(np.arange(9.0), (DEPTHS, 1)),
        scores=scores,
        codes=codes,
        code_spread=(CODES - 1) / 10,
    )


def zipf(shift: int) -> np.ndarray:
    weights = 1 / (1 + (np.arange(CODES) + 5 * shift) % CODES)
    return weights / weights.sum()


counts = st.lists(st.integers(0, 10_000), min_size=2, max_size=30).map(np.array)


def test_it_is_the_textbook_sum() -> None:
    actual, expected = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.4, 0.2])
    by_hand = 0.1 * np.log(0.5 / 0.4) - 0.1 * np.log(0.3 / 0.4) + 0.0
    assert psi(actual, expected) == pytest.approx(by_hand)
    assert psi(actual, expected) == pytest.approx(0.0510826, abs=1e-6)


@given(counts, st.data())
def test_it_is_symmetric_never_negative_and_finite(first: np.ndarray, data: st.DataObject) -> None:
    second = data.draw(
        st.lists(st.integers(0, 10_000), min_size=len(first), max_size=len(first)).map(np.array)
    )
    there, back = psi(shares(first), shares(second)), psi(shares(second), shares(first))
    assert there == pytest.approx(back, abs=1e-12)
    assert -1e-12 <= there < 100
    assert psi(shares(first), shares(first)) == 0


@pytest.mark.parametrize("answers", [200, 500, 2000])
@pytest.mark.parametrize("depth", range(DEPTHS))
def test_the_same_traffic_is_no_drift_however_few_answers(answers: int, depth: int) -> None:
    profile, rng = make_profile(), np.random.default_rng(answers)
    raw, drifts = [], []
    for _ in range(50):
        counts = np.zeros((DEPTHS, CODES), dtype=np.int64)
        counts[depth] = rng.multinomial(10 * answers, zipf(depth))
        raw.append(psi(shares(counts.sum(axis=0)), mixture(profile.codes, counts.sum(axis=1))))
        drifts.append(code_drift(profile, counts, answers))
    assert np.mean(raw) > 2 * np.mean(drifts)  # most of the index was chance
    assert max(drifts) < SMALL / 2


@pytest.mark.parametrize("answers", [200, 2000])
def test_a_real_shift_is_large(answers: int) -> None:
    profile, rng = make_profile(), np.random.default_rng(1)
    counts = np.zeros((DEPTHS, CODES), dtype=np.int64)
    counts[0] = rng.multinomial(10 * answers, zipf(8))
    assert code_drift(profile, counts, answers) > LARGE


def test_another_mix_of_thinking_is_no_drift() -> None:
    """Each depth recommends other codes; a client that starts to think faster is not a model that broke."""
    profile, rng = make_profile(), np.random.default_rng(2)
    assert psi(shares(profile.codes[0]), shares(profile.codes[2])) > LARGE
    for weights in ([1, 0, 0], [0, 0, 1], [0.2, 0.5, 0.3]):
        counts = np.stack([rng.multinomial(int(20_000 * w), zipf(at)) for at, w in enumerate(weights)])
        assert code_drift(profile, counts, 2000) < SMALL / 2


def test_scores_that_fall_are_drift() -> None:
    profile, rng = make_profile(), np.random.default_rng(3)
    same = np.stack([rng.multinomial(300, np.full(10, 0.1)) for _ in range(DEPTHS)])
    low = np.stack([rng.multinomial(300, np.array([0.4, 0.2, *[0.05] * 8])) for _ in range(DEPTHS)])
    assert score_drift(profile, same) < SMALL / 2
    assert score_drift(profile, low) > LARGE


def test_what_chance_gives_is_taken_off_but_never_more() -> None:
    assert beyond_chance(0.5, 100.0, 1000, 1000) == pytest.approx(0.3)
    assert beyond_chance(0.1, 100.0, 1000, 1000) == 0
