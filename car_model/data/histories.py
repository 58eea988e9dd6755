"""Users' histories as integer sequences, and the windows and batches that training cuts from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from common.errors import UserError

PAD = 0
Repeats = Literal["first", "last", "all"]  # which events of a user with the same item are kept


class HistoryError(UserError):
    """Interactions and catalogue do not fit together; the message names the item."""


@dataclass(frozen=True)
class UserRows:
    """Interactions sorted by user and position, so that a user's rows follow each other."""

    users: list[str]  # ids, ascending
    rows: pd.DataFrame  # the sorted table
    user: np.ndarray  # int64 [n] each row's index into `users`, ascending
    uids: np.ndarray  # int64 [n] each row's item

    def split(self, values: np.ndarray) -> list[np.ndarray]:
        """Values [n, ...] of the rows as one array per user."""
        return np.split(values, np.flatnonzero(np.diff(self.user)) + 1)


def group_by_user(interactions: pd.DataFrame, uids: dict[str, int]) -> UserRows:
    """Group an ingested table by user, in order of position. Raises HistoryError on an unknown item."""
    rows = interactions.sort_values(["user_id", "position"], kind="stable")
    uid = rows["item_id"].map(uids)
    if uid.isna().any():
        raise HistoryError(
            f"item {rows['item_id'][uid.isna()].iloc[0]!r} has interactions but is not in the catalogue."
        )
    user, users = pd.factorize(rows["user_id"])
    return UserRows([str(name) for name in users], rows, user, uid.to_numpy(dtype=np.int64).copy())


@dataclass(frozen=True)
class Histories:
    """One chronological UID sequence per user: the train part, and the holdouts apart."""

    users: list[str]  # in the order of everything else
    train: list[np.ndarray]  # UIDs of the train split
    valid: np.ndarray  # int64 [users] the held-out UID of each user, 0 if there is none
    test: np.ndarray  # the same

    @classmethod
    def from_interactions(cls, interactions: pd.DataFrame, uids: dict[str, int]) -> Histories:
        """Group an ingested table, which has a column `split`. Raises HistoryError."""
        grouped = group_by_user(interactions, uids)
        split, size = grouped.rows["split"].to_numpy(), len(grouped.users)
        train = split == "train"
        ends = np.bincount(grouped.user[train], minlength=size).cumsum()[:-1]
        holdouts = {}
        for part in ("valid", "test"):
            holdouts[part] = np.full(size, PAD, dtype=np.int64)
            holdouts[part][grouped.user[split == part]] = grouped.uids[split == part]
        return cls(grouped.users, np.split(grouped.uids[train], ends), holdouts["valid"], holdouts["test"])

    def before(self, split: str) -> list[np.ndarray]:
        """All that precedes the holdout `split`; for `test` that includes the validation item."""
        if split == "valid":
            return self.train
        pairs = zip(self.train, self.valid, strict=True)
        return [np.append(uids, item) if item else uids for uids, item in pairs]

    def holdout(self, split: str) -> np.ndarray:
        """The held-out UIDs of `split`, int64 [users]."""
        return self.valid if split == "valid" else self.test

    def counts(self, n_items: int) -> np.ndarray:
        """How often each UID occurs in the train split, int64 [n_items + 1]."""
        uids = np.concatenate(self.train) if self.train else np.zeros(0, dtype=np.int64)
        return np.bincount(uids, minlength=n_items + 1)


def kept_positions(uids: np.ndarray, repeats: Repeats) -> np.ndarray:
    """Positions of a history [P] that stay if of each item's events only the first or the last is kept."""
    if repeats == "all":
        return np.arange(len(uids))
    if repeats == "first":
        return np.sort(np.unique(uids, return_index=True)[1])
    return len(uids) - 1 - np.sort(np.unique(uids[::-1], return_index=True)[1])[::-1]


def pad(sequences: Sequence[np.ndarray], length: int) -> Tensor:
    """The last `length` UIDs of each sequence, right-padded with 0: int64 [B, longest <= length]."""
    recent = [sequence[-length:] for sequence in sequences]
    longest = max((len(sequence) for sequence in recent), default=0)
    table = np.full((len(recent), longest), PAD, dtype=np.int64)
    for row, sequence in zip(table, recent, strict=True):
        row[: len(sequence)] = sequence
    return torch.from_numpy(table)


def cut_at_random_phase(length: int, max_length: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Cut 0..length into adjacent windows (start, stop) of at most max_length, the first of random length.

    The random phase gives the items of a long history different contexts every epoch.
    """
    if not length:
        return []
    first = length if length <= max_length else int(rng.integers(1, max_length + 1))
    return list(pairwise([0, *range(first, length, max_length), length]))


def shuffled_batches(
    lengths: Sequence[int], batch_size: int, rng: np.random.Generator, by_length: bool = True
) -> Iterator[np.ndarray]:
    """Indices of windows [<= batch_size], batch by batch, every window once, in random order.

    With `by_length`, windows of similar length share a batch, which saves padding.
    """
    order = rng.permutation(len(lengths))
    if by_length:
        order = order[np.argsort([lengths[i] for i in order], kind="stable")]
    groups = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    for group in rng.permutation(len(groups)):
        yield groups[group]


def windows(train: Sequence[np.ndarray], max_history: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Cut every sequence into windows of at most max_history + 1 UIDs, so that each item is a target once.

    Adjacent windows share one item: the last target of the first is the first input of the second.
    """
    return [
        uids[start : stop + 1]
        for uids in train
        for start, stop in cut_at_random_phase(max(0, len(uids) - 1), max_history, rng)
    ]


def batches(
    train: Sequence[np.ndarray],
    max_history: int,
    batch_size: int,
    rng: np.random.Generator,
    by_length: bool = True,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of (inputs, targets), both int64 [B, T], right-padded; `by_length` as in `shuffled_batches`.

    Batches of short windows hold few targets: weight a loss that is a mean over a batch by their number.
    """
    cut = windows(train, max_history, rng)
    for batch in shuffled_batches([len(window) for window in cut], batch_size, rng, by_length):
        rows = pad([cut[i] for i in batch], max_history + 1)
        yield rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
