"""Which promotions by force are told to whoever compares with the release in use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from car_model.evidence.verdict import ForcedPromotion
from registry.channels.channel import forced_promotions, head, promote, rollback, stage
from registry.errors import ChannelError
from registry.releases.layout import manifest_name
from registry.store.base import ObjectStore
from tests.registry.bundles import make_release
from tests.registry.damage import Change


def put(store: ObjectStore, release: str, **options: Any) -> int:
    """Promote to production as `ann`, staged unless by force."""
    if not options.get("force"):
        stage(store, release, who="ann", why="a look")
    why = options.pop("why", "because")
    return promote(store, "production", release, who="ann", why=why, **options).number


def told(store: ObjectStore, **options: Any) -> list[tuple[int, bool]]:
    """Number, and whether it brought what is in use, of the promotions that are told."""
    entry = head(store, "production")
    assert entry
    return [(one.number, one.in_use) for one in forced_promotions(store, "production", entry, **options)]


@pytest.fixture
def good(store: ObjectStore, tmp_path: Path) -> list[str]:
    return [make_release(store, tmp_path, seed).release for seed in range(3)]


@pytest.fixture
def refused(store: ObjectStore, tmp_path: Path) -> str:
    return make_release(store, tmp_path, 7, blessed=False).release


def test_who_when_why_and_what_the_gate_had_against_it(
    store: ObjectStore, good: list[str], refused: str
) -> None:
    put(store, good[0])
    put(store, refused, force=True, why="withdrawn items must go now")
    entry = head(store, "production")
    assert entry
    (one,) = forced_promotions(store, "production", entry)
    assert one == ForcedPromotion(
        number=2,
        release=refused,
        who="ann",
        when=entry.when,
        why="withdrawn items must go now",
        in_use=True,
        failing=("beats popularity",),
    )


def test_nothing_is_told_where_nothing_was_forced(store: ObjectStore, good: list[str]) -> None:
    put(store, good[0])
    put(store, good[1], force=False)
    assert told(store) == []


def test_a_release_that_only_was_not_staged_fails_on_nothing(store: ObjectStore, good: list[str]) -> None:
    put(store, good[0], force=True)
    entry = head(store, "production")
    assert entry
    assert [one.failing for one in forced_promotions(store, "production", entry)] == [()]


def test_an_earlier_one_is_told_as_long_as_it_is_among_the_last(
    store: ObjectStore, good: list[str], refused: str
) -> None:
    put(store, refused, force=True)
    put(store, good[0])
    put(store, good[1])
    assert told(store) == [(1, False)]
    assert told(store, last=3) == [(1, False)]
    assert told(store, last=2) == []


def test_a_rollback_to_a_forced_release_is_told_however_long_ago(
    store: ObjectStore, good: list[str], refused: str
) -> None:
    put(store, refused, force=True)
    put(store, good[0])
    put(store, good[1])
    rollback(store, "production", who="bob", why="slow", to=refused)
    assert told(store, last=1) == [(1, True)]


def test_what_happened_after_the_entry_that_was_read_is_left_out(
    store: ObjectStore, good: list[str], refused: str
) -> None:
    put(store, good[0])
    entry = head(store, "production")
    assert entry
    put(store, refused, force=True)
    assert forced_promotions(store, "production", entry) == []


def test_a_forced_release_that_is_gone_is_still_told(
    store: ObjectStore, url: str, good: list[str], refused: str, remove: Change
) -> None:
    put(store, refused, force=True)
    put(store, good[0])
    remove(url, manifest_name(refused))
    entry = head(store, "production")
    assert entry
    assert [(one.who, one.failing) for one in forced_promotions(store, "production", entry)] == [("ann", ())]


def test_a_damaged_log_is_an_error(store: ObjectStore, url: str, good: list[str], flip: Change) -> None:
    put(store, good[0])
    put(store, good[1])
    entry = head(store, "production")
    assert entry
    flip(url, "channels/production/00000001.json")
    with pytest.raises(ChannelError):
        forced_promotions(store, "production", entry)
