"""From the registry onto a real TorchServe: archives made again, onboarded items, and what is refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl
from typer.testing import CliRunner

from car_model.recommender.recommender import Recommender
from common.digests import file_digest
from components.serving.deploy import deploy
from components.serving.infra_validate import infra_validate
from components.serving.package import package
from components.serving.release import release
from orchestration.onboard import onboard_items
from registry.channels.channel import promote, rollback, stage
from registry.errors import ReleaseError
from registry.releases.bundle_files import release_digest
from registry.releases.fetch import FetchedRelease
from registry.releases.layout import blob_name
from registry.releases.release import read_manifest, write_release
from registry.releases.validations import read_validations
from registry.store.base import ObjectStore
from registry.store.open import open_store
from serving.archive.build import WorkerConfig, build_archive, read_archive
from serving.cli import app
from serving.deployment.deploy_channel import (
    deploy_channel,
    read_validated_archives,
    record_validation,
    validate_release,
)
from serving.errors import ServingError
from serving.torchserve.infra_validation import InfraValidationError
from serving.torchserve.process import find_processes
from serving.torchserve.rollover import DeployError
from serving.torchserve.server import TorchServe
from serving.torchserve.state_dir import StateDir
from tests.fixtures import tiny_bundle
from tests.registry.bundles import make_evidence
from tests.registry.trained import NEW, trained_release
from tests.serving.conftest import write_infra_report

pytestmark = pytest.mark.integration
ANN = {"who": "ann@shop", "why": "a reason"}
REQUESTS: list[dict[str, Any]] = [{"history": ["i1", "i5"], "k": 5}, {"history": [], "k": 3}]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for one server; whatever runs in it at the end is stopped."""
    folder = tmp_path_factory.mktemp("serving")
    yield folder
    TorchServe.stop(folder)
    assert find_processes(StateDir(folder)) == []


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle", seed=1)


@pytest.fixture
def store(serving: Path, tmp_path: Path) -> ObjectStore:
    """A registry of the test's own; the tests' one server may answer for any of them."""
    StateDir(serving).channel.unlink(missing_ok=True)
    return open_store(tmp_path / "registry")


def evidence(folder: Path, bundle: Path, **files: Path) -> dict[str, Path]:
    """A blessed verdict and the bundle's golden answers."""
    blessed = make_evidence(folder, bundle)
    recommender = Recommender.load(bundle)
    answers = [recommender.recommend(request) for request in REQUESTS]
    (folder / "golden.json").write_text(json.dumps({"requests": REQUESTS, "answers": answers}))
    return blessed | {"golden.json": folder / "golden.json"} | files


def in_production(store: ObjectStore, release: str) -> None:
    stage(store, release, **ANN)
    promote(store, "production", release, **ANN)


def predict(serving: Path, request: dict[str, Any]) -> dict[str, Any]:
    return TorchServe.attach(serving).predict(request)


def items(answer: dict[str, Any]) -> set[str]:
    return {item["item_id"] for item in answer["items"]}


def test_onboarded_items_are_served_and_a_rollback_takes_them_back(serving: Path, tmp_path: Path) -> None:
    store, parent = trained_release(tmp_path)
    StateDir(serving).channel.unlink(missing_ok=True)
    in_production(store, parent)
    assert deploy_channel(store, "production", serving, "ann@shop").changed
    everything = {"history": ["i1", "n1"], "k": 50, "explain": True}
    old_answer = predict(serving, everything)
    assert (old_answer["release"], old_answer["skipped"]) == (parent, ["n1"])

    NEW.to_csv(tmp_path / "items.csv", index=False)
    child = onboard_items(store, parent, tmp_path / "items.csv", tmp_path / "vectors").manifest.release
    assert read_validated_archives(FetchedRelease.read(store, child)) == []
    in_production(store, child)
    assert deploy_channel(store, "production", serving, "ann@shop").changed
    new_answer = predict(serving, everything)
    assert (new_answer["release"], new_answer["skipped"]) == (child, [])
    assert items(new_answer) - items(old_answer) == {"n2"}  # n1 was seen
    assert [item.report["release"] for item in read_validations(store, child)] == [child]

    rollback(store, "production", **ANN)
    assert deploy_channel(store, "production", serving, "ann@shop").release == parent
    assert predict(serving, everything) == old_answer
    assert len(read_validations(store, parent)) == 1  # what was validated once counts


