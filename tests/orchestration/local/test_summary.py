"""What a run prints at its end: like beside like, and what was not measured never as passed."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from common.cli import NOT_PROMOTED
from common.home import Home
from orchestration.local.summary import Summary
from tests.validation.gate_evidence import good_evaluation, put, say_unmeasured
from validation.gate.gate import evaluate_gate
from validation.gate.policy import load_policy

HOME = Home(name="shop", data="custom", data_dir="shop", registry="registry")


def printed(folder: Path, evaluation: dict[str, Any], bootstrap: bool = True) -> str:
    """The summary of a run that the gate refuses, so that no server is needed."""
    put(evaluation, ("codebook", "collision_rate"), 0.9)
    verdict = evaluate_gate(evaluation, load_policy(), bootstrap)
    verdict.write(folder / "verdict.json")
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    golden = {"requests": [{"history": ["1"], "k": 3}], "answers": [{}]}
    (folder / "golden.json").write_text(json.dumps(golden))
    outputs: dict[str, Any] = {
        name: SimpleNamespace(path=str(folder / f"{name}.json"))
        for name in ("verdict", "evaluation", "golden")
    }
    recipe = json.dumps({"settings": {}, "base": "default"})
    outputs |= {
        "report": SimpleNamespace(path=str(folder / "run" / "report" / "report" / "report.html")),
        "recipe": recipe,
    }
    screen = io.StringIO()
    console = Console(file=screen, width=200)
    assert Summary(outputs, HOME, "production", console).print() == NOT_PROMOTED
    return screen.getvalue()


def rows(text: str, name: str) -> list[int]:
    """Numbers of the lines that start with a name."""
    return [number for number, line in enumerate(text.splitlines()) if line.strip().startswith(name)]


def test_the_champion_stands_beside_the_challenger_on_the_same_users(tmp_path: Path) -> None:
    apart = printed(tmp_path, good_evaluation())
    first, second = rows(apart, "CAR  ")
    assert rows(apart, "Against production: the 930 users whose last item both offer")[0] < second
    assert [second < row for row in rows(apart, "Production")] == [True]
    assert rows(apart, "Nearest text alone") and rows(apart, "Popularity")[0] < second
    evaluation = good_evaluation()
    evaluation["champion"]["holdout"] = evaluation["holdout"]["digest"]
    together = printed(tmp_path, evaluation)
    assert len(rows(together, "CAR  ")) == len(rows(together, "Production")) == 1
    assert "Against production" not in together
    assert first == rows(together, "CAR  ")[0]


@pytest.mark.parametrize(
    ("same", "says"), [("same_weights", "the same weights"), ("same_ranks", "the same ranks")]
)
def test_no_difference_is_explained_and_never_plus_nothing(tmp_path: Path, same: str, says: str) -> None:
    evaluation = good_evaluation()
    evaluation["champion"][same] = True
    assert f"CAR against Production, NDCG@10: no difference, both have {says}" in printed(
        tmp_path, evaluation
    )


def test_what_was_not_measured_is_not_applicable_and_says_why(tmp_path: Path) -> None:
    text = printed(tmp_path, say_unmeasured(good_evaluation(), ["action"]))
    line = next(line for line in text.splitlines() if line.strip().startswith("likes are predicted"))
    assert "not applicable" in line and "pass" not in line
    assert (
        "Not applicable (likes are predicted; ranking by action finds what is liked): There was nothing to "
        "measure: the interactions have no actions."
    ) in text


def test_a_first_release_compares_with_no_production(tmp_path: Path) -> None:
    text = printed(tmp_path, good_evaluation(champion=None))
    assert not rows(text, "Production") and "CAR against Production" not in text
    assert "CAR against Nearest text alone, NDCG@10: +75.0%" in text
