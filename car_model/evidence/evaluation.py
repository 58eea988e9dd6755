"""evaluation.json: what evaluate measured, what the gate judges and the report shows."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from car_model.evidence.base import Count, Digest, Evidence, EvidenceFile, Share, Text, alias
from car_model.evidence.codebook import CodebookHealth
from car_model.evidence.drift import DataDrift
from car_model.evidence.training import TrainingCurves

Metric = Literal["recall@5", "ndcg@5", "recall@10", "ndcg@10"]
"""Share of users whose test item is among the first 5 or 10, and its discounted rank there; 0 to 1."""


class Interval(Evidence):
    """A metric's mean over users with its 95 % interval, from 0 to 1; null if there are no users."""

    mean: Share | None
    """The mean."""
    low: Share | None
    """Lower end of the interval."""
    high: Share | None
    """Upper end of the interval."""


class EntropyInterval(Evidence):
    """A normalised entropy with its 95 % interval; null if only one class occurs."""

    mean: float | None = Field(ge=0)
    """Over all test actions."""
    low: float | None = Field(ge=0)
    """Lower end of the interval."""
    high: float | None = Field(ge=0)
    """Upper end of the interval."""


class Difference(Evidence):
    """The challenger's metric minus another model's, user by user; null if there are no users."""

    difference: float | None = Field(ge=-1, le=1)
    """Mean difference, in the metric's unit."""
    low: float | None = Field(ge=-1, le=1)
    """Lower end of its 95 % interval."""
    high: float | None = Field(ge=-1, le=1)
    """Upper end of the interval."""
    relative: float | None = Field(ge=-1)
    """`difference` over the other model's mean; null if that is 0."""
    relative_low: float | None = Field(ge=-1)
    """Lower end of the 95 % interval of `relative`."""
    relative_high: float | None = Field(ge=-1)
    """Upper end of it."""


MetricIntervals = dict[Metric, Interval]
Milliseconds = Annotated[float, Field(ge=0, le=3_600_000)]
MetricDifferences = dict[Metric, Difference]


class HoldoutSummary(Evidence):
    """What models are evaluated on: each user's last item, ranked among all items."""

    split: Literal["test"] = "test"
    """The part of the dataset."""
    users: Count
    """Users with a test item and a history before it."""
    items: Count
    """Items that the challenger ranks."""
    hits: Count
    """Users whose test item the challenger ranks among the first 10."""
    digest: Digest
    """Version of users, histories, test items and the items that are ranked."""


Part = Literal[
    "action",
    "cold",
    "codebook.churn.unasked",
    "codebook.churn.whole",
    "codebook.unexplained_cold",
    "codebook.unexplained_new",
    "drift.action.shift",
    "drift.newest.days_back",
    "models.nearest_text",
    "paired.nearest_text",
]
"""Parts that there may be nothing to measure for."""


class Slice(Evidence):
    """Part of the holdout, such as users with short histories."""

    users: Count
    """Users in the slice."""
    models: dict[str, dict[Metric, Share]]
    """Mean metrics of each model."""


class ChampionComparison(Evidence):
    """What challenger and champion are compared over: the items that both offer."""

    release: Digest | None
    """The champion's digest; null says that there is no champion."""
    items: Count | None = None
    """Items that both offer; all counts are null without a champion."""
    items_challenger: Count | None = None
    """Items that the challenger offers."""
    items_champion: Count | None = None
    """Items that the champion offers."""
    users: Count | None = None
    """Users of the holdout whose test item both offer."""
    users_share: Share | None = None
    """Their share of the holdout."""
    holdout: Digest | None = None
    """Version of these users and items; the holdout's own if nothing is left out."""
    models: dict[str, MetricIntervals] = Field(default={})
    """Metrics of `challenger` and `champion` for these users over these items."""
    same_weights: bool | None = None
    """Whether both have equal weights, in their models and in the score."""
    same_ranks: bool | None = None
    """Whether both rank every one of these test items alike."""

    @property
    def same(self) -> str:
        """What both have in common if no metric can differ: `the same weights`; "" if some can."""
        return "the same weights" if self.same_weights else "the same ranks" if self.same_ranks else ""


class Latency(Evidence):
    """Time of one answer in the evaluating process, one request at a time."""

    p50_ms: Milliseconds
    """Median, in milliseconds."""
    p99_ms: Milliseconds
    """99th percentile, in milliseconds."""


class ColdItems(Evidence):
    """How well items without a training interaction are found."""

    users: Count
    """Users whose test item is cold."""
    items: Count
    """Cold items."""
    ahead: Interval
    """Ranked among each other: the share of the cold items that come after the test item, 0.5 by chance; null
    with a single cold item."""
    recall_10: Annotated[Share, alias("recall@10")]
    """Share of the users whose item is among the first 10 cold items."""
    recall_50: Annotated[Share, alias("recall@50")]
    """Share of the users whose item is among the first 50 cold items."""
    random_10: Annotated[Share, alias("random@10")]
    """`recall@10` of a random order."""
    random_50: Annotated[Share, alias("random@50")]
    """`recall@50` of a random order."""
    models: dict[str, MetricIntervals] = Field(default={})
    """Metrics of each model for these users, among all items."""
    paired: dict[str, MetricDifferences] = Field(default={})
    """Challenger minus each other model for these users, among all items."""


class RankedBothWays(Evidence):
    """Metrics of the same users' test items, ranked by relevance and by action."""

    users: Count
    """How many users."""
    relevance: MetricIntervals
    """Ranked by relevance."""
    action: MetricIntervals
    """Ranked by action."""
    paired: MetricDifferences
    """By action minus by relevance, user by user."""


