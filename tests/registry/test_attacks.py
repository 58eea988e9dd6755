"""Somebody may write a part of the registry, and wants more: their code run, or their release in use.

First with `blobs/` and `releases/` only, then with `channels/` only.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry.channels.channel import head, history, promote, rollback, stage
from registry.channels.log import Entry
from registry.errors import ChannelError, RegistryError, ReleaseError
from registry.maintenance.verify import verify
from registry.releases.fetch import FetchedRelease
from registry.releases.gate import read_gate
from registry.releases.layout import blob_name, entry_name, manifest_name
from registry.releases.manifest import Manifest
from registry.releases.release import read_manifest
from registry.store.folder import FolderStore
from tests.registry.bundles import make_bundle, make_evidence, make_release

ANN = {"who": "ann@shop", "why": "a reason"}


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "registry")


def overwrite(store: FolderStore, name: str, data: bytes) -> None:
    """Write an object as somebody with rights to its folder can."""
    path = store.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def put_blob(store: FolderStore, data: bytes) -> dict[str, Any]:
    """Store a file's bytes; its record for a manifest."""
    digest = hashlib.sha256(data).hexdigest()
    overwrite(store, blob_name(digest), data)
    return {"sha256": digest, "size": len(data)}


def edit_manifest(store: FolderStore, release: str, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit a release's manifest."""
    content = json.loads(store.read(manifest_name(release)))
    edit(content)
    overwrite(store, manifest_name(release), json.dumps(content).encode())


# With rights on blobs/ and releases/


def test_an_archive_in_a_staged_manifest_reaches_nobody(store: FolderStore, tmp_path: Path) -> None:
    release = make_release(store, tmp_path).release
    stage(store, release, **ANN)
    archive, report = put_blob(store, b"PK, with a handler"), put_blob(store, b'{"archive_sha256": "x"}')
    edit_manifest(store, release, lambda content: content["evidence"].update({"car.mar": archive}))
    with pytest.raises(ReleaseError, match=r"car\.mar may not be in a release"):
        promote(store, "production", release, **ANN)
    edit_manifest(store, release, lambda content: content["evidence"].pop("car.mar"))
    edit_manifest(store, release, lambda content: content["evidence"].update({"infra.json": report}))
    with pytest.raises(ReleaseError, match="never in staging with the manifest that it has now"):
        promote(store, "production", release, **ANN)
    assert head(store, "production") is None


def test_a_manifest_edited_after_its_promotion_is_not_deployed(store: FolderStore, tmp_path: Path) -> None:
    release = make_release(store, tmp_path).release
    stage(store, release, **ANN)
    entry = promote(store, "production", release, **ANN)
    golden = put_blob(store, b'{"requests": [], "answers": []}')
    edit_manifest(store, release, lambda content: content["evidence"].update({"golden.json": golden}))
    with pytest.raises(ReleaseError, match="was changed or written anew after it was promoted"):
        FetchedRelease.read(store, entry.release, entry.manifest_sha256)


@pytest.mark.parametrize("created", ["2000-01-01T00:00:00+00:00", "2999-01-01T00:00:00+00:00"])
def test_no_time_silences_verify(store: FolderStore, tmp_path: Path, created: str) -> None:
    release = make_release(store, tmp_path).release
    stage(store, release, **ANN)
    edit_manifest(store, release, lambda content: content.update(created=created))
    sentence = "was changed after it was promoted, and staging will not deploy it"
    assert [sentence in damage.what for damage in verify(store).damage] == [True]
    assert [sentence in damage.what for damage in verify(store, release).damage] == [True]


def test_the_way_out_of_a_changed_manifest_is_to_promote_it_again(store: FolderStore, tmp_path: Path) -> None:
    releases = [make_release(store, tmp_path, seed).release for seed in range(2)]
    for release in releases:
        stage(store, release, **ANN)
        promote(store, "production", release, **ANN)
    edit_manifest(store, releases[1], lambda content: content.update(run_id="somebody else's"))
    for channel in ("staging", "production"):
        entry = promote(store, channel, releases[1], who="ann", why="I looked at it")
        assert (entry.number, entry.previous) == (3, releases[1])
        assert read_manifest(store, releases[1], entry.manifest_sha256).run_id == "somebody else's"
    assert verify(store).damage == []
    # To the release before, not to the manifest before.
    assert rollback(store, "production", **ANN).release == releases[0]


def test_a_pipeline_stages_a_changed_manifest_again(store: FolderStore, tmp_path: Path) -> None:
    release = make_release(store, tmp_path).release
    first = stage(store, release, **ANN)
    edit_manifest(store, release, lambda content: content.update(run_id="again"))
    second = stage(store, release, **ANN)
    assert (second.number, second.release) == (2, release)
    assert second.manifest_sha256 != first.manifest_sha256


def verdict_of(folder: Path, seed: int, **options: Any) -> bytes:
    """The bytes of a verdict on the bundle of a seed."""
    bundle = make_bundle(folder / f"judged-{seed}", seed)
    return make_evidence(folder / f"verdict-{seed}", bundle, **options)["verdict.json"].read_bytes()


FORGERIES: dict[str, Callable[[Path, bytes], bytes | None]] = {
    "judges another release": lambda folder, own: verdict_of(folder, 5),
    "contradicts the conditions": lambda folder, own: own.replace(b'"blessed": false', b'"blessed": true'),
    "the name 'blessed' is given 2 times": lambda folder, own: own.replace(b"{", b'{"blessed": true, ', 1),
    "is waived although": lambda folder, own: own.replace(b'"fail"', b'"waived"').replace(
        b"false", b"true", 1
    ),
    "no document has more than": lambda folder, own: b"{" + b" " * (17 << 20) + own[1:],
    "is not valid JSON": lambda folder, own: b"[" * 100_000,
    "there is no verdict.json": lambda folder, own: None,
}


@pytest.mark.parametrize("sentence", FORGERIES)
def test_a_blessing_is_not_edited_in(store: FolderStore, tmp_path: Path, sentence: str) -> None:
    release = make_release(store, tmp_path, blessed=False)
    forged = FORGERIES[sentence](tmp_path, store.read(blob_name(release.evidence["verdict.json"].sha256)))

    def edit(content: dict[str, Any]) -> None:
        del content["evidence"]["verdict.json"]
        if forged is not None:
            content["evidence"]["verdict.json"] = put_blob(store, forged)

    edit_manifest(store, release.release, edit)
    for channel in ("staging", "canary"):
        with pytest.raises(ReleaseError, match=f"did not bless .*{sentence}"):
            promote(store, channel, release.release, **ANN)
    assert history(store, "staging") == history(store, "canary") == []


def test_a_damaged_verdict_blesses_nothing(store: FolderStore, tmp_path: Path) -> None:
    release = make_release(store, tmp_path)
    name = blob_name(release.evidence["verdict.json"].sha256)
    overwrite(store, name, verdict_of(tmp_path, 5))
    with pytest.raises(ReleaseError, match=f"{name} is damaged"):
        promote(store, "staging", release.release, **ANN)
    (store.root / name).unlink()
    with pytest.raises(ReleaseError, match=f"There is no {name}"):
        promote(store, "staging", release.release, **ANN)


def test_a_first_release_of_elsewhere_replaces_no_champion(store: FolderStore, tmp_path: Path) -> None:
    champion = make_release(store, tmp_path, 1).release
    foreign = make_release(store, tmp_path, 2, bootstrap=True).release
    for release in (champion, foreign):
        stage(store, release, **ANN)
    promote(store, "production", champion, **ANN)
    sentence = f"blessed as a first release, and never compared with {champion[:12]}, which production uses"
    with pytest.raises(ReleaseError, match=sentence):
        promote(store, "production", foreign, **ANN)
    assert promote(store, "canary", foreign, **ANN).action == "promote"  # the first there
    assert promote(store, "production", foreign, **ANN, force=True).action == "force"


def test_descendants_of_a_first_release_follow_it_only(store: FolderStore, tmp_path: Path) -> None:
    """Items added to a first release: compared with it, and with nothing else."""
    first = make_release(store, tmp_path, 1, bootstrap=True).release
    child = make_release(store, tmp_path, 2, bootstrap=True, parent=first).release
    grandchild = make_release(store, tmp_path, 3, bootstrap=True, parent=child).release
    for release in (first, child, grandchild):
        stage(store, release, **ANN)
    promote(store, "production", first, **ANN)
    assert promote(store, "production", grandchild, **ANN).action == "promote"
    with pytest.raises(ReleaseError, match="never compared"):
        promote(store, "production", child, **ANN)
    # Manifests that name each other as parents end nowhere, instead of never.
    other = make_release(store, tmp_path, 4).release
    stage(store, other, **ANN)
    promote(store, "production", other, **ANN)
    edit_manifest(store, first, lambda content: content.update(parent=grandchild))
    with pytest.raises(ReleaseError, match="never compared"):
        promote(store, "production", child, **ANN)


def test_files_of_absurd_size_are_not_read_whole(store: FolderStore, tmp_path: Path) -> None:
    release = make_release(store, tmp_path).release
    stage(store, release, **ANN)
    for name in (manifest_name(release), entry_name("staging", 1)):
        overwrite(store, name, b"")
        os.truncate(store.root / name, 1 << 40)  # sparse: no machine here could read it
    with pytest.raises(ReleaseError, match="no document has more than 16777216 bytes"):
        read_manifest(store, release)
    with pytest.raises(ChannelError, match="no document has more than 16777216 bytes"):
        head(store, "staging")


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_what_is_no_file_is_named(store: FolderStore, tmp_path: Path, kind: str) -> None:
    release = make_release(store, tmp_path).release
    path = store.root / manifest_name(release)
    path.unlink()
    {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "link": lambda: path.symlink_to("/dev/zero")}[
        kind
    ]()
    with pytest.raises(ReleaseError, match="is no file"):
        read_manifest(store, release)


# With rights on channels/ only


def forge_entry(store: FolderStore, channel: str, promoted: str, **changes: Any) -> None:
    """Append an entry that is linked rightly."""
    entries = history(store, channel)
    last = store.read(entry_name(channel, len(entries))) if entries else b""
    entry = Entry(
        number=len(entries) + 1,
        action="promote",
        release=promoted,
        manifest_sha256=hashlib.sha256(store.read(manifest_name(promoted))).hexdigest(),
        previous=entries[-1].release if entries else None,
        who="ann@shop",
        when="2026-01-01T00:00:00+00:00",
        why="a reason",
        after=hashlib.sha256(last).hexdigest() if entries else None,
        nonce="n",
    ).model_dump(mode="json")
    overwrite(store, entry_name(channel, len(entries) + 1), json.dumps(entry | changes).encode())


def test_an_entry_that_promotes_an_unblessed_release_is_noticed(store: FolderStore, tmp_path: Path) -> None:
    release = make_release(store, tmp_path, blessed=False).release
    forge_entry(store, "production", release)
    (damage,) = verify(store).damage
    assert "was promoted without force, but is not blessed (beats popularity)" in damage.what


def test_an_entry_cannot_bring_a_manifest_along(store: FolderStore, tmp_path: Path) -> None:
    release = make_release(store, tmp_path).release
    forge_entry(store, "production", release, manifest_sha256="0" * 64)
    entry = head(store, "production")
    assert entry
    with pytest.raises(ReleaseError, match="was changed or written anew"):
        FetchedRelease.read(store, entry.release, entry.manifest_sha256)
    assert "production will not deploy it" in verify(store).damage[0].what


@pytest.mark.parametrize(
    "changes",
    [
        {"after": "0" * 64},
        {"previous": "0" * 64},
        {"number": 7},
        {"release": "../../etc/passwd"},
        {"action": "bless"},
        {"who": ""},
        {"extra": 1},
    ],
)
def test_an_entry_that_does_not_follow_is_refused(
    store: FolderStore, tmp_path: Path, changes: dict[str, Any]
) -> None:
    release = make_release(store, tmp_path).release
    promote(store, "canary", release, **ANN)
    forge_entry(store, "canary", release, **changes)
    for use in (head, history):
        with pytest.raises(ChannelError):
            use(store, "canary")


def test_an_entry_with_a_key_given_twice_is_refused(store: FolderStore, tmp_path: Path) -> None:
    release = make_release(store, tmp_path).release
    promote(store, "canary", release, **ANN)
    data = store.read(entry_name("canary", 1)).replace(b"{", b'{"action": "force", ', 1)
    overwrite(store, entry_name("canary", 1), data)
    with pytest.raises(RegistryError, match="the name 'action' is given 2 times"):
        head(store, "canary")


def test_the_gate_is_read_from_the_verdict_alone(store: FolderStore, tmp_path: Path) -> None:
    manifest = make_release(store, tmp_path)
    gate = read_gate(store, manifest)
    assert (gate.blessed, gate.compared, gate.policy, gate.holdout) == (True, True, "9" * 64, "8" * 64)
    assert "gate" not in Manifest.model_fields
