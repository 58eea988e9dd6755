"""Cloud failures: lost answers, damage in transit, missing buckets and credentials."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from google.cloud.storage.retry import DEFAULT_RETRY

from registry.errors import ObjectExists, StoreError
from registry.store.gcs import GcsStore
from tests.registry.store.gcs_proxy import Answer, Fault, proxy

pytestmark = pytest.mark.integration
HASTY = DEFAULT_RETRY.with_delay(initial=0.01, maximum=0.05, multiplier=1.5).with_timeout(1)


def lose_answers(count: int) -> Fault:
    """Let uploads reach the server, but answer the first ones with 503."""
    failures = iter(range(count))

    def fault(method: str, _: str, answer: Answer) -> Answer:
        return (503, b"") if method == "POST" and next(failures, None) is not None else answer

    return fault


def test_a_create_whose_answer_was_lost_succeeds_on_retry(
    gcs_server: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"weights")
    with proxy(gcs_server, lose_answers(2)) as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        GcsStore(f"gs://{bucket}", HASTY).create("log/1", b"mine")
    with proxy(gcs_server, lose_answers(2)) as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        GcsStore(f"gs://{bucket}", HASTY).upload_many({"files/1": tmp_path / "file"})
    with proxy(gcs_server, lose_answers(2)) as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        with pytest.raises(ObjectExists):
            GcsStore(f"gs://{bucket}", HASTY).create("log/1", b"theirs")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server)
    store = GcsStore(f"gs://{bucket}")
    assert (store.read("log/1"), store.read("files/1")) == (b"mine", b"weights")


def test_a_large_file_is_uploaded_resumably_and_only_once(
    gcs_server: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "large").write_bytes(os.urandom(9 << 20))
    seen: list[str] = []

    def watch(method: str, path: str, answer: Answer) -> Answer:
        seen.append(f"{method} {path}")
        return answer

    with proxy(gcs_server, watch) as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        store = GcsStore(f"gs://{bucket}/x", HASTY)
        store.upload_many({"large": tmp_path / "large"})
        assert any("uploadType=resumable" in first for first in seen)
        seen.clear()
        store.upload_many({"large": tmp_path / "large"})
        assert not [first for first in seen if "/upload/" in first]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server)
    GcsStore(f"gs://{bucket}/x").download_many([("large", tmp_path / "copy")])
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "large").read_bytes()


def test_a_byte_flipped_in_transit_is_detected(
    gcs_server: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flip(_: str, path: str, answer: Answer) -> Answer:
        status, body = answer
        return (status, bytes([body[0] ^ 1]) + body[1:]) if "alt=media" in path else answer

    GcsStore(f"gs://{bucket}").create("a/b", b"some bytes")
    with proxy(gcs_server, flip) as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        store = GcsStore(f"gs://{bucket}", HASTY)
        with pytest.raises(StoreError, match="a/b was damaged"):
            store.read("a/b")
        with pytest.raises(StoreError, match="a/b was damaged"):
            store.download_many([("a/b", tmp_path / "target")])


def test_a_missing_bucket_is_named(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    store = GcsStore("gs://no-such-bucket/prefix", HASTY)
    uses = [
        lambda: store.read("a"),
        lambda: store.create("a", b"x"),
        lambda: store.list("a/"),
        lambda: store.download_many([("a", tmp_path / "target")]),
        lambda: store.upload_many({"a": tmp_path / "file"}),
    ]
    for use in uses:
        with pytest.raises(StoreError, match="There is no bucket 'no-such-bucket'; create it first"):
            use()


def test_a_prefix_shares_the_bucket_with_others(bucket: str) -> None:
    first, second = GcsStore(f"gs://{bucket}/a"), GcsStore(f"gs://{bucket}/ab")
    first.create("x/1", b"one")
    second.create("x/2", b"other")
    assert (first.list("x/"), second.list("x/")) == (["x/1"], ["x/2"])
    assert GcsStore(f"gs://{bucket}").list("a/") == ["a/x/1"]


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (403, "These credentials may not use gs://.*/p/a"),
        (401, "No valid Google Cloud credentials for gs://.*/p"),
        (503, "gs://.*/p/a/? cannot be reached"),
    ],
)
def test_refusals_and_outages_give_one_sentence(
    gcs_server: str, bucket: str, monkeypatch: pytest.MonkeyPatch, status: int, sentence: str
) -> None:
    with proxy(gcs_server, lambda *_: (status, b"")) as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        store = GcsStore(f"gs://{bucket}/p", HASTY)
        for use in (lambda: store.read("a"), lambda: store.create("a", b"x"), lambda: store.list("a/")):
            with pytest.raises(StoreError, match=sentence):
                use()


def test_an_unreachable_server_gives_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match="gs://bucket/a cannot be reached"):
        GcsStore("gs://bucket", HASTY).read("a")


def test_missing_credentials_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(StoreError, match="gcloud auth application-default login"):
        GcsStore("gs://bucket").read("a")


class Overtaken(GcsStore):
    """A store in which a rival writes an object after it was found absent."""

    rival: bytes

    def _mark_if_equal(self, name: str, source: Path) -> bool:
        exists = super()._mark_if_equal(name, source)
        GcsStore(self.url).create(name, self.rival)
        return exists


def test_an_upload_overwrites_nothing_when_a_rival_is_faster(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    store = Overtaken(f"gs://{bucket}", HASTY)
    store.rival = b"mine"
    store.upload_many({"a/same": tmp_path / "file"})
    store.rival = b"else"
    with pytest.raises(ObjectExists, match="a/other already exists with other content"):
        store.upload_many({"a/other": tmp_path / "file"})
    assert (store.read("a/same"), store.read("a/other")) == (b"mine", b"else")
