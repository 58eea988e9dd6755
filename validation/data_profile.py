"""A dataset's profile: the few numbers that tell whether today's data resembles production's."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


class ActionProfile(BaseModel):
    """The distribution of `action` over the interactions that carry one."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    missing_share: float
    mean: float
    std: float
    quantiles: tuple[float, ...]  # at QUANTILES


class DataProfile(BaseModel):
    """Counts and distributions of the kept tables (what the model is trained on)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format: int = Field(default=1, ge=1, le=1)
    interactions: int = Field(ge=1)
    users: int = Field(ge=1)
    items: int = Field(ge=1)
    interactions_per_user: tuple[float, ...] = Field(min_length=len(QUANTILES), max_length=len(QUANTILES))
    action: ActionProfile | None
    first: AwareDatetime | None  # None where the source orders by position alone
    last: AwareDatetime | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, as written to profile.json."""
        return self.model_dump(mode="json")

    @property
    def median_interactions(self) -> float:
        """The median number of interactions per user."""
        return self.interactions_per_user[QUANTILES.index(0.5)]


def profile_tables(interactions: pd.DataFrame, items: pd.DataFrame) -> DataProfile:
    """Profile the kept tables; both must have rows."""
    per_user = interactions["user_id"].value_counts().to_numpy()
    first, last = _time_range(interactions)
    return DataProfile(
        interactions=len(interactions),
        users=len(per_user),
        items=int(items["item_id"].nunique()),
        interactions_per_user=tuple(float(value) for value in np.quantile(per_user, QUANTILES)),
        action=_profile_actions(interactions),
        first=first,
        last=last,
    )


def _profile_actions(interactions: pd.DataFrame) -> ActionProfile | None:
    if "action" not in interactions or not (actions := interactions["action"].dropna()).size:
        return None
    values = actions.to_numpy(dtype=np.float64)
    return ActionProfile(
        missing_share=round(1 - len(values) / len(interactions), 6),
        mean=round(float(values.mean()), 6),
        std=round(float(values.std()), 6),
        quantiles=tuple(float(value) for value in np.quantile(values, QUANTILES)),
    )


def _time_range(interactions: pd.DataFrame) -> tuple[datetime | None, datetime | None]:
    if "timestamp" not in interactions or not (times := interactions["timestamp"].dropna()).size:
        return None, None
    return times.min().to_pydatetime(), times.max().to_pydatetime()
