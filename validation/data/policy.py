"""What a dataset must keep to; every threshold in one typed place."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]


class DriftPolicy(BaseModel):
    """How far a dataset may move from the one production was trained on. Generous: it is for accidents."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    severity: Literal["block", "warn"] = "block"
    min_ratio: float = Field(default=0.5, gt=0, le=1)  # rows, users, items: now / production
    max_ratio: float = Field(default=10.0, ge=1)
    max_median_ratio: float = Field(default=3.0, ge=1)  # median interactions per user, either way
    max_action_shift: float = Field(
        default=1.0, gt=0
    )  # of the mean action, in production's standard deviations
    max_days_back: float = Field(default=30.0, ge=0)  # newest interaction older than production's
    min_popular_ratio: Share = 0.25  # share of production's most popular items: now / production
    max_distance: Share = 0.5  # Jensen-Shannon, of activity and of popularity; 0.2 is a marked change already


class DataPolicy(BaseModel):
    """Thresholds for validate; the defaults suit a small test set and a large one alike."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_interactions: int = Field(default=10, ge=1)  # after de-duplication and k-core
    min_users: int = Field(default=2, ge=1)
    min_items: int = Field(default=5, ge=1)
    action_min: float | None = None  # set both for ratings; None: any finite number
    action_max: float | None = None
    earliest: AwareDatetime = datetime(1970, 1, 1, tzinfo=UTC)
    latest: AwareDatetime | None = None  # None: the moment of validation
    max_missing_title_share: Share = 0.2
    max_duplicate_share: Share = 0.5  # repeats of (user, item, time) in the source, which ingest drops
    max_orphan_share: Share = 0.0  # source interactions whose item is not in the catalogue
    drift: DriftPolicy = DriftPolicy()

    @model_validator(mode="after")
    def _ordered(self) -> DataPolicy:
        low, high = self.action_min, self.action_max
        if low is not None and high is not None and low > high:
            raise ValueError(f"action_min ({low:g}) is above action_max ({high:g})")
        if self.latest is not None and self.earliest > self.latest:
            raise ValueError(f"earliest ({self.earliest}) is after latest ({self.latest})")
        return self