def test_what_the_server_has_is_not_fetched_again(
    serving: Path, store: ObjectStore, bundle: Path, tmp_path: Path
) -> None:
    manifest = write_release(store, bundle, evidence(tmp_path, bundle))
    in_production(store, manifest.release)
    assert deploy_channel(store, "production", serving, "ann").changed
    blob = tmp_path / "registry" / blob_name(manifest.files["model/model.safetensors"].sha256)
    weights = blob.read_bytes()
    blob.unlink()
    assert not deploy_channel(store, "production", serving, "ann").changed
    TorchServe.stop(serving)
    assert deploy_channel(store, "production", serving, "ann").release == manifest.release
    TorchServe.stop(serving)
    for stored_archive in StateDir(serving).store.iterdir():
        stored_archive.unlink()
    with pytest.raises(ReleaseError, match=r"model/model\.safetensors of release .* is missing"):
        deploy_channel(store, "production", serving, "ann")
    blob.write_bytes(weights)
    assert deploy_channel(store, "production", serving, "ann").changed


def test_what_was_validated_by_other_code_waits_for_a_validation_by_this(
    serving: Path, store: ObjectStore, bundle: Path, tmp_path: Path
) -> None:
    release = release_digest(bundle)
    archive = build_archive(bundle, tmp_path, release)
    provenance = vars(read_archive(archive).provenance) | {"handler": "0" * 64, "archiver": "0.11.1"}
    report = write_infra_report(tmp_path, archive, archive_sha256="f" * 64, provenance=provenance)
    write_release(store, bundle, evidence(tmp_path, bundle, **{"infra.json": report}))
    in_production(store, release)
    sentence = (
        rf"Release {release[:12]} was not deployed: It was validated as archive ffffffffffff, but this "
        rf"machine's serving code builds {file_digest(archive)[:12]} \(its handler changed and "
        rf"torch-model-archiver is 0\.12\.0 instead of 0\.11\.1\)\. Validate it with this code \(car "
        rf"infra-validate {release[:12]} --registry {store.url}\), or deploy"
    )
    with pytest.raises(DeployError, match=sentence):
        deploy_channel(store, "production", serving, "ann")

    options = [release[:8], "--registry", store.url, "--who", "ann@shop"]
    result = CliRunner().invoke(app, ["infra-validate", *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "all 2 golden requests gave the expected answer" in result.output
    (validation,) = read_validations(store, release)
    assert validation.report["archive_sha256"] == file_digest(archive)
    options = ["--registry", store.url, "--serving", str(serving)]
    result = CliRunner().invoke(app, ["deploy", *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert f"production, release {release[:12]}: all 2 golden" in result.output
    assert predict(serving, REQUESTS[0])["release"] == release


def test_settings_that_were_validated_are_those_that_are_served(
    serving: Path, store: ObjectStore, bundle: Path, tmp_path: Path
) -> None:
    release = release_digest(bundle)
    archive = build_archive(bundle, tmp_path, release, workers=WorkerConfig(batch_size=5))
    report = write_infra_report(tmp_path, archive)
    write_release(store, bundle, evidence(tmp_path, bundle, **{"infra.json": report}))
    in_production(store, release)
    assert deploy_channel(store, "production", serving, "ann").version == read_archive(archive).version
    # Validated by this code, it is served as this code builds it, although the server has the other archive.
    report = validate_release(store, release, "ann")
    assert deploy_channel(store, "production", serving, "ann").version == report.version


def test_a_release_that_answers_otherwise_is_neither_noted_nor_served(
    serving: Path, store: ObjectStore, bundle: Path, tmp_path: Path
) -> None:
    other_bundle = tiny_bundle(tmp_path / "other", seed=2)
    right = evidence(tmp_path / "right", other_bundle)
    in_production(store, write_release(store, other_bundle, right).release)
    deploy_channel(store, "production", serving, "ann")
    wrong = evidence(tmp_path / "wrong", bundle) | {"golden.json": right["golden.json"]}
    digest = write_release(store, bundle, wrong).release
    in_production(store, digest)
    old_answer = predict(serving, REQUESTS[0])
    stored = sorted(path.name for path in StateDir(serving).store.iterdir())
    with pytest.raises(InfraValidationError, match="does not answer as evaluated"):
        deploy_channel(store, "production", serving, "ann")
    assert read_validations(store, digest) == []
    assert predict(serving, REQUESTS[0]) == old_answer
    assert sorted(path.name for path in StateDir(serving).store.iterdir()) == stored


def test_releasing_again_with_other_code_notes_its_validation(
    store: ObjectStore, bundle: Path, tmp_path: Path
) -> None:
    release = release_digest(bundle)
    old, new = (
        write_infra_report(
            folder, build_archive(bundle, folder, release, workers=WorkerConfig(batch_size=size))
        )
        for size, folder in ((3, tmp_path / "old"), (4, tmp_path / "new"))
        if folder.mkdir() is None
    )
    manifest = write_release(store, bundle, evidence(tmp_path, bundle, **{"infra.json": old}))
    for report, noted in ((old, 0), (new, 1), (new, 1)):
        record_validation(store, manifest, report, "pipeline run 2")
        assert len(read_validations(store, release)) == noted
    first, second = (json.loads(path.read_text())["archive_sha256"] for path in (new, old))
    assert [proof.archive_sha256 for proof in read_validated_archives(FetchedRelease(store, manifest))] == [
        first,
        second,
    ]


def test_a_server_answers_for_one_channel_of_one_registry(
    serving: Path, store: ObjectStore, bundle: Path, tmp_path: Path
) -> None:
    second = tiny_bundle(tmp_path / "second", seed=2)
    first = write_release(store, bundle, evidence(tmp_path / "a", bundle)).release
    trial = write_release(store, second, evidence(tmp_path / "b", second)).release
    in_production(store, first)
    deploy_channel(store, "production", serving, "ann")
    promote(store, "trial", trial, **ANN)
    other = open_store(tmp_path / "other")
    in_production(other, write_release(other, second, evidence(tmp_path / "c", second)).release)
    options = ["--registry", store.url, "--serving", str(serving)]
    for registry, channel in ((store, "trial"), (other, "production")):
        with pytest.raises(
            ServingError, match=f"answers for production of {store.url}, and not for {channel} of"
        ):
            deploy_channel(registry, channel, serving, "ann")
    refused = CliRunner().invoke(app, ["deploy", "trail", *options])
    assert (refused.exit_code, "Did you mean trial?" in refused.stderr) == (1, True)
    assert predict(serving, REQUESTS[0])["release"] == first

    # The server and its channel tell that they differ, whoever asks.
    in_production(store, trial)
    asked = CliRunner().invoke(app, ["status", "--serving", str(serving)])
    sentence = f"has release {first[:12]}, but production uses {trial[:12]} (entry 2): car deploy production"
    assert (asked.exit_code, sentence in asked.stderr) == (0, True)
    assert f"logs             {StateDir(serving).logs}\n" in asked.stdout
    assert CliRunner().invoke(app, ["deploy", *options]).exit_code == 0
    assert CliRunner().invoke(app, ["status", "--serving", str(serving)]).stderr == ""


def test_bad_reports_and_empty_channels_are_sentences(
    serving: Path, store: ObjectStore, bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(ReleaseError, match=r"The channel production in .* is empty: promote a release"):
        deploy_channel(store, "production", serving, "ann")
    (tmp_path / "infra.json").write_text("[]")
    files = evidence(tmp_path, bundle, **{"infra.json": tmp_path / "infra.json"})
    in_production(store, write_release(store, bundle, files).release)
    command = ["deploy", "--registry", store.url, "--serving", str(serving)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "infra.json must hold a JSON object, not list" in result.stderr


def test_following_a_channel(tmp_path: Path, bundle: Path, store: ObjectStore) -> None:
    first, second = (
        write_release(store, folder, evidence(tmp_path / name, folder)).release
        for name, folder in (("a", bundle), ("b", tiny_bundle(tmp_path / "second", seed=2)))
    )
    in_production(store, first)
    state_dir = tmp_path / "served"
    command = [sys.executable, "pipeline.py", "deploy", "--follow", "0.2"]
    command += ["--registry", store.url, "--serving", str(state_dir)]
    with (tmp_path / "log").open("w") as log:
        follower = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for(lambda: predict(state_dir, REQUESTS[0])["release"] == first)
        in_production(store, second)
        wait_for(lambda: predict(state_dir, REQUESTS[0])["release"] == second)
        TorchServe.stop(state_dir)
        wait_for(lambda: predict(state_dir, REQUESTS[0])["release"] == second)
        follower.terminate()
        assert follower.wait(timeout=30) == -signal.SIGTERM
        assert predict(state_dir, REQUESTS[0])["release"] == second  # servers outlive whoever started them
    finally:
        follower.kill()
        follower.wait()
        TorchServe.stop(state_dir)
    assert "Traceback" not in (tmp_path / "log").read_text()


def wait_for(holds: Any, seconds: float = 120) -> None:
    """Wait until something holds, whatever goes wrong before."""
    until = time.monotonic() + seconds
    while True:
        try:
            if holds():
                return
        except Exception:
            if time.monotonic() > until:
                raise
        assert time.monotonic() < until
        time.sleep(0.2)


def test_what_the_pipeline_released_is_deployed_again_from_the_registry(
    serving: Path, store: ObjectStore, bundle: Path, tmp_path: Path
) -> None:
    def artifact(name: str, path: Path | None = None, **metadata: Any) -> dsl.Artifact:
        return dsl.Artifact(uri=str(path or tmp_path / name), metadata=metadata)

    files = evidence(tmp_path / "evidence", bundle)
    golden = artifact("golden", files["golden.json"], digest="d")
    archive, infra, deployment = artifact("archive"), artifact("infra"), artifact("deployment")
    digest = package.python_func(bundle=artifact("bundle", bundle), archive=archive)
    infra_validate.python_func(archive=archive, golden=golden, release=digest, infra=infra)
    released = release.python_func(
        bundle=artifact("bundle", bundle), evaluation=artifact("", files["evaluation.json"]),
        verdict=artifact("", files["verdict.json"], summary="Promoted."), golden=golden, infra=infra,
        report=artifact("", files["report.html"]), data_docs=artifact("", files["report.html"]),
        profile=artifact("", files["verdict.json"]), recipe="{}", registry=store.url, channel="production",
        champion="", entry=0, run_id="run-1", git_commit="", promotion=artifact("promotion"),
    )  # fmt: skip
    assert released == digest
    deploy.python_func(
        archive=archive,
        infra=infra,
        golden=golden,
        release=released,
        registry=store.url,
        channel="production",
        serving=str(serving),
        deployment=deployment,
    )
    assert "car.mar" not in read_manifest(store, released).evidence
    assert read_validations(store, released) == []
    first = json.loads(StateDir(serving).deployed.read_text())
    TorchServe.stop(serving)
    for stored_archive in StateDir(serving).store.iterdir():
        stored_archive.unlink()
    assert deploy_channel(store, "production", serving, "ann").release == released
    assert json.loads(StateDir(serving).deployed.read_text()) == first
    Path(archive.path).write_bytes(Path(archive.path).read_bytes() + b"x")
    with pytest.raises(DeployError, match="but the archive that was validated has"):
        deploy.python_func(
            archive=archive, infra=infra, golden=golden, release=released, registry=store.url,
            channel="production", serving=str(serving), deployment=artifact("again"),
        )  # fmt: skip
