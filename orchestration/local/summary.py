"""What a local run ends with: the gate's answer and, where it is yes, the served model's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich import box
from rich.console import Console
from rich.table import Table

from car_model.evidence.verdict import Verdict
from registry.channels.channel import head
from registry.channels.log import Entry
from registry.store.open import open_store
from serving.errors import ServingError
from serving.torchserve.rollover import curl_line
from serving.torchserve.server import TorchServe

METRICS = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")
MODELS = {
    "challenger": "CAR",
    "champion": "Production",
    "sasrec": "SASRec",
    "popularity": "Popularity",
}
COLOURS = {"pass": "green", "fail": "red", "waived": "yellow"}
RECENT = 5  # titles of the history shown
BLOCKED = 2  # exit code


@dataclass(frozen=True)
class Summary:
    """Prints how a finished run ended.

    Attributes:
        outputs: the pipeline's outputs: artifacts with a `path`.
        registry, channel: where a blessed run released to.
        serving: folder of the TorchServe that serves it; "" where none does.
    """

    outputs: Mapping[str, Any]
    registry: str
    channel: str
    serving: str
    console: Console

    def print(self) -> int:
        """Print everything and return the command's exit code: 0 promoted, 2 not promoted.

        Raises:
            ServingError: the run was blessed, but no server answers with the release it made.
        """
        verdict = Verdict.read(self._path("verdict"))
        evaluation = json.loads(self._path("evaluation").read_text())
        if not verdict.blessed:
            self._blocked(verdict, evaluation)
            return BLOCKED
        entry = head(open_store(self.registry), self.channel)
        if self.serving and entry:
            self._answer(entry)
        self._quality(evaluation)
        self._gate(verdict)
        self._versions(entry)
        if self.serving:
            server = TorchServe.attach(self.serving)
            self._line("Ask again", curl_line(server, {"history": self._history()[-RECENT:], "k": 10}))
        return 0

    def _blocked(self, verdict: Verdict, evaluation: Mapping[str, Any]) -> None:
        self._quality(evaluation)
        self._gate(verdict)
        self.console.print("Not promoted. What production serves is unchanged. Failing:", style="bold red")
        for one in verdict.blockers:
            self.console.print(f"  {one.name}: {one.detail}", markup=False)
        self._line("Report", str(self._path("report")))

    def _answer(self, entry: Entry) -> None:
        history = self._history()
        answer = TorchServe.attach(self.serving).predict({"history": history, "k": 10, "explain": True})
        if answer["release"] != entry.release:
            raise ServingError(
                f"The server answers with release {answer['release'][:12]}, but {self.channel} is "
                f"{entry.release[:12]}; run again, or look at 'python -m serving status'."
            )
        titles = self._titles()
        recent = ", ".join(titles.get(item, item) for item in history[-RECENT:])
        self.console.print(
            f"\nA user of the holdout, {len(history)} items long, lately: {recent}", markup=False
        )
        table = _table("", "Recommended now", "Why")
        for rank, item in enumerate(answer["items"], start=1):
            table.add_row(str(rank), _plain(item["title"]), _plain(" ".join(item["reasons"])))
        self.console.print(table)

    def _quality(self, evaluation: Mapping[str, Any]) -> None:
        holdout, models = evaluation["holdout"], evaluation["models"]
        table = _table("Model", *(_metric(name) for name in METRICS))
        for name, label in MODELS.items():
            if name in models:
                table.add_row(label, *(_interval(models[name][metric]) for metric in METRICS))
        self.console.print(
            f"\nThe last item of {holdout['users']} users, ranked among all {holdout['items']} items, "
            "history masked: mean and 95 % interval"
        )
        self.console.print(table)
        for rival in ("popularity", "sasrec", "champion"):
            if found := evaluation["paired"].get(rival):
                self.console.print(f"  CAR against {MODELS[rival]}, NDCG@10: {_difference(found['ndcg@10'])}")

    def _gate(self, verdict: Verdict) -> None:
        table = _table("Gate", "Value", "Must be", "Fails", "Verdict")
        for one in verdict.conditions:
            value = "" if one.value is None else f"{one.value:.4g}"
            colour = COLOURS[one.verdict]
            badge = f"[{colour}]{one.verdict}[/{colour}]"
            table.add_row(_plain(one.name), value, _plain(one.bound), one.severity, badge)
        self.console.print(table)
        for forced in verdict.forced:
            self.console.print(forced.sentence, style="bold red" if forced.in_use else "yellow", markup=False)

    def _versions(self, entry: Entry | None) -> None:
        if entry:
            self._line("Release", f"{entry.release} ({self.channel} no. {entry.number})")
        bundle = self.outputs["bundle"].metadata
        self._line("Codebook", bundle["codebook"])
        self._line("Report", str(self._path("report")))
        self._line("Data Docs", str(self._path("data_docs")))

    def _history(self) -> list[str]:
        """A real user's history: the first golden request that has one."""
        requests = json.loads(self._path("golden").read_text())["requests"]
        return next(list(request["history"]) for request in requests if request["history"])

    def _titles(self) -> dict[str, str]:
        items = pq.read_table(
            self._path("dataset") / "items.parquet", columns=["item_id", "title"]
        ).to_pydict()
        return dict(zip(items["item_id"], items["title"], strict=True))

    def _path(self, name: str) -> Path:
        return Path(self.outputs[name].path)

    def _line(self, name: str, text: str) -> None:
        self.console.print(f"{name:10} {text}", soft_wrap=True, markup=False)


def _table(*columns: str) -> Table:
    return Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


def _metric(name: str) -> str:
    kind, _, depth = name.partition("@")
    return f"{'Recall' if kind == 'recall' else kind.upper()}@{depth}"


def _interval(found: Mapping[str, float]) -> str:
    return f"{found['mean']:.4f} \\[{found['low']:.3f}, {found['high']:.3f}]"


def _difference(found: Mapping[str, float | None]) -> str:
    """Relative where there is a base to relate to, absolute otherwise."""
    if found["relative"] is None:
        return f"{found['difference']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f})"
    relative, low, high = (found[key] for key in ("relative", "relative_low", "relative_high"))
    return f"{relative:+.1%} (95 % interval {low:+.1%} to {high:+.1%})"
