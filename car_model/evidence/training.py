"""How training went: losses and validation metrics per epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from car_model.evidence.base import Evidence, EvidenceFile, Share, alias


class TrainingCurves(EvidenceFile):
    """Lists of equal length, one entry per epoch; empty if nothing was trained.

    Written by train and train-baseline; part `training` of the evaluation.
    """

    step: ClassVar[str] = "train"

    epoch: tuple[int, ...] = ()
    """Number of the epoch, from 1."""
    train_loss: tuple[float, ...] = ()
    """Whole training loss, in nats."""
    act_loss: tuple[float, ...] = ()
    """Its part on the next item, in nats."""
    think_loss: tuple[float, ...] = ()
    """Mean loss on the next item's semantic ID, in nats per level; 0 for models without one."""
    valid_ndcg: Annotated[tuple[float, ...], alias("valid_ndcg@10")] = ()
    """NDCG@10 on validation items."""


class ActionMetrics(Evidence):
    """How good predicted probabilities of a like are."""

    log_loss: float | None = Field(ge=0)
    """In nats per action; null without actions."""
    normalised_entropy: float | None = Field(ge=0)
    """Log loss over that of always predicting the share of likes; null if all actions are of one class."""
    auc: Share | None
    """Area under the ROC curve, 0 to 1; null if all actions are of one class."""
    ece: Share | None
    """Expected calibration error, 0 to 1; null without actions."""


class RankerCurves(Evidence):
    """Lists of equal length, one entry per epoch; empty if nothing was trained."""

    epoch: tuple[int, ...] = ()
    """Number of the epoch, from 1."""
    train_loss: tuple[float, ...] = ()
    """Training loss per epoch, in nats."""
    valid_log_loss: tuple[float, ...] = ()
    """Log loss on validation actions per epoch, in nats."""


class RankerSummary(RankerCurves, EvidenceFile):
    """What training the action ranker has to report; written by train-ranker."""

    step: ClassVar[str] = "train-ranker"

    trained: bool
    """Whether the bundle has a newly trained ranker."""
    why: str = ""
    """Why not, as a sentence; "" if it has."""
    liked: float | None = None
    """The smallest action that counts as liked; null if nothing was trained."""
    architecture: str | None = None
    """Of the ranker; null if nothing was trained."""
    valid: ActionMetrics | None = None
    """On validation actions; null if nothing was trained."""
    weight: float | None = None
    """Weight of log P(liked) in the ranking; null if the bundle has no newly trained ranker."""


class RecipeRecord(EvidenceFile):
    """The recipe of a run: all its settings, and where they came from; written by resolve-recipe.

    The next run on the channel that uses the release starts from it.
    """

    step: ClassVar[str] = "resolve-recipe"

    settings: dict[str, Any]
    """Every setting, as `--recipe FILE` takes them."""
    base: Literal["default", "champion", "file"]
    """What the run started from."""
    release: str | None = None
    """Digest of the release whose recipe the run started from; null unless `base` is `champion`."""
    changes: dict[str, Any] = Field({})
    """Single settings that the run changed, by dotted name."""

    @property
    def origin(self) -> str:
        """Where the settings came from, in words."""
        base = {
            "default": "the default recipe",
            "champion": f"the recipe of release {(self.release or '')[:12]}",
            "file": "the recipe of a file",
        }[self.base]
        changes = ", ".join(f"{name}={value}" for name, value in self.changes.items())
        return f"{base} with {changes}" if changes else base

    def rows(self) -> Iterator[tuple[str, str]]:
        """Every setting by its dotted name, with its value as text."""
        for name, value in self.settings.items():
            if isinstance(value, dict) and value:
                yield from ((f"{name}.{part}", _as_text(of_part)) for part, of_part in value.items())
            else:
                yield name, "off" if name == "ranker" else _as_text(value)


def _as_text(value: Any) -> str:
    return (
        "none" if value in (None, {}, "") else str(value).lower() if isinstance(value, bool) else str(value)
    )
