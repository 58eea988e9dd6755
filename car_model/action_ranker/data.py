"""Histories with actions: what a ranker is trained on and asked about.

Shape letters: B batch, T items, M tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from car_model.action_ranker.model import UNKNOWN, Task
from car_model.data.histories import pad

Part = Literal["train", "valid", "test"]
PARTS: tuple[Part, ...] = ("train", "valid", "test")


class Batch(NamedTuple):
    """Windows of histories, right-padded.

    Attributes:
        uids: [B, T] int64, 0 is padding.
        actions: [B, T, M] classes 1..C, 0 where unknown.
        wanted: [B, T] True where the action is to be learned or predicted.
        row: [B] which history a window is of; start: [B] where in it the window begins.
    """

    uids: Tensor
    actions: Tensor
    wanted: Tensor
    row: np.ndarray
    start: np.ndarray


@dataclass(frozen=True)
class ActionHistories:
    """One chronological sequence of items and actions a user.

    Attributes:
        users: user ids, in the order of everything else.
        uids: [n] of each user.
        actions: [n, M] classes of the tasks, 0 where unknown.
        parts: [n] which part an interaction is in, an index into PARTS; they ascend along a history.
    """

    users: list[str]
    uids: list[np.ndarray]
    actions: list[np.ndarray]
    parts: list[np.ndarray]

    def wanted(self, part: Part) -> list[np.ndarray]:
        """Which interactions of each user are in a part and have a known action: [n] bool each."""
        at = PARTS.index(part)
        return [
            (parts == at) & (actions != UNKNOWN).any(axis=1)
            for parts, actions in zip(self.parts, self.actions, strict=True)
        ]

    def classes(self, part: Part, task: int = 0) -> np.ndarray:
        """Classes of a task over a part, user by user, oldest first; 0 where unknown."""
        found = [actions[keep, task] for actions, keep in zip(self.actions, self.wanted(part), strict=True)]
        return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)

    def by_share(self, valid: float = 0.1, test: float = 0.2) -> ActionHistories:
        """The same histories, with the latest shares of every user held out, at least one interaction each.

        Leave-one-out has one test action a user, too few to tell models apart by a per cent of loss.
        """
        cut = []
        for uids in self.uids:
            parts = np.zeros(len(uids), dtype=np.int8)
            last = max(1, round(test * len(uids)))
            parts[-last:] = 2
            parts[-last - max(1, round(valid * len(uids))) : -last] = 1
            cut.append(parts)
        return replace(self, parts=cut)


def classes_of(values: np.ndarray, task: Task) -> np.ndarray:
    """The classes 1..C of action values [n]; 0 where the value is not a number."""
    found = np.searchsorted(np.array(task.bounds), values, side="right") + 1
    return np.where(np.isnan(values), UNKNOWN, found).astype(np.int64)


def action_histories(
    interactions: pd.DataFrame, uids: dict[str, int], tasks: Sequence[Task]
) -> ActionHistories:
    """Group an ingested table into sequences with actions.

    Raises:
        ValueError: the table has no `action`.
        KeyError: an interaction's item is not in the catalogue.
    """
    if "action" not in interactions or interactions["action"].isna().all():
        raise ValueError("the interactions have no 'action'; map one when ingesting, or train no ranker.")
    frame = interactions.sort_values(["user_id", "position"], kind="stable")
    uid = frame["item_id"].map(uids)
    if uid.isna().any():
        raise KeyError(
            f"item {frame['item_id'][uid.isna()].iloc[0]!r} has interactions but is not in the catalogue."
        )
    values = frame["action"].to_numpy(dtype=np.float64)
    actions = np.stack([classes_of(values, task) for task in tasks], axis=1)
    parts = frame["split"].map({part: at for at, part in enumerate(PARTS)}).to_numpy(dtype=np.int8)
    codes, users = pd.factorize(frame["user_id"])
    ends = np.flatnonzero(np.diff(codes)) + 1
    cut = [np.split(column, ends) for column in (uid.to_numpy(dtype=np.int64).copy(), actions, parts)]
    return ActionHistories([str(user) for user in users], *cut)


def training_batches(
    data: ActionHistories, history: int, size: int, rng: np.random.Generator
) -> Iterator[Batch]:
    """One epoch over the train part, every action a target once; windows of like length share a batch.

    A random phase each call gives items of long histories a different context every epoch.
    """
    wanted = data.wanted("train")
    lengths = [int(keep.nonzero()[0].max(initial=-1)) + 1 for keep in wanted]
    windows = [
        window for row, length in enumerate(lengths) for window in _disjoint(row, length, history, rng)
    ]
    order = rng.permutation(len(windows))
    order = order[np.argsort([windows[at][2] - windows[at][1] for at in order], kind="stable")]
    groups = [order[at : at + size] for at in range(0, len(order), size)]
    for group in rng.permutation(len(groups)):
        yield _batch(data, [(*windows[at], windows[at][1]) for at in groups[group]], wanted)


def _disjoint(row: int, length: int, history: int, rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Windows (row, start, stop) that cut `length` items into at most `history` each, at a random phase."""
    if not length:
        return []
    first = length if length <= history else int(rng.integers(1, history + 1))
    edges = [0, *range(first, length, history), length]
    return [(row, start, stop) for start, stop in pairwise(edges)]


def scoring_batches(data: ActionHistories, part: Part, history: int, size: int) -> Iterator[Batch]:
    """Windows in which every known action of a part is wanted once, with all that came before it in reach.

    An item is asked about after at least half of `history` items, or all there are.
    """
    wanted, windows = data.wanted(part), list[tuple[int, int, int, int]]()
    for row, keep in enumerate(wanted):
        if keep.any():
            first, last = keep.nonzero()[0][[0, -1]]
            windows += [(row, *window) for window in _overlapping(int(first), int(last) + 1, history)]
    windows.sort(key=lambda window: window[2] - window[1])
    for at in range(0, len(windows), size):
        yield _batch(data, windows[at : at + size], wanted)


def _overlapping(first: int, stop: int, history: int) -> list[tuple[int, int, int]]:
    """Windows (start, stop, fresh) from the back; what is asked about lies from `fresh` on."""
    found = []
    while stop > first:
        start = max(0, stop - history)
        fresh = max(first, 0 if start == 0 else start + history // 2)
        found.append((start, stop, fresh))
        stop = fresh
    return found


def _batch(
    data: ActionHistories, windows: Sequence[tuple[int, int, int, int]], wanted: list[np.ndarray]
) -> Batch:
    """Padded windows (row, start, stop, fresh)."""
    longest = max(stop - start for _, start, stop, _ in windows)
    tasks = data.actions[windows[0][0]].shape[1]
    uids = pad([data.uids[row][start:stop] for row, start, stop, _ in windows], longest)
    actions = torch.zeros(len(windows), longest, tasks, dtype=torch.int64)
    asked = torch.zeros(len(windows), longest, dtype=torch.bool)
    for at, (row, start, stop, fresh) in enumerate(windows):
        actions[at, : stop - start] = torch.from_numpy(data.actions[row][start:stop])
        asked[at, fresh - start : stop - start] = torch.from_numpy(wanted[row][fresh:stop])
    rows, starts = (np.array([window[column] for window in windows]) for column in (0, 1))
    return Batch(uids, actions, asked, rows, starts)
