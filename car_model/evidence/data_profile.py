"""The few numbers that tell whether a later dataset resembles this one."""

from __future__ import annotations

from typing import ClassVar

from pydantic import AwareDatetime, Field, field_validator

from car_model.evidence.base import Evidence, EvidenceFile, Share

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


class ActionProfile(Evidence):
    """The distribution of `action` over the interactions that have one."""

    missing_share: Share
    """Share of interactions without an action."""
    mean: float
    """In the action's own unit, such as stars."""
    std: float = Field(ge=0)
    """Standard deviation."""
    quantiles: tuple[float, ...] = Field(min_length=len(QUANTILES), max_length=len(QUANTILES))
    """At 0, 0.1, 0.25, 0.5, 0.75, 0.9 and 1."""


class DataProfile(EvidenceFile):
    """Counts and distributions of the tables that the model is trained on; written by validate."""

    step: ClassVar[str] = "validate"

    interactions: int = Field(ge=1)
    """Rows after de-duplication and k-core."""
    users: int = Field(ge=1)
    """Users with at least one interaction."""
    items: int = Field(ge=1)
    """Items in the catalogue."""
    interactions_per_user: tuple[float, ...] = Field(min_length=len(QUANTILES), max_length=len(QUANTILES))
    """At the quantiles 0, 0.1, 0.25, 0.5, 0.75, 0.9 and 1."""
    action: ActionProfile | None
    """Null if no interaction has an action."""
    first: AwareDatetime | None
    """Oldest interaction; null if the source orders by position alone."""
    last: AwareDatetime | None
    """Newest interaction."""
    activity: tuple[Share, ...] = Field(min_length=1)
    """Share of the users with 1 interaction, 2, 3-4, 5-8, 9-16, ..."""
    popular: dict[str, Share] = Field(min_length=1)
    """The most popular items and their shares of the interactions."""

    @field_validator("activity")
    @classmethod
    def _has_users(cls, activity: tuple[float, ...]) -> tuple[float, ...]:
        if not sum(activity):
            raise ValueError("it says that there are no users")
        return activity

    @property
    def median_interactions(self) -> float:
        """The median number of interactions per user."""
        return self.interactions_per_user[QUANTILES.index(0.5)]
