"""How a check's outcome becomes a finding: one that raised has failed, and a share allows just so many."""

from __future__ import annotations

import great_expectations.expectations as gxe
import pandas as pd
import pytest

from validation.data import run_checks
from validation.data.findings import Finding
from validation.data.policy import DataPolicy
from validation.data.rules import Rule, table_rules
from validation.data.tables import Table


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch):
    """Judge a frame by a few rules only, under the name of a table."""

    def judged(name: str, frame: pd.DataFrame, rules: list[Rule]) -> list[Finding]:
        monkeypatch.setattr(run_checks, "table_rules", lambda *_: rules)
        return run_checks.check_tables({name: Table(name, frame)}, DataPolicy())

    return judged


def test_a_check_that_raises_has_failed_and_the_others_are_still_made(judge) -> None:
    frame = pd.DataFrame({"item_id": ["i1", "i2"], "action": [1.0, 2.0]})
    raising, sound, broken = judge(
        "source_interactions",
        frame,
        [
            Rule("x is set.", "x is null", "repair it", gxe.ExpectColumnValuesToNotBeNull(column="x"), "x"),
            Rule("a", "b", "c", gxe.ExpectColumnValuesToNotBeNull(column="item_id"), "item_id"),
            Rule(
                "action is at most 1.",
                "action is above 1",
                "repair it",
                gxe.ExpectColumnValuesToBeBetween(column="action", max_value=1),
                "action",
            ),
        ],
    )
    assert raising.stops
    assert not raising.ok
    assert raising.problem.startswith(
        "Table source_interactions, column x: 'x is set.' could not be checked: "
    )
    assert raising.problem.endswith("; repair it.")
    assert raising.observed.startswith("could not be checked: ")
    assert (sound.ok, sound.stops, sound.problem) == (True, False, "")
    assert sound.observed == "all 2 rows pass"
    assert broken.stops
    assert "action is above 1 in 1 of 2 rows (such as '2.0' in " in broken.problem


def rows(orphans: list[str | None]) -> pd.DataFrame:
    """20 interactions of one user, some with an item that is not in the catalogue."""
    frame = pd.DataFrame({"item_id": [f"i{number}" for number in range(20)], "orphan_item": orphans})
    return frame.assign(user_id="u", position=range(20), timestamp=pd.NaT, action=None, split="train")


def orphan_rules(name: str, frame: pd.DataFrame, policy: DataPolicy) -> list[Rule]:
    rules = [rule for rule in table_rules(name, frame, policy) if "the item is not in" in rule.broken]
    assert len(rules) == 1
    return rules


@pytest.mark.parametrize(
    ("share", "orphans", "ok"),
    [(0.0, 0, True), (0.0, 1, False), (0.1, 2, True), (0.1, 3, False), (0.5, 10, True), (0.5, 11, False)],
)
def test_so_many_orphans_are_allowed_and_none_by_default(judge, share: float, orphans: int, ok: bool) -> None:
    missing = [f"i{number}" if number < orphans else None for number in range(20)]
    frame = rows(missing)
    policy = DataPolicy(max_orphan_share=share) if share else DataPolicy()
    (finding,) = judge("source_interactions", frame, orphan_rules("source_interactions", frame, policy))
    assert finding.ok is ok


def test_what_ingest_kept_has_no_orphan_whatever_the_policy_allows(judge) -> None:
    missing = ["i0", *[None] * 19]
    frame = rows(missing)
    rules = orphan_rules("interactions", frame, DataPolicy(max_orphan_share=0.5))
    (finding,) = judge("interactions", frame, rules)
    assert finding.stops
