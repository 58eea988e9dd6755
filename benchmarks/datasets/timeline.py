"""A dataset as it was at a moment, and what came after: for what only time can show (churn, cold items)."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from car_model.data.dataset import Dataset
from car_model.evaluation.evaluate import Holdout
from common.digests import json_digest
from common.limits import MAX_HISTORY

LEAST = 3  # interactions of a user to have a test item, a validation item and something before them


def moment_of(dataset: Dataset, share: float) -> pd.Timestamp:
    """The moment before which this share of the interactions lies.

    Raises:
        ValueError: some interaction has no timestamp.
    """
    times = dataset.interactions["timestamp"]
    if times.isna().any():
        raise ValueError(
            f"{dataset.report.name} does not say when every interaction was: it has no time split."
        )
    return times.sort_values(ignore_index=True).iloc[int(share * len(times))]


def as_of(dataset: Dataset, moment: pd.Timestamp) -> Dataset:
    """What the pipeline would have ingested at a moment: leave-one-out on the interactions before it.

    An item is in the catalogue from its first interaction on, since the data do not say when it was launched.
    """
    frame = dataset.interactions[dataset.interactions["timestamp"] < moment]
    frame = frame.sort_values(["user_id", "position"], kind="stable", ignore_index=True)
    left = frame.groupby("user_id").cumcount(ascending=False)
    many = frame.groupby("user_id")["item_id"].transform("size") >= LEAST
    split = pd.Series("train", index=frame.index)
    split[many & (left == 1)] = "valid"
    split[many & (left == 0)] = "test"
    items = dataset.items[dataset.items["item_id"].isin(frame["item_id"])].reset_index(drop=True)
    digest = json_digest([dataset.digest, str(moment)])
    report = dataset.report.model_copy(update={"dataset_digest": digest})
    return replace(dataset, interactions=frame.assign(split=split), items=items, report=report)


def cold_holdout(dataset: Dataset, known: Dataset, until: pd.Timestamp | None = None) -> Holdout:
    """Each user's first item that `known` had never seen, after what they did before it.

    Args:
        dataset: all interactions.
        known: the dataset a model was trained on, of an earlier moment.
        until: interactions from this moment on do not count.
    """
    frame = dataset.interactions.sort_values(["user_id", "position"], kind="stable", ignore_index=True)
    frame = frame if until is None else frame[frame["timestamp"] < until]
    cold = ~frame["item_id"].isin(set(known.items["item_id"]))
    first = frame[cold].groupby("user_id").head(1)
    target = first.set_index("user_id")
    before = frame[frame["user_id"].isin(target.index)]
    before = before[before["position"] < before["user_id"].map(target["position"])]
    before = before[before["item_id"].isin(set(known.items["item_id"]))]
    prompts = before.groupby("user_id")["item_id"].agg(list)
    users = prompts.index.tolist()
    counts = known.interactions["item_id"].value_counts()
    return Holdout(
        users,
        [prompt[-MAX_HISTORY:] for prompt in prompts],
        target.loc[users, "item_id"].tolist(),
        {str(item): int(count) for item, count in counts.items()},
    )
