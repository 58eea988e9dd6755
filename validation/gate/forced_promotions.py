"""Promotions by force in production's history: what a verdict tells beside its conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

Filled = Annotated[str, StringConstraints(min_length=1)]


class ForcedPromotion(BaseModel):
    """An entry of the channel's log that put a release in use against the rules, for a stated reason.

    Attributes:
        in_use: whether it brought the very release that the challenger is compared with.
        failing: conditions that the gate had failed that release on; empty where it only was not staged, or
            where that is not known any more.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int = Field(ge=1)
    release: Filled
    who: Filled
    when: AwareDatetime
    why: Filled
    in_use: bool
    failing: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """Who forced what, when and why."""
        what = "The champion" if self.in_use else "An earlier release"
        against = f" The gate had failed it on: {'; '.join(self.failing)}." if self.failing else ""
        return (
            f"{what}, {self.release[:12]}, was put in use by force (entry {self.number}) by {self.who} on "
            f"{self.when:%Y-%m-%d %H:%M} UTC, because: {self.why.rstrip('.')}.{against}"
        )


def read_forced(entries: Sequence[Mapping[str, Any]]) -> tuple[ForcedPromotion, ...]:
    """Promotions as `resolve_champion` hands them on. Raises pydantic.ValidationError."""
    return tuple(ForcedPromotion.model_validate(one) for one in entries)
