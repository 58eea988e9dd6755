"""How far a dataset moved from the one that production was trained on."""

from __future__ import annotations

from typing import ClassVar

from pydantic import AwareDatetime, Field

from car_model.evidence.base import Count, Digest, Evidence, EvidenceFile, Share


class CountChange(Evidence):
    """A count now and in production."""

    now: float = Field(ge=0)
    """In this dataset."""
    before: float = Field(ge=0)
    """In production's dataset."""
    ratio: float = Field(ge=0)
    """`now` over `before`."""


class ActionShift(Evidence):
    """The mean action, such as a rating."""

    now: float | None
    """Null if no interaction has an action."""
    before: float | None
    """Null if none of production's had one."""
    std: float | None = Field(ge=0)
    """Standard deviation of production's actions."""
    shift: float | None = Field(ge=0)
    """Distance of the means in standard deviations; null without actions in one of the two."""


class NewestInteraction(Evidence):
    """When the last interaction happened."""

    now: AwareDatetime | None
    """Null without timestamps."""
    before: AwareDatetime | None
    """Null if production's interactions had no timestamps."""
    days_back: float | None
    """Days by which `now` is older; null without timestamps in one of the two."""


class ActivityChange(Evidence):
    """Users by their number of interactions: shares of users with 1, 2, 3-4, 5-8, 9-16, ... of them."""

    now: tuple[Share, ...]
    """In this dataset."""
    before: tuple[Share, ...]
    """In production's dataset."""
    distance: Share
    """Jensen-Shannon distance of the two: 0 if equal, 1 if they have nothing in common."""


class RisenItems(Evidence):
    """Items that became as popular as production's most popular ones since then."""

    items: Count
    """How many there are."""
    now: Share
    """Their share of the interactions."""
    before_at_most: Share
    """The most that their share can have been in production."""


class PopularityChange(Evidence):
    """Production's most popular items, the risen ones, and all others."""

    items: int = Field(ge=1)
    """How many of production's items count as most popular."""
    now: Share
    """Their share of the interactions."""
    before: Share
    """Their share of production's interactions."""
    ratio: float | None = Field(ge=0)
    """`now` over `before`; null if `before` is 0."""
    risen: RisenItems
    """Newly popular items."""
    distance: Share
    """Jensen-Shannon distance of the two distributions: 0 if equal, 1 if they have nothing in common."""


class RetiredItems(Evidence):
    """Items that production recommends and that are no longer in the catalogue."""

    items: Count
    """How many there are."""
    before: Count
    """Items that production offers."""
    share: Share
    """`items` over `before`."""


class DataDrift(EvidenceFile):
    """Written by validate; part `drift` of the evaluation. Without a champion everything is null."""

    step: ClassVar[str] = "validate"

    release: Digest | None
    """The champion's digest; null without one."""
    interactions: CountChange | None = None
    """Number of interactions."""
    users: CountChange | None = None
    """Number of users."""
    items: CountChange | None = None
    """Number of items."""
    median_interactions: CountChange | None = None
    """Median number of interactions per user."""
    action: ActionShift | None = None
    """Mean action."""
    newest: NewestInteraction | None = None
    """Time of the newest interaction."""
    activity: ActivityChange | None = None
    """Spread of interactions over users."""
    popularity: PopularityChange | None = None
    """Spread of interactions over items."""
    retired: RetiredItems | None = None
    """Items that are no longer offered."""
