"""Channels on every store: promotion, rollback, and damaged logs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry.channels.channel import head, history, list_channels, promote, rollback
from registry.channels.log import Entry, read_log
from registry.errors import ChannelError, ConflictError, ObjectExists, ReleaseError
from registry.releases.layout import entry_name, manifest_name
from registry.store.base import ObjectStore
from registry.store.folder import FolderStore
from tests.registry.bundles import make_release

ANN = {"who": "ann@shop", "why": "better on cold items"}


@pytest.fixture
def releases(store: ObjectStore, tmp_path: Path) -> list[str]:
    """Digests of four releases in the store; the last one is not blessed."""
    return [make_release(store, tmp_path, seed, blessed=seed < 3).release for seed in range(4)]


def test_a_channel_without_entries_is_empty(store: ObjectStore) -> None:
    assert (head(store, "canary"), history(store, "canary"), list_channels(store)) == (None, [], [])


def test_promotions_make_a_history(store: ObjectStore, releases: list[str]) -> None:
    first = promote(store, "canary", releases[0], **ANN)
    second = promote(store, "canary", releases[1], who="ci", why="nightly", expected=1)
    promote(store, "staging", releases[2], **ANN)

    assert history(store, "canary") == [first, second]
    assert head(store, "canary") == second
    assert (first.number, first.previous, first.after, first.action) == (1, None, None, "promote")
    assert (second.number, second.previous, second.who, second.why) == (2, releases[0], "ci", "nightly")
    assert second.when.utcoffset().total_seconds() == 0
    assert list_channels(store) == ["canary", "staging"]


def test_promoting_what_is_in_use_changes_nothing(store: ObjectStore, releases: list[str]) -> None:
    entry = promote(store, "canary", releases[0], **ANN)
    assert promote(store, "canary", releases[0], who="bob", why="again") == entry
    assert promote(store, "canary", releases[0], who="bob", why="a cached step", expected=0) == entry
    assert history(store, "canary") == [entry]


def test_a_channel_that_moved_since_the_gate_is_a_conflict(store: ObjectStore, releases: list[str]) -> None:
    promote(store, "canary", releases[0], **ANN)
    sentence = rf"moved since entry 0: ann@shop put release {releases[0][:12]} in use with entry 1 \(promote"
    with pytest.raises(ConflictError, match=sentence):
        promote(store, "canary", releases[1], who="ci", why="nightly", expected=0)
    with pytest.raises(ConflictError, match="has 1 entries, not the expected 7"):
        promote(store, "canary", releases[1], who="ci", why="nightly", expected=7)
    with pytest.raises(ConflictError, match="has 0 entries, not the expected 1"):
        promote(store, "staging", releases[1], who="ci", why="nightly", expected=1)
    with pytest.raises(ConflictError, match="moved since entry 0"):
        rollback(store, "canary", who="ci", why="nightly", expected=0, to=releases[1])
    assert len(history(store, "canary")) == 1


class Rival:
    """A store in which another writer moves the channel between a read and the write after it."""

    def __init__(self, store: ObjectStore, release: str) -> None:
        self.store, self.release, self.url = store, release, store.url
        self.read, self.list, self.exists = store.read, store.list, store.exists
        self.refresh_mark = store.refresh_mark

    def create(self, name: str, data: bytes) -> None:
        promote(self.store, "canary", self.release, who="bob", why="I was faster")
        with pytest.raises(ObjectExists):
            self.store.create(name, data)
        self.store.create(name, data)


def test_a_lost_race_names_the_winner(store: ObjectStore, releases: list[str]) -> None:
    with pytest.raises(ConflictError, match=f"bob put release {releases[1][:12]} in use with entry 1"):
        promote(Rival(store, releases[1]), "canary", releases[0], **ANN)
    assert [entry.who for entry in history(store, "canary")] == ["bob"]


def test_a_rival_with_the_same_release_is_no_conflict(store: ObjectStore, releases: list[str]) -> None:
    entry = promote(Rival(store, releases[0]), "canary", releases[0], **ANN)
    assert (entry.who, history(store, "canary")) == ("bob", [entry])


def test_only_existing_blessed_releases_are_promoted(store: ObjectStore, releases: list[str]) -> None:
    with pytest.raises(ReleaseError, match="There is no release ffffffffffff"):
        promote(store, "canary", "f" * 64, **ANN)
    with pytest.raises(
        ReleaseError, match=r"did not bless .* by force \(a test of the fire drill\); failing: beats pop"
    ):
        promote(store, "canary", releases[3], **ANN)
    with pytest.raises(ChannelError, match="Forcing a release into canary needs a reason"):
        promote(store, "canary", releases[3], who="ann", why=" ", force=True)
    assert history(store, "canary") == []
    assert promote(store, "canary", releases[3], **ANN, force=True).action == "force"
    assert promote(store, "canary", releases[0], **ANN, force=True).action == "promote"


@pytest.mark.parametrize("name", ["", "Production", "a/b", "..", "a b", "1st", "a" * 64])
def test_invalid_channel_names_are_refused(tmp_path: Path, name: str) -> None:
    for use in (head, history):
        with pytest.raises(ChannelError, match="cannot name a channel"):
            use(FolderStore(tmp_path), name)


def test_rollback_works_like_undo(store: ObjectStore, releases: list[str]) -> None:
    for release in releases[:3]:
        promote(store, "canary", release, **ANN)
    first = rollback(store, "canary", who="oncall", why="slow")
    second = rollback(store, "canary", who="oncall", why="still slow")

    assert (first.release, first.previous, first.action) == (releases[1], releases[2], "rollback")
    assert second.release == releases[0]
    with pytest.raises(ChannelError, match=f"no release before {releases[0][:12]} to roll back to"):
        rollback(store, "canary", who="oncall", why="what now")
    promote(store, "canary", releases[2], **ANN)
    assert rollback(store, "canary", who="oncall", why="again").release == releases[0]
    assert [entry.number for entry in history(store, "canary")] == [1, 2, 3, 4, 5, 6, 7]


def test_a_rollback_may_name_its_release(store: ObjectStore, releases: list[str]) -> None:
    for release in releases[:2]:
        promote(store, "canary", release, **ANN)
    with pytest.raises(ChannelError, match=f"never had release {releases[2][:12]}; promote it instead"):
        rollback(store, "canary", to=releases[2], who="oncall", why="x")
    undone = rollback(store, "canary", to=releases[0], who="oncall", why="x")
    assert rollback(store, "canary", to=releases[0], who="oncall", why="x") == undone
    forth = rollback(store, "canary", to=releases[1], who="oncall", why="it was not that")
    assert (forth.number, forth.release) == (4, releases[1])
    assert rollback(store, "canary", who="oncall", why="it was that").release == releases[0]


def test_nothing_to_roll_back(store: ObjectStore, releases: list[str]) -> None:
    with pytest.raises(ChannelError, match="canary is empty"):
        rollback(store, "canary", who="oncall", why="x")
    promote(store, "canary", releases[0], **ANN)
    with pytest.raises(ChannelError, match="no release before"):
        rollback(store, "canary", who="oncall", why="x")


def test_rollback_refuses_a_manifest_changed_after_promotion(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "registry")
    releases = [make_release(store, tmp_path, seed).release for seed in range(2)]
    for release in releases:
        promote(store, "canary", release, **ANN)
    path = tmp_path / "registry" / manifest_name(releases[0])
    path.chmod(0o644)
    path.write_text(path.read_text().replace("0.068", "0.999"))
    with pytest.raises(ReleaseError, match="was changed or written anew after it was promoted"):
        rollback(store, "canary", who="oncall", why="x")


@pytest.fixture
def log(tmp_path: Path) -> tuple[FolderStore, list[Path]]:
    """A channel of four entries in a folder, and its files."""
    store = FolderStore(tmp_path / "registry")
    releases = [make_release(store, tmp_path, seed).release for seed in range(2)]
    for number in range(4):
        promote(store, "canary", releases[number % 2], **ANN)
    files = [store.root / entry_name("canary", number) for number in range(1, 5)]
    for path in files:
        path.chmod(0o644)
    return store, files


def test_a_missing_entry_is_named(log: tuple[FolderStore, list[Path]]) -> None:
    store, files = log
    files[1].unlink()
    for use in (head, history):
        with pytest.raises(ChannelError, match=r"entry 2 is missing \(found channels/canary/00000003.json\)"):
            use(store, "canary")


def test_an_edited_entry_breaks_the_chain(log: tuple[FolderStore, list[Path]]) -> None:
    store, files = log
    files[1].write_text(files[1].read_text().replace("ann@shop", "bob@shop"))
    with pytest.raises(ChannelError, match="entry 3 does not follow from entry 2: one of them was changed"):
        history(store, "canary")
    files[2].write_text(files[2].read_text().replace("ann@shop", "bob@shop"))
    with pytest.raises(ChannelError, match="entry 4 does not follow from entry 3"):
        promote(store, "canary", head_release(files[0]), **ANN)


def test_entries_under_another_number_or_cut_short_are_refused(log: tuple[FolderStore, list[Path]]) -> None:
    store, files = log
    original = files[3].read_text()
    files[3].write_text(files[1].read_text())
    with pytest.raises(ChannelError, match=r"00000004.json says that it is entry 2"):
        head(store, "canary")
    files[3].write_text(original[:-30])
    with pytest.raises(ChannelError, match=r"00000004.json is not valid JSON"):
        head(store, "canary")
    files[3].write_text(original)
    first = json.loads(files[0].read_text())
    files[0].write_text(json.dumps(first | {"previous": "0" * 64}))
    with pytest.raises(ChannelError, match="entry 1 claims to follow another"):
        history(store, "canary")


def test_an_entry_survives_serialising(log: tuple[FolderStore, list[Path]]) -> None:
    store, files = log
    for entry, path in zip(read_log(store, "canary").entries, files, strict=True):
        assert entry.to_bytes() == path.read_bytes()
        assert Entry.from_bytes(path.read_bytes(), "x", ChannelError) == entry


def head_release(path: Path) -> str:
    """The release that an entry's file names."""
    return json.loads(path.read_text())["release"]
