"""Writing releases and reading them back, on every store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from common.digests import file_digest, tree_files
from common.errors import UserError
from registry.errors import ReleaseError, StoreError
from registry.releases.bundle_files import release_digest
from registry.releases.fetch import FetchedRelease, fetch_release
from registry.releases.gate import read_gate
from registry.releases.layout import BLOBS, RELEASES, blob_name, manifest_name
from registry.releases.release import find_release, list_releases, read_manifest, write_release
from registry.store.base import ObjectStore
from registry.store.folder import FolderStore
from tests.registry.bundles import make_bundle, make_condition, make_evidence, make_release, write_json


def test_a_release_is_read_as_it_was_written(store: ObjectStore, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    evidence = make_evidence(tmp_path / "evidence", bundle)
    written = write_release(store, bundle, evidence, git_commit="abc123", run_id="run-1")

    assert written.release == release_digest(bundle)
    assert written.metrics == {"recall@10": 0.131, "ndcg@10": 0.068}
    assert read_manifest(store, written.release) == written
    fetched = fetch_release(store, written.release, tmp_path / "out" / "served")
    assert fetched == written
    assert tree_files(tmp_path / "out" / "served") == tree_files(bundle)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["served"]
    report = FetchedRelease(store, written).fetch_evidence("report.html", tmp_path / "report.html")
    assert report.read_bytes() == evidence["report.html"].read_bytes()


def test_equal_content_gives_the_same_release(store: ObjectStore, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "a")
    first = write_release(store, bundle, make_evidence(tmp_path / "e1", bundle), run_id="monday")
    again = make_evidence(tmp_path / "e2", bundle, note="another day, another latency")
    second = write_release(store, make_bundle(tmp_path / "b"), again, run_id="tuesday")

    assert second == first
    assert [release.release for release in list_releases(store)] == [first.release]
    assert store.exists(blob_name(first.evidence["report.html"].sha256))


def test_a_parent_is_recorded_and_must_exist(store: ObjectStore, tmp_path: Path) -> None:
    parent = make_release(store, tmp_path, seed=1)
    child = make_release(store, tmp_path, seed=2, parent=parent.release)

    assert child.parent == parent.release
    assert {release.release for release in list_releases(store)} == {parent.release, child.release}
    with pytest.raises(ReleaseError, match="There is no release ffffffffffff"):
        make_release(store, tmp_path, seed=3, parent="f" * 64)


def test_leftovers_of_an_interrupted_run_do_not_block_the_next(store: ObjectStore, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    digest = release_digest(bundle)
    catalogue = bundle / "catalogue.parquet"
    store.upload_many({blob_name(file_digest(catalogue)): catalogue})
    store.create(blob_name("0" * 64), b"a report from the killed run")

    assert list_releases(store) == []
    with pytest.raises(ReleaseError, match="There is no release"):
        fetch_release(store, digest, tmp_path / "out")
    with pytest.raises(ReleaseError, match="There is no release"):
        find_release(store, digest[:8])
    write_release(store, bundle, make_evidence(tmp_path / "evidence", bundle))
    fetch_release(store, digest, tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"blessed": False}, r"\(churn\)"),
        ({}, "'blessed' contradicts the conditions"),
        ({"blessed": "yes"}, "'blessed' is 'yes'"),
        ({"conditions": []}, "'conditions': tuple should have at least 1 item"),
        ({"conditions": None}, "'conditions' is None"),
    ],
)
def test_without_a_clear_verdict_there_is_no_release(
    tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    evidence = make_evidence(tmp_path / "evidence", make_bundle(tmp_path / "bundle"))
    verdict = json.loads(evidence["verdict.json"].read_text())
    verdict["conditions"] = [make_condition("churn", verdict="fail").model_dump()]
    write_json(evidence["verdict.json"], verdict | changes)
    require_force(tmp_path, evidence, sentence)


def test_without_a_verdict_there_is_no_release(tmp_path: Path) -> None:
    evidence = make_evidence(tmp_path / "evidence", make_bundle(tmp_path / "bundle"))
    write_json(evidence["verdict.json"], [])
    require_force(tmp_path, evidence, "verdict.json must hold a JSON object")
    del evidence["verdict.json"]
    shutil.rmtree(tmp_path / "registry")
    require_force(tmp_path, evidence, r"\(there is no verdict.json\)")


def require_force(folder: Path, evidence: dict[str, Path], sentence: str) -> None:
    """Check that a release with this evidence is refused, and written only if it is forced."""
    store, bundle = FolderStore(folder / "registry"), make_bundle(folder / "bundle")
    with pytest.raises(ReleaseError, match=sentence):
        write_release(store, bundle, evidence)
    with pytest.raises(ReleaseError, match=sentence):
        write_release(store, bundle, evidence, force="  ")
    assert not store.root.exists()
    forced = write_release(store, bundle, evidence, force="the shop is down")
    gate = read_gate(store, forced)
    assert (gate.blessed, forced.forced) == (False, "the shop is down")
    assert gate.failing


def test_a_warning_does_not_block_and_bootstrap_is_recorded(store: ObjectStore, tmp_path: Path) -> None:
    evidence = make_evidence(tmp_path / "evidence", make_bundle(tmp_path / "bundle"), bootstrap=True)
    verdict = json.loads(evidence["verdict.json"].read_text())
    verdict["conditions"].append(make_condition("sasrec", severity="warn", verdict="fail").model_dump())
    write_json(evidence["verdict.json"], verdict)

    gate = read_gate(store, write_release(store, tmp_path / "bundle", evidence))

    assert (gate.blessed, gate.compared, gate.failing) == (True, False, ())


def test_short_digests_must_be_unambiguous(store: ObjectStore, tmp_path: Path) -> None:
    releases = [make_release(store, tmp_path, seed=seed).release for seed in range(3)]

    assert find_release(store, releases[0][:10]) == releases[0]
    assert find_release(store, releases[0].upper()) == releases[0]
    with pytest.raises(ReleaseError, match="too short"):
        find_release(store, releases[0][:3])
    with pytest.raises(ReleaseError, match="There is no release 0123abcd"):
        find_release(store, "0123abcd")


def test_an_ambiguous_prefix_lists_its_matches(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    for ending in "12":
        store.create(manifest_name("abcd" + ending * 60), b"{}")
    with pytest.raises(ReleaseError, match=r"abcd fits 2 releases .abcd111111111111, abcd222222222222."):
        find_release(store, "abcd")


def test_a_missing_file_is_named(store: ObjectStore, tmp_path: Path) -> None:
    release = make_release(store, tmp_path)
    name = blob_name(release.files["codebook/labels.json"].sha256)
    copy = _copy_without(store, name, tmp_path / "copy")

    sentence = f"codebook/labels.json of release {release.release[:12]} is missing: there is no .*/{name}"
    with pytest.raises(ReleaseError, match=sentence):
        fetch_release(copy, release.release, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*partial"))


def test_a_target_with_the_same_release_is_reused(store: ObjectStore, tmp_path: Path) -> None:
    release = make_release(store, tmp_path)
    target = tmp_path / "out"
    fetch_release(store, release.release, target)
    inode = (target / "bundle.json").stat().st_ino
    fetch_release(store, release.release, target)
    assert (target / "bundle.json").stat().st_ino == inode

    (target / "popular.json").write_text("[]")
    with pytest.raises(ReleaseError, match="exists and is not release"):
        fetch_release(store, release.release, target)
    assert (target / "popular.json").read_text() == "[]"


def test_a_target_that_is_a_file_or_an_empty_folder(store: ObjectStore, tmp_path: Path) -> None:
    release = make_release(store, tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ReleaseError, match="exists and is not release"):
        fetch_release(store, release.release, tmp_path / "file")
    (tmp_path / "empty").mkdir()
    fetch_release(store, release.release, tmp_path / "empty")
    assert (tmp_path / "empty" / "bundle.json").is_file()


def test_unknown_evidence_and_invalid_metrics_are_refused(store: ObjectStore, tmp_path: Path) -> None:
    release = make_release(store, tmp_path)
    with pytest.raises(ReleaseError, match=r"no evidence 'model.mar'; it has evaluation.json, infra.json"):
        FetchedRelease(store, release).fetch_evidence("model.mar", tmp_path / "model.mar")
    with pytest.raises(ReleaseError, match="is a folder: give the path"):
        FetchedRelease(store, release).fetch_evidence("report.html", tmp_path)
    bundle = make_bundle(tmp_path / "b", 5)
    evidence = make_evidence(tmp_path / "evidence", bundle)
    evaluation = json.loads(evidence["evaluation.json"].read_text())
    write_json(evidence["evaluation.json"], evaluation | {"models": {}})
    with pytest.raises(ReleaseError, match="has no metrics of the form"):
        write_release(store, bundle, evidence)
    write_json(evidence["evaluation.json"], evaluation | {"release": "0" * 64})
    with pytest.raises(ReleaseError, match="of another bundle or holdout than the verdict"):
        write_release(store, bundle, evidence)
    write_json(evidence["evaluation.json"], evaluation)
    with pytest.raises(ReleaseError, match=r"evidence golden.json is not a file"):
        write_release(store, bundle, evidence | {"golden.json": tmp_path / "no"})
    with pytest.raises(ReleaseError, match="cannot name an object"):
        write_release(store, bundle, evidence | {"../x": evidence["report.html"]})
    with pytest.raises(ReleaseError, match=r"car.mar may not be in a release: only .json, .html files"):
        write_release(store, bundle, evidence | {"car.mar": evidence["report.html"]})
    assert [release.release for release in list_releases(store)] == [release.release]


def test_a_manifest_that_was_edited_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    release = make_release(store, tmp_path)
    text = release.to_bytes().decode()
    other = text.replace(release.files["popular.json"].sha256, "0" * 64)
    forged = release_as(store, "e" * 64, text.replace(release.release, "e" * 64))
    for edited, sentence in (
        (other, "not those its release digest stands for"),
        (text[:-20], "not valid JSON"),
        (text.replace("{", '{"format": 1, ', 1), "the name 'format' is given 2 times"),
        (text.replace('"metrics"', '"gate": {"blessed": true}, "metrics"'), "there is no setting 'gate'"),
        (text.replace("report.html", "car.mar"), "car.mar may not be in a release"),
    ):
        copy = _copy_without(store, manifest_name(release.release), tmp_path / sentence)
        copy.create(manifest_name(release.release), edited.encode())
        with pytest.raises(ReleaseError, match=sentence):
            read_manifest(copy, release.release)
    with pytest.raises(ReleaseError, match="not those its release digest stands for"):
        read_manifest(store, forged)
    with pytest.raises(ReleaseError, match="was changed or written anew after it was promoted"):
        read_manifest(store, release.release, "0" * 64)


def test_a_damaged_leftover_is_named(store: ObjectStore, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    name = blob_name(file_digest(bundle / "popular.json"))
    store.create(name, b"half a")
    with pytest.raises(ReleaseError, match=rf"{name} already exists with .* delete that object"):
        write_release(store, bundle, make_evidence(tmp_path / "evidence", bundle))
    assert list_releases(store) == []


@pytest.mark.integration
def test_a_trained_bundle_answers_alike_after_a_release(store: ObjectStore, tmp_path: Path) -> None:
    from car_model.recommender.recommender import Recommender
    from tests.fixtures import tiny_bundle

    bundle = tiny_bundle(tmp_path / "bundle")
    release = write_release(store, bundle, make_evidence(tmp_path / "evidence", bundle)).release
    fetch_release(store, release, tmp_path / "served")
    request = {"history": ["i1", "i5"], "k": 5}
    answers = [Recommender.load(folder).recommend(request) for folder in (bundle, tmp_path / "served")]
    assert answers[0] == answers[1]
    assert len(answers[0]["items"]) == 5


class ChangingStore(FolderStore):
    """A store that changes a file after each upload."""

    victim: Path

    def upload_many(self, files: Mapping[str, Path]) -> None:
        for name, source in files.items():
            super().upload_many({name: source})
            self.victim.write_bytes(self.victim.read_bytes() + b" ")


@pytest.mark.parametrize("victim", ["bundle/popular.json", "evidence/report.html"])
def test_files_that_change_while_they_are_released(tmp_path: Path, victim: str) -> None:
    store = ChangingStore(tmp_path / "registry")
    store.victim = tmp_path / victim
    bundle = make_bundle(tmp_path / "bundle")
    evidence = make_evidence(tmp_path / "evidence", bundle)
    with pytest.raises(ReleaseError, match="changed while it was being released: run again"):
        write_release(store, bundle, evidence)
    assert list_releases(store) == []
    # What was stored under the digest it had before would stand in every later run's way.
    assert all(store.sha256(name) == name[-64:] for name in store.list(BLOBS))


def test_bad_bundles_never_reach_the_store(store: ObjectStore, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    evidence = make_evidence(tmp_path / "evidence", bundle)
    with pytest.raises(UserError, match="There is no bundle folder"):
        write_release(store, tmp_path / "none", evidence)
    (bundle / "codebook/centroids.npy").unlink()
    with pytest.raises(UserError, match=r"has no codebook/centroids.npy"):
        write_release(store, bundle, evidence)
    with pytest.raises(StoreError, match="cannot name an object"):
        read_manifest(store, "../../etc")
    assert store.list("releases/") == []


def release_as(store: ObjectStore, digest: str, manifest: str) -> str:
    """Store a manifest under any digest."""
    store.create(manifest_name(digest), manifest.encode())
    return digest


def _copy_without(store: ObjectStore, left_out: str, folder: Path) -> ObjectStore:
    copy = FolderStore(folder)
    for name in (*store.list(RELEASES), *store.list(BLOBS)):
        if name != left_out:
            copy.create(name, store.read(name))
    return copy
