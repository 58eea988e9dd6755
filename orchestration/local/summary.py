"""What a local run prints at its end: metrics, the gate's verdict and an answer of the served model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from rich.text import Text

from car_model.evidence.evaluation import Evaluation, GoldenRequests, Metric, MetricIntervals
from car_model.evidence.training import RecipeRecord
from car_model.evidence.verdict import Verdict
from common.cli import DONE, NOT_PROMOTED, plain_table
from common.home import Home
from registry.channels.channel import head
from registry.channels.log import Entry
from registry.store.open import open_store
from serving.errors import ServingError
from serving.torchserve.rollover import curl_line
from serving.torchserve.server import TorchServe

METRICS: tuple[Metric, ...] = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")
MODELS = {
    "challenger": "CAR",
    "champion": "Production",
    "sasrec": "SASRec",
    "nearest_text": "Nearest text alone",
    "popularity": "Popularity",
}
COLOURS = {"pass": "green", "fail": "red", "waived": "yellow", "not applicable": "cyan"}
RECENT = 5  # titles of the history shown


@dataclass(frozen=True)
class Summary:
    """Prints how a finished run ended."""

    outputs: Mapping[str, Any]  # of the pipeline: artifacts with a `path`
    home: Home  # with the registry, and the TorchServe of each channel
    channel: str
    console: Console

    def print(self) -> int:
        """Print everything and return the command's exit code: DONE or NOT_PROMOTED.

        Raises:
            ServingError: the gate blessed the release, but the server answers with another one.
        """
        verdict = Verdict.read(self._path("verdict"))
        evaluation = Evaluation.read(self._path("evaluation"))
        requests = GoldenRequests.read(self._path("golden")).requests
        history = next(list(request["history"]) for request in requests if request["history"])
        entry = head(open_store(self.home.registry), self.channel) if verdict.blessed else None
        if entry:
            self._print_answer(entry, history)
        self._print_quality(evaluation)
        self._print_gate(verdict)
        recipe = RecipeRecord.from_object(json.loads(self.outputs["recipe"]), "the run's recipe")
        self._print_line("Recipe", recipe.origin)
        folder = self._path("report").parents[2]  # the report is made by every run, and never cached
        self._print_line("Run", f"{folder.name}, in {folder}")
        if not verdict.blessed:
            self.console.print(
                f"Not promoted. What {self.channel} serves is unchanged. Failing:", style="bold red"
            )
            for condition in verdict.blockers:
                self.console.print(f"  {condition.name}: {condition.detail}")
            self._print_line("Report", self._path("report"))
            self._print_line("Home", self.home.name)
            return NOT_PROMOTED
        if entry:
            self._print_line("Release", f"{entry.release} ({self.channel} no. {entry.number})")
        self._print_line("Codebook", self.outputs["bundle"].metadata["codebook"])
        self._print_line("Report", self._path("report"))
        self._print_line("Data Docs", self._path("data_docs"))
        self._print_line("Registry", self.home.registry)
        self._print_line("Server", f"{self.home.server(self.channel)}, which answers for {self.channel} only")
        self._print_line("Home", f"{self.home.name}, which car ask and car registry use now (car --home ...)")
        server = TorchServe.attach(self.home.server(self.channel))
        self._print_line("Ask again", curl_line(server, {"history": history[-RECENT:], "k": 10}))
        return DONE

    def _print_answer(self, entry: Entry, history: list[str]) -> None:
        """Ask the server for recommendations after a holdout user's history, and print them with reasons."""
        answer = TorchServe.attach(self.home.server(self.channel)).predict(
            {"history": history, "k": 10, "explain": True}
        )
        if answer["release"] != entry.release:
            raise ServingError(
                f"The server answers with release {answer['release'][:12]}, but {self.channel} is "
                f"{entry.release[:12]}; run again, or look at 'car status'."
            )
        items = pq.read_table(self._path("dataset") / "items.parquet", columns=["item_id", "title"])
        titles = dict(zip(*items.to_pydict().values(), strict=True))
        recent = ", ".join(titles.get(item, item) for item in history[-RECENT:])
        self.console.print(f"\nA user of the holdout, {len(history)} items long, lately: {recent}")
        table = plain_table("", "Recommended now", "Why")
        for rank, item in enumerate(answer["items"], start=1):
            table.add_row(str(rank), item["title"], " ".join(item["reasons"]))
        self.console.print(table)

    def _print_quality(self, evaluation: Evaluation) -> None:
        """Print every model's metrics with their intervals, and the differences to CAR."""
        holdout, champion = evaluation.holdout, evaluation.champion
        models, compared = dict(evaluation.models), dict(champion.models) if champion else {}
        if holdout and champion and champion.holdout == holdout.digest:  # its figures stand beside all others
            models, compared = models | compared, {}
        if holdout:
            self.console.print(
                f"\nThe last item of {holdout.users} users, ranked among all {holdout.items} items, "
                "history masked: mean and 95 % interval"
            )
        self.console.print(_metrics_table(models))
        if compared and champion and champion.users:
            self.console.print(
                f"\nAgainst production: the {champion.users} users whose last item both offer, ranked among "
                f"the {champion.items} items that both offer"
            )
            self.console.print(_metrics_table(compared))
        for sentence in evaluation.offer:
            self.console.print(sentence)
        self.console.print()
        for name, label in MODELS.items():
            if differences := evaluation.paired.get(name):
                item = differences["ndcg@10"]
                if name == "champion" and champion and champion.same:
                    text = f"no difference, both have {champion.same}"
                elif item.difference is None:
                    text = "no user can be compared"
                elif item.relative is None:  # the other model's metric is 0
                    text = f"{item.difference:+.4f} ({item.low:+.4f} to {item.high:+.4f})"
                else:
                    interval = f"{item.relative_low:+.1%} to {item.relative_high:+.1%}"
                    text = f"{item.relative:+.1%} (95 % interval {interval})"
                self.console.print(f"CAR against {label}, NDCG@10: {text}")
        self.console.print()

    def _print_gate(self, verdict: Verdict) -> None:
        table = plain_table("Gate", "Value", "Must be", "Fails", "Verdict")
        for condition in verdict.conditions:
            value = "" if condition.value is None else str(condition.value)[:12]
            if isinstance(condition.value, float):
                value = f"{condition.value:.4g}"
            badge = Text(condition.verdict, COLOURS[condition.verdict])
            table.add_row(condition.name, value, condition.bound, condition.severity, badge)
        self.console.print(table)
        reasons: dict[str, list[str]] = {}
        for condition in verdict.conditions:
            if condition.verdict == "not applicable":
                reasons.setdefault(condition.detail, []).append(condition.name)
        for reason, names in reasons.items():
            self.console.print(f"Not applicable ({'; '.join(names)}): {reason}")
        self.console.print()
        for forced in verdict.forced:
            self.console.print(forced.sentence, style="bold red" if forced.in_use else "yellow")

    def _path(self, name: str) -> Path:
        return Path(self.outputs[name].path)

    def _print_line(self, name: str, text: str | Path) -> None:
        self.console.print(f"{name:10} {text}", soft_wrap=True)


def _metrics_table(models: Mapping[str, MetricIntervals]) -> Table:
    """A row of means and intervals for each model, in the order of `MODELS`."""
    table = plain_table("Model", "Recall@5", "Recall@10", "NDCG@5", "NDCG@10")
    for name, label in MODELS.items():
        if metrics := models.get(name):
            cells = (metrics[metric] for metric in METRICS)
            table.add_row(label, *(f"{cell.mean:.4f} [{cell.low:.3f}, {cell.high:.3f}]" for cell in cells))
    return table
