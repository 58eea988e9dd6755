"""What a dataset must fulfil; every threshold in one typed place."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from car_model.evidence.base import Share

POLICY = "the data policy (data_policy in dataset.json, or --data-policy FILE)"  # how messages name it
Time = Annotated[datetime, AfterValidator(lambda time: time if time.tzinfo else time.replace(tzinfo=UTC))]


class DriftPolicy(BaseModel):
    """How far a dataset may move from the one that production was trained on.

    The defaults are generous: they stop accidents, such as lost or doubled data.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    severity: Literal["block", "warn"] = "block"
    """What too much drift does: `block` stops the run, `warn` only reports."""
    min_ratio: float = Field(default=0.5, gt=0, le=1)
    """Smallest number of interactions, users and items, relative to production's."""
    max_ratio: float = Field(default=10.0, ge=1)
    """Largest number of interactions, users and items, relative to production's."""
    max_median_ratio: float = Field(default=3.0, ge=1)
    """How many times the median number of interactions per user may grow or shrink."""
    max_action_shift: float = Field(default=1.0, gt=0)
    """How far the mean action may move, in standard deviations of production's actions."""
    max_days_back: float = Field(default=30.0, ge=0)
    """How many days the newest interaction may be older than production's."""
    min_popular_ratio: Share = 0.25
    """What production's most popular items must keep of their share of the interactions."""
    max_retired_share: Share = 0.3
    """Largest share of the items that production offers which the catalogue no longer holds."""
    max_distance: Share = 0.5
    """Largest Jensen-Shannon distance of the spreads over users and items; 0.2 is a significant shift."""


class DataPolicy(BaseModel):
    """Thresholds of the validate step; the defaults suit a small test set and a large one alike."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    min_interactions: int = Field(default=10, ge=1)
    """Fewest interactions after de-duplication and k-core."""
    min_users: int = Field(default=2, ge=1)
    """Fewest users after de-duplication and k-core."""
    min_items: int = Field(default=5, ge=1)
    """Fewest items after de-duplication and k-core."""
    action_min: float | None = None
    """Smallest action, such as 1 for stars; null: any finite number."""
    action_max: float | None = None
    """Largest action, such as 5 for stars; null: any finite number."""
    earliest: Time = datetime(1970, 1, 1, tzinfo=UTC)
    """Earliest timestamp; UTC if it names no zone."""
    latest: Time | None = None
    """Latest timestamp; null: the moment of validation."""
    max_missing_title_share: Share = 0.2
    """Largest share of the source's items without a title."""
    max_same_title_share: Share = 0.05
    """Largest share of the source's items with the title of another one, but for case and punctuation: listed
    twice, perhaps. More is a warning."""
    max_repeated_title_share: Share = 0.01
    """Largest share of the source's items whose title more than five items have, such as the name of a
    category. More is a warning."""
    max_markup_share: Share = 0.01
    """Largest share of the source's items with HTML in the title. More is a warning."""
    max_duplicate_share: Share = 0.5
    """Largest share of source interactions that repeat a user, item and time; ingest drops them."""
    max_orphan_share: Share = 0.0
    """Largest share of source interactions whose item is not in the catalogue."""
    drift: DriftPolicy = DriftPolicy()
    """How far the data may move from production's."""

    @model_validator(mode="after")
    def _ordered(self) -> DataPolicy:
        low, high = self.action_min, self.action_max
        if low is not None and high is not None and low > high:
            raise ValueError(f"action_min ({low:g}) is above action_max ({high:g})")
        if self.latest is not None and self.earliest > self.latest:
            raise ValueError(f"earliest ({self.earliest}) is after latest ({self.latest})")
        return self
