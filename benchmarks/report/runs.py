"""The stored runs of the accuracy and ranker benchmarks: one CSV table per data set."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.models.variants import TITLES
from benchmarks.report.rows import Row, append_row, read_rows

ACCURACY = Path("benchmarks/results/accuracy")
RANKING = Path("benchmarks/results/ranking")


class AccuracyRun(Row):
    """One training run and its test metrics (full ranking, the user's history masked)."""

    model: str
    """Name of the variant (`benchmarks.models.variants`)."""
    seed: int
    trial: dict[str, Any]
    """Settings that a trial changed; empty for a reported run. A trial has no test metrics."""
    settings: dict[str, Any]
    """The whole training recipe, without seed and threads."""
    sid_method: str
    """`rkmeans`, `rqvae` or `lsh`."""
    n_levels: int
    codebook_size: int
    recall_at_5: float | None = None
    ndcg_at_5: float | None = None
    recall_at_10: float | None = None
    ndcg_at_10: float | None = None
    valid_ndcg_at_10: list[float]
    """Validation NDCG@10 after each epoch."""
    think_scale: float
    """Weight of the SID levels in the score, chosen on validation."""
    similarity_scale: float
    """Weight of text similarity in the score, chosen on validation."""
    parameters: int
    seconds: int
    """Seconds of training, on a machine that also did other things."""
    machine: str
    dataset_digest: str
    sids_digest: str

    @property
    def best_valid(self) -> float:
        """Validation NDCG@10 of the epoch that was kept; 0 for a model that is not trained."""
        return max(self.valid_ndcg_at_10, default=0.0)

    def metric(self, name: str) -> float:
        """A test metric by its name in `per_user`, such as `ndcg@10`."""
        return float(getattr(self, name.replace("@", "_at_")))


class RankString(Row):
    """The ranks of a run's test items, one character per user (`benchmarks.report.statistics`)."""

    model: str
    seed: int
    ranks: str


class RankerRun(Row):
    """One training run of an action ranker; test metrics are missing for trials."""

    architecture: str
    seed: int
    trial: bool
    settings: dict[str, float]
    """Dropout and learning rate."""
    d_model: int
    n_layers: int
    max_history: int
    log_loss: float | None = None
    normalised_entropy: float | None = None
    auc: float | None = None
    ece: float | None = None
    actions: int | None = None
    """Test actions."""
    base_rate: float | None = None
    """Share of the test actions that are likes."""
    valid_log_loss: list[float]
    """Validation log loss after each epoch."""
    block_losses: list[float] | None = None
    """Summed test loss of each block of users, for intervals over users."""
    parameters: int
    seconds: int
    machine: str
    dataset_digest: str
    sids_digest: str

    @property
    def best_valid(self) -> float:
        """Validation log loss of the epoch that was kept."""
        return min(self.valid_log_loss)


def table_path(folder: Path, dataset: str, order: str = "") -> Path:
    """The table of a data set (in an order of same-day interactions)."""
    return folder / f"{'-'.join(filter(None, (dataset, order)))}.csv"


def ranks_path(table: Path) -> Path:
    """The rank strings that belong to a table of accuracy runs."""
    return table.parent / "ranks" / table.name


def append_accuracy(table: Path, run: AccuracyRun, ranks: str | None) -> None:
    """Add a run; its ranks are written first, so that a run with test metrics always has them."""
    if ranks is not None:
        append_row(ranks_path(table), RankString(model=run.model, seed=run.seed, ranks=ranks))
    append_row(table, run)


def reported_runs(table: Path) -> dict[str, list[AccuracyRun]]:
    """The runs that are no trials, by model in the order of the variants."""
    runs: dict[str, list[AccuracyRun]] = defaultdict(list)
    for run in read_rows(table, AccuracyRun):
        if not run.trial:
            runs[run.model].append(run)
    return {name: sorted(runs[name], key=lambda run: run.seed) for name in TITLES if name in runs}


def rank_strings(table: Path) -> dict[str, list[str]]:
    """The rank strings of the reported runs by model, one per seed."""
    strings: dict[str, dict[int, str]] = defaultdict(dict)
    for row in read_rows(ranks_path(table), RankString):
        strings[row.model][row.seed] = row.ranks
    return {model: [by_seed[seed] for seed in sorted(by_seed)] for model, by_seed in strings.items()}
