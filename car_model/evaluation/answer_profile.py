"""Measure how a bundle answers: the scores and codes of what it ranks first after holdout histories."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from car_model.bundle import Bundle
from car_model.data.histories import Histories
from car_model.metrics.answer_drift import TOP, AnswerProfile, psi, shares
from car_model.recommender.recommender import Recommender
from car_model.training.trainer import scored

USERS = 500
BINS = 10
BATCH = 16  # histories that are scored at once


def add_answer_profile(bundle: Bundle, data: Histories) -> Bundle:
    """The bundle with its answer profile; unchanged if there is no history to measure it on."""
    profile = measure_answers(Recommender(bundle), data)
    return replace(bundle, answer_profile=profile) if profile else bundle


def measure_answers(recommender: Recommender, data: Histories, users: int = USERS) -> AnswerProfile | None:
    """Answer the histories that precede the validation items, with every value of thinking.

    At most so many users are asked for, evenly spread, the same ones for the same data. None if no user has a
    history before a validation item.
    """
    rows = scored(data)
    picks = np.unique(np.linspace(0, len(rows) - 1, min(users, len(rows))).astype(int))
    histories = [data.train[rows[pick]] for pick in picks]
    if not histories:
        return None
    answers = [_answer(recommender, histories, thinking) for thinking in range(recommender.n_levels + 1)]
    best = np.array([scores for scores, _ in answers])  # [T, n]
    edges = np.quantile(best, np.linspace(0, 1, BINS + 1)[1:-1], axis=1).T.round(4)
    bins = [np.searchsorted(edge, scores, "right") for edge, scores in zip(edges, best, strict=True)]
    counts = np.array([np.bincount(row, minlength=BINS) for row in bins])
    codes = np.array([codes for _, codes in answers])  # [T, n, C]
    spread, n = 0.0, len(histories)
    if n > 1:  # PSI between two halves of the answers, the mean over thinking
        halves = shares(codes[:, ::2].sum(axis=1)), shares(codes[:, 1::2].sum(axis=1))
        indices = [psi(even, odd) for even, odd in zip(*halves, strict=True)]
        spread = float(np.mean(indices)) / (1 / len(range(0, n, 2)) + 1 / len(range(1, n, 2)))
    return AnswerProfile(
        requests=len(histories),
        edges=edges,
        scores=counts,
        codes=codes.sum(axis=1),
        code_spread=round(spread, 4),
    )


@torch.inference_mode()
def _answer(
    recommender: Recommender, histories: list[np.ndarray], thinking: int
) -> tuple[list[float], np.ndarray]:
    """The best item's score of every answer, and how many of its `TOP` items carry each code [n, C]."""
    first_codes = recommender.catalogue.sid_table[:, 0]
    best, codes = [], np.zeros((len(histories), recommender.bundle.codebook.codebook_size), dtype=np.int64)
    for start in range(0, len(histories), BATCH):
        batch = histories[start : start + BATCH]
        scores = recommender.scores(batch, thinking)
        for i, (row, history) in enumerate(zip(scores, batch, strict=True), start=start):
            row[[*recommender.catalogue.barred, *history.tolist()]] = -torch.inf
            if recommender.near_duplicates:
                recommender.near_duplicates.bar(row[None], [history])
            top = row.topk(min(TOP, len(row)))
            items = top.indices[top.values > -torch.inf].numpy()
            best.append(float(top.values[0]) if len(items) else 0.0)
            np.add.at(codes[i], first_codes[items], 1)
    return best, codes
