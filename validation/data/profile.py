"""A dataset's profile: the few numbers that tell whether today's data resembles production's."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
POPULAR = 100  # items
Share = Annotated[float, Field(ge=0, le=1)]


class ActionProfile(BaseModel):
    """The distribution of `action` over the interactions that carry one."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    missing_share: float
    mean: float
    std: float
    quantiles: tuple[float, ...]  # at QUANTILES


class DataProfile(BaseModel):
    """Counts and distributions of the kept tables (what the model is trained on).

    Attributes:
        activity: share of the users with 1 interaction, 2, 3-4, 5-8, 9-16, ...; None in format 1.
        popular: the most popular items and their shares of the interactions; None in format 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format: int = Field(default=2, ge=1, le=2)
    interactions: int = Field(ge=1)
    users: int = Field(ge=1)
    items: int = Field(ge=1)
    interactions_per_user: tuple[float, ...] = Field(min_length=len(QUANTILES), max_length=len(QUANTILES))
    action: ActionProfile | None
    first: AwareDatetime | None  # None where the source orders by position alone
    last: AwareDatetime | None
    activity: tuple[Share, ...] | None = Field(default=None, min_length=1)
    popular: dict[str, Share] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _distributions_by_format(self) -> DataProfile:
        if any((one is None) != (self.format == 1) for one in (self.activity, self.popular)):
            raise ValueError("activity and popular belong to format 2, and neither to format 1")
        if self.activity is not None and not sum(self.activity):
            raise ValueError("activity says that there are no users")
        return self

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, as written to data_profile.json."""
        return self.model_dump(mode="json")

    @property
    def median_interactions(self) -> float:
        """The median number of interactions per user."""
        return self.interactions_per_user[QUANTILES.index(0.5)]


def profile_tables(interactions: pd.DataFrame, items: pd.DataFrame) -> DataProfile:
    """Profile the kept tables; both must have rows."""
    per_user = interactions["user_id"].value_counts().to_numpy()
    shares = item_shares(interactions)
    first, last = _time_range(interactions)
    return DataProfile(
        interactions=len(interactions),
        users=len(per_user),
        items=int(items["item_id"].nunique()),
        interactions_per_user=tuple(float(value) for value in np.quantile(per_user, QUANTILES)),
        action=_profile_actions(interactions),
        first=first,
        last=last,
        activity=_activity(per_user),
        popular=dict(list(shares.items())[:POPULAR]),
    )


def item_shares(interactions: pd.DataFrame) -> dict[str, float]:
    """Each item's share of the interactions, most popular first; equal ones by id."""
    counts = interactions["item_id"].value_counts().sort_index().sort_values(ascending=False, kind="stable")
    return {str(item): float(f"{count / len(interactions):.6g}") for item, count in counts.items()}


def _activity(per_user: np.ndarray) -> tuple[float, ...]:
    """Share of users by the power of two that their number of interactions reaches."""
    places = np.ceil(np.log2(per_user)).astype(int)
    return tuple(float(f"{share:.6g}") for share in np.bincount(places) / len(per_user))


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
