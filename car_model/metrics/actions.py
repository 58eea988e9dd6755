"""Quality of predicted action probabilities.

Sources: normalised entropy, He et al. 2014 ("Practical Lessons from Predicting Clicks on Ads at Facebook");
expected calibration error, Guo et al. 2017, over bins of equal mass (Nixon et al. 2019), since most
predictions of a frequent action lie in one bin of equal width.
"""

from __future__ import annotations

import numpy as np

from car_model.evidence.training import ActionMetrics

BINS = 15
SMALLEST = 1e-7  # probabilities are clipped to this distance from 0 and 1


def log_losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Log loss of each prediction in nats: labels [n] of 0 and 1, probabilities [n] of 1 -> [n].

    Raises ValueError if the two differ in length, or a probability is not in 0..1.
    """
    if labels.shape != probabilities.shape:
        raise ValueError(f"{labels.shape} labels can't be compared with {probabilities.shape} probabilities.")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError("a probability is not a number from 0 to 1.")
    clipped = np.clip(probabilities.astype(np.float64), SMALLEST, 1 - SMALLEST)
    return -np.where(labels == 1, np.log(clipped), np.log1p(-clipped))


def entropy(rate: float) -> float:
    """Entropy of a share of likes in nats: the log loss of always predicting it."""
    return float(-sum(share * np.log(share) for share in (rate, 1 - rate) if share > 0))


def calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: mean distance of a bin's mean prediction from its share of likes."""
    order = np.argsort(probabilities, kind="stable")
    gaps = [
        len(part) * abs(float(probabilities[part].mean()) - float(labels[part].mean()))
        for part in np.array_split(order, min(bins, len(order)))
    ]
    return sum(gaps) / len(labels)


def action_metrics(labels: np.ndarray, probabilities: np.ndarray) -> ActionMetrics:
    """Log loss, normalised entropy (1 is what the mean rate achieves; less is better), AUC and ECE.

    Labels [n] are 1 if the action counts as liked, else 0. Metrics are None if undefined: all without
    labels, normalised entropy and AUC if only one class occurs.
    """
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415 - a second to import, which servers don't need

    losses = log_losses(labels, probabilities)
    if not len(labels):
        return ActionMetrics(log_loss=None, normalised_entropy=None, auc=None, ece=None)
    loss, rate = float(losses.mean()), float(labels.mean())
    two_classes = 0 < rate < 1
    return ActionMetrics(
        log_loss=loss,
        normalised_entropy=loss / entropy(rate) if two_classes else None,
        auc=float(roc_auc_score(labels, probabilities)) if two_classes else None,
        ece=calibration_error(labels, probabilities),
    )
