"""How training went: losses and validation metrics per epoch."""

from __future__ import annotations

from typing import Annotated, ClassVar

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
