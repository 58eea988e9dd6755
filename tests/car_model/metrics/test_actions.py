"""Metrics of predicted actions against their definitions and against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from car_model.metrics.actions import action_metrics, calibration_error, entropy, log_losses

pairs = st.lists(st.tuples(st.integers(0, 1), st.floats(0.001, 0.999)), min_size=1, max_size=60)


def columns(drawn: list[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([label for label, _ in drawn]), np.array([chance for _, chance in drawn])


@given(pairs)
def test_the_log_loss_is_scikit_learns(drawn: list[tuple[int, float]]) -> None:
    labels, chances = columns(drawn)
    expected = log_loss(labels, chances, labels=[0, 1])
    assert action_metrics(labels, chances).log_loss == pytest.approx(expected)


@given(st.lists(st.integers(0, 1), min_size=2, max_size=60))
def test_the_mean_rate_alone_has_a_normalised_entropy_of_1_and_no_calibration_error(drawn: list[int]) -> None:
    labels = np.array(drawn)
    metrics = action_metrics(labels, np.full(len(labels), labels.mean()))
    if 0 < labels.mean() < 1:
        assert metrics.normalised_entropy == pytest.approx(1)
        assert metrics.auc == pytest.approx(0.5)
    else:
        assert metrics.normalised_entropy is None
        assert metrics.auc is None
    assert calibration_error(labels, np.full(len(labels), labels.mean()), bins=1) == pytest.approx(0)


@given(pairs)
def test_the_auc_counts_pairs_in_order_and_ties_half(drawn: list[tuple[int, float]]) -> None:
    labels, chances = columns([(label, round(chance, 1)) for label, chance in drawn])
    gaps = chances[labels == 1][:, None] - chances[labels == 0][None, :]
    if gaps.size:
        expected = float((gaps > 0).mean() + (gaps == 0).mean() / 2)
        assert action_metrics(labels, chances).auc == pytest.approx(expected)


def test_calibration_is_the_mean_gap_of_bins_of_equal_mass() -> None:
    chances = np.array([0.9, 0.1, 0.2, 0.8])
    labels = np.array([1, 0, 1, 1])  # low half: predicted .15, is .5; high half: predicted .85, is 1
    assert calibration_error(labels, chances, bins=2) == pytest.approx((0.35 + 0.15) / 2)


@given(pairs)
def test_calibration_is_between_0_and_1_and_knows_no_order(drawn: list[tuple[int, float]]) -> None:
    labels, chances = columns([(label, chance) for label, chance in set(drawn)])
    error = calibration_error(labels, chances, bins=3)
    assert 0 <= error <= 1
    if len(set(chances)) == len(chances):
        assert calibration_error(labels[::-1], chances[::-1], bins=3) == pytest.approx(error)


def test_a_sure_prediction_that_is_wrong_costs_much_and_not_infinitely() -> None:
    assert 15 < log_losses(np.array([1]), np.array([0.0]))[0] < 20
    assert log_losses(np.array([0]), np.array([0.0]))[0] == pytest.approx(0, abs=1e-6)


def test_the_entropy_of_a_share_is_largest_at_a_half() -> None:
    assert entropy(0.5) == pytest.approx(np.log(2))
    assert (entropy(0.0), entropy(1.0)) == (0, 0)


def test_without_labels_nothing_is_told() -> None:
    none = np.zeros(0)
    assert {value for _, value in action_metrics(none, none)} == {None}


@pytest.mark.parametrize("chance", [1.1, -0.1, np.nan])
def test_what_is_no_probability_is_refused(chance: float) -> None:
    with pytest.raises(ValueError, match="not a number from 0 to 1"):
        log_losses(np.array([1]), np.array([chance]))


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="can't be compared"):
        log_losses(np.array([1, 0]), np.array([0.5]))
