"""Processes that race or are killed, and damaged files."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import time
from contextlib import suppress
from itertools import pairwise
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import pytest

from common.digests import tree_files
from registry.channels.channel import history, promote
from registry.errors import ConflictError, ReleaseError
from registry.releases.bundle_files import release_digest
from registry.releases.fetch import FetchedRelease, fetch_release
from registry.releases.layout import blob_name
from registry.releases.release import list_releases, write_release
from registry.store.base import ObjectStore
from registry.store.open import open_store
from tests.registry.bundles import make_bundle, make_evidence, make_release
from tests.registry.damage import Change

pytestmark = pytest.mark.integration
PROCESSES, ROUNDS = 16, 50
BUDGET_S = 20.0  # an API server takes as many rounds as fit
fork = multiprocessing.get_context("fork")


def race(url: str, releases: list[str], rank: int, signals: tuple[Barrier, Event], wins: Path) -> None:
    """Promote once a round, at the same moment as all the others; note the rounds that were won."""
    (start, stop), store, deadline = signals, open_store(url), time.monotonic() + BUDGET_S
    for number in range(ROUNDS):
        if rank == 0 and url.startswith("gs://") and time.monotonic() > deadline:
            stop.set()
        start.wait()
        if stop.is_set():
            return
        release = releases[(rank + number) % len(releases)]
        with suppress(ConflictError):
            who = f"process {rank}"
            entry = promote(store, "canary", release, who=who, why=f"round {number}", expected=number)
            if entry.who == who:  # else a rival brought the same release
                (wins / f"{number}-{who}").touch()
        start.wait()


def test_of_racing_promotions_exactly_one_succeeds(store: ObjectStore, url: str, tmp_path: Path) -> None:
    releases = [make_release(store, tmp_path, seed).release for seed in range(3)]
    start, stop = fork.Barrier(PROCESSES, timeout=120), fork.Event()
    wins = tmp_path / "wins"
    wins.mkdir()
    racers = [
        fork.Process(target=race, args=(url, releases, rank, (start, stop), wins))
        for rank in range(PROCESSES)
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()

    assert [racer.exitcode for racer in racers] == [0] * PROCESSES
    log = history(store, "canary")
    assert [(entry.number, entry.why) for entry in log] == [(n + 1, f"round {n}") for n in range(len(log))]
    assert all(item.release != after.release for item, after in pairwise(log))
    assert {path.name for path in wins.iterdir()} == {f"{item.number - 1}-{item.who}" for item in log}
    assert len(log) == ROUNDS or stop.is_set()
    assert len(log) > 1


def write_and_die(url: str, bundle: Path, evidence: dict[str, Path], point: int) -> None:
    """Write a release, killed just before the given change to a file or within a message to a server."""
    store, remaining = open_store(url), point

    def count(event: str, args: tuple[object, ...]) -> None:
        nonlocal remaining
        if changes_something(event, args, url):
            remaining -= 1
            if remaining == 0:
                send_half(event, args)
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    write_release(store, bundle, evidence)


def send_half(event: str, args: tuple[object, ...]) -> None:
    """Let the server have the first half of a message."""
    if event == "http.client.send" and isinstance(args[1], bytes):
        args[0].sock.sendall(args[1][: len(args[1]) // 2])  # type: ignore[attr-defined]


def changes_something(event: str, args: tuple[object, ...], url: str) -> bool:
    """Whether an audit event is one step of a write."""
    if event == "open":
        return str(args[0]).startswith(url) and bool(int(args[2] or 0) & (os.O_WRONLY | os.O_CREAT))
    if event in ("os.mkdir", "os.link", "os.remove"):
        return str(args[0]).startswith(url)
    return event == "http.client.send"


def test_a_release_killed_at_any_step_is_complete_or_absent(url: str, tmp_path: Path) -> None:
    bundle, digest = make_bundle(tmp_path / "bundle"), release_digest(tmp_path / "bundle")
    evidence = make_evidence(tmp_path / "evidence", tmp_path / "bundle")
    rerun = make_evidence(tmp_path / "rerun", tmp_path / "bundle", note="another time")
    states = []
    for point in range(1, 500, 3 if url.startswith("gs://") else 1):
        registry = f"{url}/{point}"
        child = fork.Process(target=write_and_die, args=(registry, bundle, evidence, point))
        child.start()
        child.join()
        assert child.exitcode in (0, -signal.SIGKILL)
        store = open_store(registry)
        states.append(reader_sees(store, digest, tmp_path / f"early-{point}"))
        if child.exitcode == 0:
            break
        finished = write_release(store, bundle, rerun)
        fetch_release(store, digest, tmp_path / f"late-{point}")
        assert tree_files(tmp_path / f"late-{point}") == tree_files(bundle)
        FetchedRelease(store, finished).fetch_evidence("report.html", tmp_path / "report.html")
    # Long absent, then whole: the change happens once, near the end.
    assert states == sorted(states)
    assert states[-1]
    assert states.count(False) > 20


def write_within(url: str, bundle: Path, evidence: dict[str, Path], limit: int) -> None:
    """Write a release, but be killed by the kernel as soon as a file grows beyond the limit."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it otherwise
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    write_release(open_store(url), bundle, evidence)


def test_a_release_killed_in_the_middle_of_a_file_is_absent(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    evidence = make_evidence(tmp_path / "evidence", bundle)
    digest = release_digest(bundle)
    sizes = [path.stat().st_size for path in (*bundle.rglob("*.*"), *evidence.values())]
    for limit in {0, max(sizes) - 1, *(size // 2 for size in sizes)}:
        url = str(tmp_path / f"registry-{limit}")
        child = fork.Process(target=write_within, args=(url, bundle, evidence, limit))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGXFSZ
        store = open_store(url)
        assert not reader_sees(store, digest, tmp_path / f"early-{limit}")
        # Nothing cut stands under a name.
        assert all(store.sha256(name) == name[-64:] for name in store.list("blobs/"))
        write_release(store, bundle, evidence)
        assert reader_sees(store, digest, tmp_path / f"late-{limit}")


def reader_sees(store: ObjectStore, digest: str, target: Path) -> bool:
    """Whether a reader finds the release; if so it is complete, and if not there is no trace of it."""
    if not list_releases(store):
        with pytest.raises(ReleaseError, match="There is no release"):
            fetch_release(store, digest, target)
        return False
    manifest = fetch_release(store, digest, target)
    for name in manifest.evidence:
        FetchedRelease(store, manifest).fetch_evidence(name, target.with_name("fetched-evidence"))
    return True


def test_a_flipped_bit_in_any_file_is_detected(
    store: ObjectStore, url: str, tmp_path: Path, flip: Change
) -> None:
    release = make_release(store, tmp_path)
    for path, stored in release.files.items():
        name = blob_name(stored.sha256)
        flip(url, name)
        sentence = f"{path} of release .* is damaged: .*/{name} has .* the manifest says"
        with pytest.raises(ReleaseError, match=sentence):
            fetch_release(store, release.release, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        flip(url, name)
    for path, stored in release.evidence.items():
        flip(url, blob_name(stored.sha256))
        (tmp_path / path).write_text("an older one")
        with pytest.raises(ReleaseError, match=f"{path} of release .* is damaged"):
            FetchedRelease(store, release).fetch_evidence(path, tmp_path / path)
        assert (tmp_path / path).read_text() == "an older one"
    fetch_release(store, release.release, tmp_path / "out")
    assert not list(tmp_path.glob(".*partial"))


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
