"""Measure the golden profile of a bundle: what it ranks first after holdout histories."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from car_model.bundle import Bundle
from car_model.data.histories import Histories
from car_model.metrics.drift import TOP, Profile, psi, shares
from car_model.recommender.recommender import Recommender
from car_model.training.trainer import scored

USERS = 500
BINS = 10
TOGETHER = 16  # histories that are scored at once


def profiled(bundle: Bundle, data: Histories) -> Bundle:
    """The bundle with its golden profile; as it was where there is no history to ask about."""
    profile = measure(Recommender(bundle), data)
    return replace(bundle, answer_profile=profile) if profile else bundle


def measure(recommender: Recommender, data: Histories, users: int = USERS) -> Profile | None:
    """Ask about what precedes the validation items, with every value of thinking.

    Args:
        data: of the catalogue of the recommender.
        users: at most so many, evenly spread; the same ones for the same data.

    Returns:
        None where no user has a history before a validation item.
    """
    known = scored(data)
    chosen = [
        known[at] for at in np.unique(np.linspace(0, len(known) - 1, min(users, len(known))).astype(int))
    ]
    if not chosen:
        return None
    histories = [data.train[at] for at in chosen]
    depths = range(recommender.n_levels + 1)
    rows = [_answered(recommender, histories, thinking) for thinking in depths]
    best = np.array([scores for scores, _ in rows])  # [T, n]
    edges = np.quantile(best, np.linspace(0, 1, BINS + 1)[1:-1], axis=1).T.round(4)
    binned = [np.searchsorted(edge, row, "right") for edge, row in zip(edges, best, strict=True)]
    counts = np.array([np.bincount(row, minlength=BINS) for row in binned])
    codes = np.array([codes for _, codes in rows])  # [T, n, C]
    return Profile(len(chosen), edges, counts, codes.sum(axis=1), round(_spread(codes), 4))


@torch.inference_mode()
def _answered(
    recommender: Recommender, histories: list[np.ndarray], thinking: int
) -> tuple[list[float], np.ndarray]:
    """The best item's score of every answer, and how many of its `TOP` items carry each code [n, C]."""
    first = recommender.catalogue.sid_table[:, 0]
    best, codes = [], np.zeros((len(histories), recommender.bundle.codebook.codebook_size), dtype=np.int64)
    for start in range(0, len(histories), TOGETHER):
        group = histories[start : start + TOGETHER]
        scores = recommender.scores(group, thinking)
        for at, (row, history) in enumerate(zip(scores, group, strict=True), start=start):
            row[[*recommender.catalogue.barred, *history.tolist()]] = -torch.inf
            top = row.topk(min(TOP, len(row)))
            offered = top.indices[top.values > -torch.inf].numpy()
            best.append(float(top.values[0]) if len(offered) else 0.0)
            np.add.at(codes[at], first[offered], 1)
    return best, codes


def _spread(codes: np.ndarray) -> float:
    """`Profile.code_spread` from two halves of the answers, [T, n, C]; the mean over thinking."""
    answers = codes.shape[1]
    if answers < 2:
        return 0.0
    halves = shares(codes[:, ::2].sum(axis=1)), shares(codes[:, 1::2].sum(axis=1))
    indices = [psi(one, other) for one, other in zip(*halves, strict=True)]
    return float(np.mean(indices)) / (1 / len(range(0, answers, 2)) + 1 / len(range(1, answers, 2)))
