"""Stores that are down, slow or full: requests are retried, then one sentence names the store."""

from __future__ import annotations

import multiprocessing
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from google.cloud.storage.retry import DEFAULT_RETRY

from common.digests import tree_files
from registry.channels.channel import promote
from registry.errors import StoreError
from registry.maintenance.verify import verify
from registry.releases.fetch import fetch_release
from registry.releases.release import list_releases, write_release
from registry.store.gcs import GcsStore
from registry.store.open import open_store
from tests.registry.bundles import make_bundle, make_evidence, make_release
from tests.registry.store.gcs_proxy import Answer, Fault, proxy

pytestmark = pytest.mark.integration
HASTY = DEFAULT_RETRY.with_delay(initial=0.01, maximum=0.05, multiplier=1.5).with_timeout(1)
fork = multiprocessing.get_context("fork")
Through = Callable[[str], GcsStore]


@pytest.fixture
def through(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Through:
    """A store that speaks to the bucket through a host of one's choice."""

    def connect(host: str) -> GcsStore:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", host)
        return GcsStore(f"gs://{bucket}/p", HASTY, timeout=0.3)  # connects at its first use

    return connect


def test_failed_requests_are_retried(gcs_server: str, through: Through, tmp_path: Path) -> None:
    n_requests: dict[str, int] = {}

    def stumble(method: str, path: str, answer: Answer) -> Answer:
        """Answer every kind of request well at the third time only."""
        n_requests[key] = n_requests.get(key := f"{method} {path}", 0) + 1
        return answer if n_requests[key] > 2 else (503, b"")

    with proxy(gcs_server, stumble) as host:
        store = through(host)
        release = make_release(store, tmp_path).release
        promote(store, "staging", release, who="ann", why="x")
        fetch_release(store, release, tmp_path / "out")
        assert verify(store).damage == []
    assert tree_files(tmp_path / "out") == tree_files(tmp_path / "bundle-0")


def test_a_slow_store_is_retried_and_finally_named(gcs_server: str, through: Through, tmp_path: Path) -> None:
    slow = [True]

    def wait(method: str, path: str, answer: Answer) -> Answer:
        time.sleep(0.6 if slow[0] and "alt=media" in path else 0)
        return answer

    with proxy(gcs_server, wait) as host:
        store = through(host)
        store.create("a/b", b"bytes")
        with pytest.raises(StoreError, match=f"{store.url}/a/b cannot be reached: .*(imed out|imeout)"):
            store.read("a/b")
        with pytest.raises(StoreError, match=f"{store.url}/a/b cannot be reached"):
            store.download_many([("a/b", tmp_path / "copy")])
        slow[0] = False
        assert store.read("a/b") == b"bytes"


def dying(after: int) -> Fault:
    """A server that fails after a number of requests."""
    remaining = [after]

    def fault(_method: str, _path: str, answer: Answer) -> Answer:
        remaining[0] -= 1
        return answer if remaining[0] >= 0 else (503, b"")

    return fault


def test_a_store_that_dies_during_a_write_is_named_and_a_rerun_completes(
    gcs_server: str, through: Through, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    evidence = make_evidence(tmp_path / "evidence", bundle)
    ended = False
    for after in range(1, 100, 9):
        with proxy(gcs_server, dying(after)) as host:
            store = through(host)
            try:
                write_release(store, bundle, evidence)
                ended = True
            except StoreError as error:
                assert f"{store.url}/" in str(error)
                assert "cannot be reached" in str(error)
        if ended:
            break
        # The release is absent, or complete if only the last answer was lost.
        assert verify(through(gcs_server)).damage == []
    store = through(gcs_server)
    fetch_release(store, write_release(store, bundle, evidence).release, tmp_path / "out")
    assert ended
    assert after > 10


def in_a_child(limit: int, work: Callable[[], object], answer: Path) -> None:
    """Do the work while no file can grow beyond the limit; write the error's sentence to a file."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        work()
    except StoreError as error:
        os.write(os.open(answer, os.O_WRONLY | os.O_CREAT), str(error).encode()[:limit])


def failed(limit: int, work: Callable[[], object], folder: Path) -> str:
    answer = folder / f"answer-{limit}"
    child = fork.Process(target=in_a_child, args=(limit, work, answer))
    child.start()
    child.join()
    assert child.exitcode == 0
    return answer.read_text()


@pytest.mark.parametrize("limit", [300, 1024, 1370])
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, limit: int) -> None:
    store = open_store(tmp_path / "registry")
    bundle = make_bundle(tmp_path / "bundle")
    evidence = make_evidence(tmp_path / "evidence", bundle)
    sentence = failed(limit, lambda: write_release(store, bundle, evidence), tmp_path)
    assert sentence.startswith(f"There is no room for {store.url}/blobs/")
    assert list_releases(store) == []
    assert all(store.sha256(name) == name[-64:] for name in store.list("blobs/"))
    assert list((tmp_path / "registry/.tmp").iterdir()) == []
    fetch_release(store, write_release(store, bundle, evidence).release, tmp_path / "out")


def test_a_disk_that_fills_while_fetching_is_named(url: str, tmp_path: Path) -> None:
    store = open_store(url)
    release = make_release(store, tmp_path).release
    sentence = failed(1000, lambda: fetch_release(store, release, tmp_path / "out"), tmp_path)
    assert sentence.startswith(f"There is no room for {tmp_path}/.out.")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*partial"))
    fetch_release(store, release, tmp_path / "out")


SMALL_DISK = """
mount -t tmpfs -o size=64k none "$1" || exit 77
"$2" - "$1" <<'END'
import sys
from pathlib import Path
from registry.errors import StoreError
from registry.store.open import open_store
disk = Path(sys.argv[1])
(disk / "model").write_bytes(b"m" * 30_000)
store = open_store(disk / "registry")
store.create("a/small", b"x")
try:
    store.upload_many({"a/model": disk / "model"})
except StoreError as error:
    print(error, store.list("a/"), list((disk / "registry/.tmp").iterdir()))
(disk / "model").write_bytes(b"m" * 20_000)
store.upload_many({"a/model": disk / "model"})
print(store.list("a/"))
END
"""


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """On a file system of 64 kB, in a mount namespace that needs no rights."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", SMALL_DISK, "-"]
    try:
        result = subprocess.run(
            [*command, str(tmp_path), sys.executable], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if result.returncode == 77 or "unshare" in result.stderr:
        pytest.skip("no user namespaces here")
    sentence, rerun = result.stdout.splitlines()
    assert sentence.startswith(
        f"There is no room for {tmp_path}/registry/a/model (No space left on device): "
    )
    assert sentence.endswith(" ['a/small'] []")
    assert rerun == "['a/model', 'a/small']"
