"""Real processes that race and die; real damage."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from itertools import pairwise
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from car_model.digests import tree_files
from registry.bundle import release_digest
from registry.channel import history, promote
from registry.errors import ConflictError, ReleaseError
from registry.fetch import fetch_evidence, fetch_release
from registry.layout import blob_name
from registry.manifest import Manifest
from registry.release import list_releases, write_release
from registry.store import ObjectStore, open_store
from tests.registry.bundles import make_bundle, make_evidence, make_release
from tests.registry.damage import Change

pytestmark = pytest.mark.integration
PROCESSES, ROUNDS = 8, 5
fork = multiprocessing.get_context("fork")


def race(url: str, releases: list[str], me: int, start: Barrier) -> None:
    """Promote once a round, at the same moment as all the others."""
    store = open_store(url)
    for number in range(ROUNDS):
        start.wait()
        mine = releases[(me + number) % len(releases)]
        try:
            promote(store, "production", mine, who=f"process {me}", why=f"round {number}", expected=number)
            start.wait()
        except ConflictError:
            start.wait()


def test_racing_promotions_have_one_winner_each(store: ObjectStore, url: str, tmp_path: Path) -> None:
    releases = [make_release(store, tmp_path, seed).release for seed in range(3)]
    start = fork.Barrier(PROCESSES, timeout=60)
    racers = [fork.Process(target=race, args=(url, releases, me, start)) for me in range(PROCESSES)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()

    assert [racer.exitcode for racer in racers] == [0] * PROCESSES
    log = history(store, "production")
    assert [(entry.number, entry.why) for entry in log] == [(n + 1, f"round {n}") for n in range(ROUNDS)]
    assert all(one.release != two.release for one, two in pairwise(log))


def write_and_die(url: str, bundle: Path, evidence: dict[str, Path], point: int) -> None:
    """Write a release, but be killed just before the given change to a file or message to a server."""
    store, left = open_store(url), point

    def count(event: str, args: tuple[object, ...]) -> None:
        nonlocal left
        if changes_something(event, args, url):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    write_release(store, bundle, evidence)


def changes_something(event: str, args: tuple[object, ...], url: str) -> bool:
    """Whether an audit event is one step of a write."""
    if event == "open":
        return str(args[0]).startswith(url) and bool(int(args[2] or 0) & (os.O_WRONLY | os.O_CREAT))
    if event in ("os.mkdir", "os.link", "os.remove"):
        return str(args[0]).startswith(url)
    return event == "http.client.send"


def test_a_release_killed_anywhere_is_whole_or_absent(url: str, tmp_path: Path) -> None:
    bundle, digest = make_bundle(tmp_path / "bundle"), release_digest(tmp_path / "bundle")
    evidence = make_evidence(tmp_path / "evidence")
    rerun = make_evidence(tmp_path / "rerun", note="another time")
    states = []
    for point in range(1, 500):
        place = f"{url}/{point}"
        child = fork.Process(target=write_and_die, args=(place, bundle, evidence, point))
        child.start()
        child.join()
        assert child.exitcode in (0, -signal.SIGKILL)
        states.append(reader_sees(place, digest, tmp_path / f"early-{point}"))
        if child.exitcode == 0:
            break
        finished = write_release(open_store(place), bundle, rerun)
        fetch_release(open_store(place), digest, tmp_path / f"late-{point}")
        assert tree_files(tmp_path / f"late-{point}") == tree_files(bundle)
        fetch_evidence(open_store(place), finished, "report.html", tmp_path / "report.html")
    # Long absent, then whole: the change happens once, near the end.
    assert states == sorted(states)
    assert states[-1]
    assert states.count(False) > 20


def reader_sees(url: str, digest: str, target: Path) -> bool:
    """Whether a reader finds the release; if so it is complete, and if not there is no trace of it."""
    store = open_store(url)
    if not list_releases(store):
        with pytest.raises(ReleaseError, match="There is no release"):
            fetch_release(store, digest, target)
        return False
    manifest = fetch_release(store, digest, target)
    for name in manifest.evidence:
        fetch_evidence(store, manifest, name, target.with_name("fetched-evidence"))
    return True


def test_a_flipped_bit_in_any_file_is_found_and_named(
    store: ObjectStore, url: str, tmp_path: Path, flip: Change
) -> None:
    release = make_release(store, tmp_path)
    for path in release.files:
        name = blob_name(release.files[path].sha256)
        flip(url, name)
        sentence = f"{path} of release .* is damaged: .*/{name} has .* the manifest says"
        with pytest.raises(ReleaseError, match=sentence):
            fetch_release(store, release.release, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        flip(url, name)
    flip_evidence(store, url, release, tmp_path, flip)
    fetch_release(store, release.release, tmp_path / "out")
    assert not list(tmp_path.glob(".*partial"))


def flip_evidence(store: ObjectStore, url: str, release: Manifest, folder: Path, flip: Change) -> None:
    """Damage the report and see it refused."""
    name = blob_name(release.evidence["report.html"].sha256)
    flip(url, name)
    (folder / "report.html").write_text("an older report")
    with pytest.raises(ReleaseError, match=r"report.html of release .* is damaged"):
        fetch_evidence(store, release, "report.html", folder / "report.html")
    assert (folder / "report.html").read_text() == "an older report"


def test_two_fetches_into_one_folder_agree(store: ObjectStore, url: str, tmp_path: Path) -> None:
    release = make_release(store, tmp_path).release
    fetchers = [
        fork.Process(target=fetch_release, args=(open_store(url), release, tmp_path / "out"))
        for _ in range(4)
    ]
    for fetcher in fetchers:
        fetcher.start()
    for fetcher in fetchers:
        fetcher.join()
    assert [fetcher.exitcode for fetcher in fetchers] == [0] * 4
    assert release_digest(tmp_path / "out") == release
    assert not list(tmp_path.glob(".*partial"))