class LikedAndDisliked(Evidence):
    """Users by what they did with their test item; by action, liked items should rank higher."""

    liked: RankedBothWays
    """Users who liked their test item."""
    disliked: RankedBothWays
    """Users who did not."""


class ActionLatency(Evidence):
    """Median time of an answer without reasons; null without requests."""

    relevance_p50_ms: Milliseconds | None = None
    """Ranked by relevance, in milliseconds."""
    action_p50_ms: Milliseconds | None = None
    """Ranked by action, in milliseconds."""


class ActionRankerEvidence(Evidence):
    """How good ranking by action is, on test actions and test items."""

    architecture: str
    """Of the ranker."""
    liked: float
    """The smallest action that counts as liked."""
    weight: float
    """Weight of log P(liked) against relevance."""
    candidates: int = Field(ge=1)
    """How many of the most relevant items are ranked by action."""
    actions: Count
    """Test actions."""
    liked_share: Share | None
    """Share of them that are likes; null without actions."""
    log_loss: float | None = Field(ge=0)
    """In nats per action."""
    auc: Share | None
    """Area under the ROC curve, 0 to 1."""
    ece: Share | None
    """Expected calibration error, 0 to 1."""
    normalised_entropy: EntropyInterval
    """Log loss over that of always predicting the share of likes: below 1 is better than that."""
    normalised_entropy_without_actions: EntropyInterval
    """The same if a request does not say what the user did, only with which items."""
    ndcg: LikedAndDisliked
    """Rankings of test items."""
    latency: ActionLatency
    """What ranking by action costs."""


class RecommendedItem(Evidence):
    """An item of a sample answer."""

    item_id: str
    """As in the catalogue."""
    title: str
    """As in the catalogue."""
    score: float | None
    """What the items of the answer are ranked by; no probability. Null for a fallback."""
    reasons: tuple[str, ...]
    """Sentences."""


class Sample(Evidence):
    """A user of the holdout, and what the challenger recommends."""

    user: str
    """User id."""
    history: tuple[str, ...]
    """Titles of the latest items, oldest first."""
    items: tuple[RecommendedItem, ...]
    """Best first."""
    fallback: str | None
    """Why the answer is not from the model; null if it is."""


class GoldenRequests(EvidenceFile):
    """golden.json: requests and the challenger's answers, to replay on a server."""

    step: ClassVar[str] = "evaluate"

    requests: tuple[dict[str, Any], ...]
    """Every feature is used: thinking, k, exclude, unknown ids, no history, ranking by action."""
    answers: tuple[dict[str, Any], ...]
    """One for each request, answered one at a time."""


class Evaluation(EvidenceFile):
    """Challenger, champion and baselines on the same holdout, measured by the same code.

    Models are named `challenger`, `champion`, `sasrec`, `nearest_text` (text similarity without a model) and
    `popularity`. Full ranking over the catalogue, items of the history left out. Evaluate writes every part,
    or says in `not_measured` why there is nothing to measure; what is missing without a reason fails the
    gate's conditions on it.
    """

    step: ClassVar[str] = "evaluate"

    holdout: HoldoutSummary | None = None
    """What was evaluated on."""
    models: dict[str, MetricIntervals] = Field(default={})
    """Metrics of each model on the holdout. The champion's are in `champion`."""
    paired: dict[str, MetricDifferences] = Field(default={})
    """Challenger minus each other model; minus the champion on the users and items that both share."""
    similarity: dict[str, Annotated[float, Field(ge=0)]] = Field(default={})
    """Weight of text similarity in the scores of `challenger` and `sasrec`, chosen on validation alike."""
    slices: dict[str, Slice] = Field(default={})
    """Parts of the holdout by name."""
    champion: ChampionComparison | None = None
    """Which release is the champion, and what both are compared over."""
    latency: Latency | None = None
    """Of the challenger's answers."""
    samples: tuple[Sample, ...] = ()
    """For people to read."""
    cold: ColdItems | None = None
    """Items without training interactions."""
    action: ActionRankerEvidence | None = None
    """Ranking by action."""
    codebook: CodebookHealth | None = None
    """As tokenize wrote it."""
    drift: DataDrift | None = None
    """As validate wrote it."""
    training: dict[str, TrainingCurves] = Field(default={})
    """Curves of `challenger` and `sasrec`."""
    release: Digest | None = None
    """The release that the challenger's bundle makes."""
    not_measured: dict[Part, Text] = Field(default={})
    """Parts that there was nothing to measure for, and why, as sentences."""

    @property
    def offer(self) -> tuple[str, ...]:
        """What is offered without interactions or with a cut text, and what no longer is, as sentences."""
        sentences = []
        if self.codebook and (cold := self.codebook.cold_items):
            sentences.append(f"Without interactions, offered through their text: {cold:,} items.")
        if self.codebook and (cut := self.codebook.texts_cut):
            sentences.append(
                f"Longer than the encoder reads, so cut off: the texts of {cut:.1%} of the items "
                "(--set encoder.max_tokens=256 reads more of them, for a new codebook)."
            )
        if self.drift and (retired := self.drift.retired) and retired.items:
            sentences.append(
                f"No longer in the catalogue, so no longer offered: {retired.items:,} of the "
                f"{retired.before:,} items ({retired.share:.1%}) that production offers."
            )
        return tuple(sentences)
