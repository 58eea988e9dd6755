"""Forced promotions that are reported when a challenger is compared with the release in use."""

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


def promote_to_production(store: ObjectStore, release: str, **options: Any) -> int:
    """Promote to production as `ann`, staged unless by force."""
    if not options.get("force"):
        stage(store, release, who="ann", why="a look")
    why = options.pop("why", "because")
    return promote(store, "production", release, who="ann", why=why, **options).number


def numbers_in_use(store: ObjectStore, **options: Any) -> list[tuple[int, bool]]:
    """Number of each reported promotion, and whether it put the current release in use."""
    entry = head(store, "production")
    assert entry
    return [
        (promotion.number, promotion.in_use)
        for promotion in forced_promotions(store, "production", entry, **options)
    ]


@pytest.fixture
def blessed(store: ObjectStore, tmp_path: Path) -> list[str]:
    return [make_release(store, tmp_path, seed).release for seed in range(3)]


@pytest.fixture
def unblessed(store: ObjectStore, tmp_path: Path) -> str:
    return make_release(store, tmp_path, 7, blessed=False).release


def test_a_forced_promotion_names_person_reason_and_failed_conditions(
    store: ObjectStore, blessed: list[str], unblessed: str
) -> None:
    promote_to_production(store, blessed[0])
    promote_to_production(store, unblessed, force=True, why="withdrawn items must go now")
    entry = head(store, "production")
    assert entry
    (promotion,) = forced_promotions(store, "production", entry)
    assert promotion == ForcedPromotion(
        number=2,
        release=unblessed,
        who="ann",
        when=entry.when,
        why="withdrawn items must go now",
        in_use=True,
        failing=("beats popularity",),
    )


def test_without_force_nothing_is_reported(store: ObjectStore, blessed: list[str]) -> None:
    promote_to_production(store, blessed[0])
    promote_to_production(store, blessed[1], force=False)
    assert numbers_in_use(store) == []


def test_an_unstaged_release_has_no_failed_conditions(store: ObjectStore, blessed: list[str]) -> None:
    promote_to_production(store, blessed[0], force=True)
    entry = head(store, "production")
    assert entry
    assert [promotion.failing for promotion in forced_promotions(store, "production", entry)] == [()]


def test_an_earlier_forced_promotion_is_reported_while_it_is_recent(
    store: ObjectStore, blessed: list[str], unblessed: str
) -> None:
    promote_to_production(store, unblessed, force=True)
    promote_to_production(store, blessed[0])
    promote_to_production(store, blessed[1])
    assert numbers_in_use(store) == [(1, False)]
    assert numbers_in_use(store, last=3) == [(1, False)]
    assert numbers_in_use(store, last=2) == []


def test_a_rollback_to_a_forced_release_is_always_reported(
    store: ObjectStore, blessed: list[str], unblessed: str
) -> None:
    promote_to_production(store, unblessed, force=True)
    promote_to_production(store, blessed[0])
    promote_to_production(store, blessed[1])
    rollback(store, "production", who="bob", why="slow", to=unblessed)
    assert numbers_in_use(store, last=1) == [(1, True)]


def test_later_entries_are_left_out(store: ObjectStore, blessed: list[str], unblessed: str) -> None:
    promote_to_production(store, blessed[0])
    entry = head(store, "production")
    assert entry
    promote_to_production(store, unblessed, force=True)
    assert forced_promotions(store, "production", entry) == []


def test_a_deleted_forced_release_is_still_reported(
    store: ObjectStore, url: str, blessed: list[str], unblessed: str, remove: Change
) -> None:
    promote_to_production(store, unblessed, force=True)
    promote_to_production(store, blessed[0])
    remove(url, manifest_name(unblessed))
    entry = head(store, "production")
    assert entry
    assert [
        (promotion.who, promotion.failing) for promotion in forced_promotions(store, "production", entry)
    ] == [("ann", ())]


def test_a_damaged_log_is_an_error(store: ObjectStore, url: str, blessed: list[str], flip: Change) -> None:
    promote_to_production(store, blessed[0])
    promote_to_production(store, blessed[1])
    entry = head(store, "production")
    assert entry
    flip(url, "channels/production/00000001.json")
    with pytest.raises(ChannelError):
        forced_promotions(store, "production", entry)
