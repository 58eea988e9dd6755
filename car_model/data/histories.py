"""Users' histories as integer sequences: what training windows and evaluation prompts are cut from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

MAX_HISTORY = 10_000


PAD = 0


@dataclass(frozen=True)
class Histories:
    """One chronological UID sequence a user, train part and holdouts apart.

    Attributes:
        users: user ids, in the order of everything else.
        train: UIDs of the train split.
        valid, test: the held-out UID of each user, 0 where there is none.
    """

    users: list[str]
    train: list[np.ndarray]
    valid: np.ndarray
    test: np.ndarray

    def before(self, split: str) -> list[np.ndarray]:
        """All that precedes the holdout `split`: for `test` that includes the validation item."""
        if split == "valid":
            return self.train
        return [
            np.append(seq, item) if item else seq for seq, item in zip(self.train, self.valid, strict=True)
        ]

    def holdout(self, split: str) -> np.ndarray:
        """The held-out UIDs of `split`, int64 [users]."""
        return self.valid if split == "valid" else self.test

    def counts(self, items: int) -> np.ndarray:
        """How often the train split holds each UID, int64 [items + 1]."""
        every = np.concatenate(self.train) if self.train else np.zeros(0, dtype=np.int64)
        return np.bincount(every, minlength=items + 1)


def pad(sequences: Sequence[np.ndarray], length: int) -> Tensor:
    """The last `length` UIDs of each sequence, right-padded with 0: int64 [B, longest <= length]."""
    recent = [seq[-length:] for seq in sequences]
    table = np.full((len(recent), max((len(seq) for seq in recent), default=0)), PAD, dtype=np.int64)
    for row, seq in zip(table, recent, strict=True):
        row[: len(seq)] = seq
    return torch.from_numpy(table)


def windows(train: Sequence[np.ndarray], history: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Cut every sequence into windows of at most history + 1 UIDs, so that each item is a target once.

    A random phase each call gives items a different context every epoch; neighbours share one item, which
    is the last target of one window and the first input of the next.
    """
    cut: list[np.ndarray] = []
    for seq in train:
        if len(seq) < 2:
            continue
        first = len(seq) - 1 if len(seq) <= history + 1 else int(rng.integers(1, history + 1))
        start, stop = 0, first
        while start < len(seq) - 1:
            cut.append(seq[start : stop + 1])
            start, stop = stop, min(stop + history, len(seq) - 1)
    return cut


def batches(
    train: Sequence[np.ndarray], history: int, size: int, rng: np.random.Generator, by_length: bool = True
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of (inputs, targets), both int64 [B, T], right-padded.

    Args:
        by_length: windows of like length share a batch, which saves padding; else any windows do. Batches
            of short windows hold few targets: a loss that is a mean over a batch must be weighted by them.
    """
    cut = windows(train, history, rng)
    order = rng.permutation(len(cut))
    if by_length:
        order = order[np.argsort([len(cut[at]) for at in order], kind="stable")]
    groups = [order[at : at + size] for at in range(0, len(order), size)]
    for group in rng.permutation(len(groups)):
        rows = pad([cut[at] for at in groups[group]], history + 1)
        yield rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
