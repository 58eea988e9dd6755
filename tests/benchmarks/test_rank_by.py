"""Answers ranked by relevance and by action, side by side."""

from __future__ import annotations

from typing import Any

from benchmarks.rank_by import RankByRow, tables


def run(action: float, milliseconds: float) -> dict[str, Any]:
    def part(relevance: float, action: float) -> dict[str, Any]:
        change = {"ndcg@10": {"relative": action / relevance - 1}}
        return {
            "relevance": {"ndcg@10": {"mean": relevance}},
            "action": {"ndcg@10": {"mean": action}},
            "paired": change,
        }

    return {
        "weight": 1.0,
        "normalised_entropy": {"mean": 0.8},
        "normalised_entropy_without_actions": {"mean": 0.9},
        "ndcg": {"liked": part(0.1, action), "disliked": part(0.1, 0.05)},
        "latency": {"relevance_p50_ms": 2.0, "action_p50_ms": milliseconds},
    }


def test_changes_are_shown_for_both_kinds_of_users_and_times_as_ratios() -> None:
    evidence = [run(0.11, 6.0), run(0.13, 8.0)]
    rows = [RankByRow(machine="m", dataset="films", seed=i, evidence=each) for i, each in enumerate(evidence)]
    (table,) = tables(rows)
    text = table.markdown()
    assert "0.1200" in text and "+20.0%" in text and "-50.0%" in text
    assert "7.00" in text and "3.5 x ± 0.7 x" in text
