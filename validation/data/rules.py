"""The expectations over each table: a rule says what holds, how a breach reads, and what to do about it."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.expectations.expectation import Expectation

from validation.data.policy import POLICY, DataPolicy
from validation.data.tables import REPEATED

REPAIR = "repair or drop these rows in the source"
INGEST = "the ingest step broke its contract, so run it again and report the fault if it stays"
REQUIRED = {
    "source_interactions": ["user_id", "item_id"],
    "source_items": ["item_id"],
    "interactions": ["user_id", "item_id", "position", "timestamp", "action", "split"],
    "items": ["item_id", "title"],
}
LARGEST = sys.float_info.max
MARKUP = r"<[a-zA-Z/!][^<>]*>|&(?:#[0-9]+|#x[0-9a-fA-F]+|[a-zA-Z]+);"


@dataclass(frozen=True)
class Rule:
    """One expectation in the words of the person who has to act on it."""

    expects: str  # "item_id is never null."
    broken: str  # "is null"; completed with counts and examples
    remedy: str
    expectation: Expectation
    column: str = ""
    severity: Literal["block", "warn"] = "block"


def table_rules(
    name: str, frame: pd.DataFrame, policy: DataPolicy, wrong: Collection[str] = ()
) -> list[Rule]:
    """The rules for a table as loaded; rows and columns only, if the table lacks some of these.

    Args:
        wrong: columns left out of the frame because their type is wrong, which has a finding already.
    """
    source = name.startswith("source_")
    columns = [column for column in REQUIRED[name] if column not in wrong]
    smallest = {"interactions": policy.min_interactions, "items": policy.min_items}.get(name, 1)
    shape = [
        Rule(
            f"The columns {', '.join(columns)} are there.",
            "columns are missing",
            "correct the column mapping of ingest" if source else INGEST,
            gxe.ExpectTableColumnsToMatchSet(column_set=columns, exact_match=False),
        ),
        Rule(
            f"There are at least {smallest:,} rows." if smallest > 1 else "There is at least one row.",
            f"at least {smallest:,} rows are needed" if smallest > 1 else "the table is empty",
            "check the source file" if source else f"add data, or lower the k-core or min_{name} in {POLICY}",
            gxe.ExpectTableRowCountToBeBetween(min_value=smallest),
        ),
    ]
    if frame.empty or not set(REQUIRED[name]) <= set(frame):
        return shape
    if name == "items":
        return [*shape, _not_null("item_id", INGEST), _unique_items(INGEST), _not_null("title", INGEST)]
    rules = {
        "source_interactions": _source_interactions,
        "source_items": _source_items,
        "interactions": _interactions,
    }
    return [*shape, *rules[name](frame, policy)]


def _source_interactions(frame: pd.DataFrame, policy: DataPolicy) -> Iterator[Rule]:
    yield from _id_rules("user_id")
    yield from _id_rules("item_id")
    order = "position" if "position" in frame else "timestamp"  # of a user's history
    if order in frame:
        yield _not_null(order, REPAIR)
    else:
        yield Rule(
            "There is a timestamp or a position.",
            "there is neither a timestamp nor a position",
            "map one of them in ingest",
            gxe.ExpectTableColumnsToMatchSet(column_set=["timestamp"], exact_match=False),
        )
    if "timestamp" in frame and frame["timestamp"].notna().any():
        latest = policy.latest or datetime.now(UTC)
        future = "after" if policy.latest else "in the future, after"
        for low, high, word in ((policy.earliest, None, "before"), (None, latest, future)):
            remedy = (
                "correct the clock, the time zone or the unit (seconds, milliseconds) of these rows, or set "
                f"{'earliest' if low else 'latest'} in {POLICY}"
            )
            limit = f"{low or high:%Y-%m-%d %H:%M} UTC"
            within = gxe.ExpectColumnValuesToBeBetween(column="timestamp", min_value=low, max_value=high)
            broken = f"timestamp is {word} {limit}"
            yield Rule(f"timestamp is never {word} {limit}.", broken, remedy, within, "timestamp")
    if "action" in frame and frame["action"].notna().any():
        smallest = -LARGEST if policy.action_min is None else policy.action_min
        largest = LARGEST if policy.action_max is None else policy.action_max
        lower = f"at least {smallest:g}" if smallest > -LARGEST else ""
        upper = f"at most {largest:g}" if largest < LARGEST else ""
        allowed = " and ".join(filter(None, (lower, upper))) or "a finite number"
        within = gxe.ExpectColumnValuesToBeBetween(column="action", min_value=smallest, max_value=largest)
        remedy = f"correct these rows, or action_min and action_max in {POLICY}"
        yield Rule(f"action is {allowed}.", f"action is not {allowed}", remedy, within, "action")
    if "orphan_item" in frame:
        orphans = frame["orphan_item"].dropna().astype(str)
        trim = "remove the blanks around ids, " if (orphans != orphans.str.strip()).any() else ""
        remedy = f"{trim}add the items to the catalogue, drop them, or raise max_orphan_share in {POLICY}"
        yield _orphans("the catalogue", remedy, policy.max_orphan_share)
    if order in frame:
        yield Rule(
            f"At most {policy.max_duplicate_share:.0%} of the rows repeat a user, item and {order}.",
            f"the same user_id, item_id and {order} appear more than once",
            f"check whether a file was read twice, or raise max_duplicate_share in {POLICY}",
            gxe.ExpectCompoundColumnsToBeUnique(
                column_list=["user_id", "item_id", order], mostly=1 - policy.max_duplicate_share
            ),
        )


def _source_items(frame: pd.DataFrame, policy: DataPolicy) -> Iterator[Rule]:
    yield from _id_rules("item_id")
    yield _unique_items("keep one row per item in the catalogue's source")
    share = policy.max_missing_title_share
    yield Rule(
        f"At most {share:.0%} of the items have no title.",
        "the title is empty",
        "fill in titles or correct the column mapping, since semantic IDs are made from text, or raise "
        f"max_missing_title_share in {POLICY}",
        gxe.ExpectColumnValuesToBeNull(column="item_without_title", mostly=1 - share),
        "title",
    )
    if not frame["title"].notna().any():
        return
    for share, setting, helper, which, remedy in (
        (policy.max_same_title_share, "max_same_title_share", "item_with_same_title",
         "have the title of another item", "merge items that are listed twice"),
        (policy.max_repeated_title_share, "max_repeated_title_share", "item_with_repeated_title",
         f"have a title that over {REPEATED} items have", "give them titles of their own"),
    ):  # fmt: skip
        yield Rule(
            f"At most {share:.0%} of the items {which}.",
            f"items {which}",
            f"{remedy}, or raise {setting} in {POLICY}",
            gxe.ExpectColumnValuesToBeNull(column=helper, mostly=1 - share),
            "title",
            "warn",
        )
    share = policy.max_markup_share
    yield Rule(
        f"At most {share:.0%} of the titles hold HTML.",
        "the title holds HTML",
        'set items.markup to "strip" in dataset.json, or map another column',
        gxe.ExpectColumnValuesToNotMatchRegex(column="title", regex=MARKUP, mostly=1 - share),
        "title",
        "warn",
    )


def _interactions(frame: pd.DataFrame, policy: DataPolicy) -> Iterator[Rule]:
    yield _not_null("user_id", INGEST)
    yield _not_null("item_id", INGEST)
    yield Rule(
        f"There are at least {policy.min_users:,} users.",
        f"at least {policy.min_users:,} users are needed",
        f"add data, or lower the k-core or min_users in {POLICY}",
        gxe.ExpectColumnUniqueValueCountToBeBetween(column="user_id", min_value=policy.min_users),
        "user_id",
    )
    if "orphan_item" in frame:
        yield _orphans("items", INGEST, 0.0)
    gaps = gxe.ExpectColumnValuesToBeNull(column="user_with_position_gap")
    expects = "Every user's positions run 0, 1, 2, ... without gap or repeat."
    yield Rule(expects, "positions are not 0, 1, 2, ... for the user", INGEST, gaps, "position")
    wrong = gxe.ExpectColumnValuesToBeNull(column="user_with_wrong_split")
    expects = (
        "Every user's last row is test, the one before valid, the others train (under 3 rows: all train)."
    )
    yield Rule(expects, "the split is not the leave-one-out split for the user", INGEST, wrong, "split")
    parts = gxe.ExpectColumnDistinctValuesToContainSet(column="split", value_set=["train", "test"])
    expects = "There are rows to train on and rows to test on."
    remedy = "add users with at least 3 interactions"
    yield Rule(expects, "train and test rows are both needed", remedy, parts, "split")


def _id_rules(column: str) -> Iterator[Rule]:
    yield _not_null(column, REPAIR)
    not_blank = gxe.ExpectColumnValuesToMatchRegex(column=column, regex=r"\S")
    yield Rule(f"{column} is never blank.", f"{column} is blank", REPAIR, not_blank, column)


def _not_null(column: str, remedy: str) -> Rule:
    expectation = gxe.ExpectColumnValuesToNotBeNull(column=column)
    return Rule(f"{column} is never null.", f"{column} is null", remedy, expectation, column)


def _unique_items(remedy: str) -> Rule:
    expects, broken = "item_id appears once per item.", "the same item_id appears more than once"
    return Rule(expects, broken, remedy, gxe.ExpectColumnValuesToBeUnique(column="item_id"), "item_id")


def _orphans(table: str, remedy: str, share: float) -> Rule:
    expects = f"All but {share:.0%} of interactions' items are" if share else "Every interaction's item is"
    expectation = gxe.ExpectColumnValuesToBeNull(column="orphan_item", mostly=1 - share)
    return Rule(f"{expects} in {table}.", f"the item is not in {table}", remedy, expectation, "item_id")
