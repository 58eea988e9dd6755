"""Histories with actions: what a ranker is trained on and measured by.

Shape letters: B batch, T items, n items of one history.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from car_model.action_ranker.model import DISLIKED, LIKED, UNKNOWN
from car_model.data.histories import cut_at_random_phase, group_by_user, pad, shuffled_batches

Part = Literal["train", "valid", "test"]
PARTS: tuple[Part, ...] = ("train", "valid", "test")


class Batch(NamedTuple):
    """Windows of histories, right-padded."""

    uids: Tensor  # [B, T] int64, 0 is padding
    actions: Tensor  # [B, T] classes, 0 if unknown
    target_mask: Tensor  # [B, T] True if the action is to be learned or predicted
    row: np.ndarray  # [B] index of the history a window is of
    start: np.ndarray  # [B] index in it at which the window begins


class Window(NamedTuple):
    """Items `start` to `stop` of history `row`; actions from `first_target` on are targets."""

    row: int
    start: int
    stop: int
    first_target: int


@dataclass(frozen=True)
class ActionHistories:
    """One chronological sequence of items and actions per user."""

    users: list[str]  # in the order of everything else
    uids: list[np.ndarray]  # [n] of each user
    actions: list[np.ndarray]  # [n] classes (`UNKNOWN`, `DISLIKED`, `LIKED`)
    parts: list[np.ndarray]  # [n] index into PARTS of each interaction; they ascend along a history

    def targets(self, part: Part) -> list[np.ndarray]:
        """Which interactions of each user are in a part and have a known action: [n] bool each."""
        index, histories = PARTS.index(part), zip(self.parts, self.actions, strict=True)
        return [(parts == index) & (actions != UNKNOWN) for parts, actions in histories]


def action_classes(values: np.ndarray, liked: float) -> np.ndarray:
    """The classes of action values [n]: liked from `liked` on; unknown if the value is not a number."""
    classes = np.where(values >= liked, LIKED, DISLIKED)
    return np.where(np.isnan(values), UNKNOWN, classes).astype(np.int64)


def action_histories(interactions: pd.DataFrame, uids: dict[str, int], liked: float) -> ActionHistories:
    """Group an ingested table into sequences with actions, of which those from `liked` on count as liked.

    Raises ValueError if the table has no `action`, and HistoryError as `group_by_user` does.
    """
    if "action" not in interactions or interactions["action"].isna().all():
        raise ValueError("the interactions have no 'action'; map one when ingesting, or train no ranker.")
    grouped = group_by_user(interactions, uids)
    actions = action_classes(grouped.rows["action"].to_numpy(dtype=np.float64), liked)
    parts = grouped.rows["split"].map({part: index for index, part in enumerate(PARTS)})
    columns = (grouped.uids, actions, parts.to_numpy(dtype=np.int8))
    return ActionHistories(grouped.users, *map(grouped.split, columns))


def training_batches(
    data: ActionHistories, max_history: int, size: int, rng: np.random.Generator, by_length: bool = True
) -> Iterator[Batch]:
    """One epoch over the train part, every known action a target once; `by_length` as for `shuffled_batches`.

    A random phase in each epoch gives items of long histories another context every time.
    """
    targets = data.targets("train")
    windows = [
        Window(row, start, stop, start)
        for row, length in enumerate(training_lengths(data))
        for start, stop in cut_at_random_phase(length, max_history, rng)
    ]
    lengths = [window.stop - window.start for window in windows]
    for group in shuffled_batches(lengths, size, rng, by_length):
        yield _batch(data, [windows[index] for index in group], targets)


def training_lengths(data: ActionHistories) -> list[int]:
    """How many items of each history training reads: up to its last training action."""
    return [int(mask.nonzero()[0].max(initial=-1)) + 1 for mask in data.targets("train")]


def scoring_batches(data: ActionHistories, part: Part, max_history: int, size: int) -> Iterator[Batch]:
    """Windows in which every known action of a part is a target once.

    Each target is predicted after at least half of `max_history` items, or after all there are: windows are
    cut from the back and overlap.
    """
    targets, windows = data.targets(part), list[Window]()
    for row, mask in enumerate(targets):
        if not mask.any():
            continue
        first, last = mask.nonzero()[0][[0, -1]].tolist()
        stop = last + 1
        while stop > first:
            start = max(0, stop - max_history)
            first_target = max(first, start + max_history // 2 if start else 0)
            windows.append(Window(row, start, stop, first_target))
            stop = first_target
    windows.sort(key=lambda window: window.stop - window.start)
    for begin in range(0, len(windows), size):
        yield _batch(data, windows[begin : begin + size], targets)


def _batch(data: ActionHistories, windows: Sequence[Window], targets: list[np.ndarray]) -> Batch:
    longest = max(window.stop - window.start for window in windows)
    uids, actions = (
        pad([rows[window.row][window.start : window.stop] for window in windows], longest)
        for rows in (data.uids, data.actions)
    )
    target_mask = torch.zeros(len(windows), longest, dtype=torch.bool)
    for index, (row, start, stop, first_target) in enumerate(windows):
        mask = targets[row][first_target:stop]
        target_mask[index, first_target - start : stop - start] = torch.from_numpy(mask)
    rows, starts = (np.array(column) for column in list(zip(*windows, strict=True))[:2])
    return Batch(uids, actions, target_mask, rows, starts)
