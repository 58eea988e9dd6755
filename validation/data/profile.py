"""Profile the kept tables, so that a later dataset can be compared with this one."""

from __future__ import annotations

import numpy as np
import pandas as pd

from car_model.evidence.data_profile import QUANTILES, ActionProfile, DataProfile

POPULAR = 100  # items


def profile_tables(interactions: pd.DataFrame, items: pd.DataFrame) -> DataProfile:
    """Profile the kept tables; both must have rows."""
    per_user = interactions["user_id"].value_counts().to_numpy()
    action, first, last = None, None, None
    if "action" in interactions and (actions := interactions["action"].dropna()).size:
        values = actions.to_numpy(dtype=np.float64)
        action = ActionProfile(
            missing_share=round(1 - len(values) / len(interactions), 6),
            mean=round(float(values.mean()), 6),
            std=round(float(values.std()), 6),
            quantiles=tuple(float(value) for value in np.quantile(values, QUANTILES)),
        )
    if "timestamp" in interactions and (times := interactions["timestamp"].dropna()).size:
        first, last = times.min().to_pydatetime(), times.max().to_pydatetime()
    bins = np.bincount(np.ceil(np.log2(per_user)).astype(int))  # users with 1 interaction, 2, 3-4, 5-8, ...
    return DataProfile(
        interactions=len(interactions),
        users=len(per_user),
        items=int(items["item_id"].nunique()),
        interactions_per_user=tuple(float(value) for value in np.quantile(per_user, QUANTILES)),
        action=action,
        first=first,
        last=last,
        activity=tuple(float(f"{share:.6g}") for share in bins / len(per_user)),
        popular=dict(list(item_shares(interactions).items())[:POPULAR]),
    )


def item_shares(interactions: pd.DataFrame) -> dict[str, float]:
    """Each item's share of the interactions, most popular first; equal ones by id."""
    counts = interactions["item_id"].value_counts().sort_index().sort_values(ascending=False, kind="stable")
    return {str(item): float(f"{count / len(interactions):.6g}") for item, count in counts.items()}
