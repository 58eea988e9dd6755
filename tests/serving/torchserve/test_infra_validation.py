import json
import shutil
from pathlib import Path

import pytest

from common.digests import file_digest
from serving.archive.build import build_archive
from serving.torchserve.infra_validation import BAD_REQUESTS, InfraValidationError, infra_validate
from serving.torchserve.process import find_processes
from serving.torchserve.state_dir import StateDir
from tests.serving.conftest import Release

pytestmark = pytest.mark.integration


def nothing_runs(work: Path) -> bool:
    state = StateDir(work)
    return find_processes(state) == [] and not state.keys.exists() and not state.scratch.exists()


def test_a_servable_archive_is_proven(first: Release, tmp_path: Path) -> None:
    report = infra_validate(first.archive, first.golden, first.digest, tmp_path)
    assert report.release == first.digest
    assert report.archive_sha256 == file_digest(first.archive)
    assert report.replay.passed
    assert report.bad_requests_refused == len(BAD_REQUESTS)
    assert json.loads(report.model_dump_json())["replay"]["requests"] == 4
    assert nothing_runs(tmp_path)


def test_another_models_answers_are_found_out(first: Release, second: Release, tmp_path: Path) -> None:
    with pytest.raises(InfraValidationError, match=r"does not answer as evaluated: .* request 0: answer\."):
        infra_validate(first.archive, second.golden, first.digest, tmp_path)
    assert nothing_runs(tmp_path)


def test_a_damaged_bundle_is_named(first: Release, tmp_path: Path) -> None:
    bundle = shutil.copytree(first.bundle, tmp_path / "bundle")
    (bundle / "model" / "model.safetensors").write_bytes(b"damaged")
    archive = build_archive(bundle, tmp_path, first.digest)
    with pytest.raises(InfraValidationError, match=r"car\.mar does not load in TorchServe: \w+: "):
        infra_validate(archive, first.golden, first.digest, tmp_path / "work")
    assert nothing_runs(tmp_path / "work")


def test_what_is_no_archive_is_named(first: Release, tmp_path: Path) -> None:
    archive = tmp_path / "car.mar"
    archive.write_bytes(b"not a zip")
    with pytest.raises(InfraValidationError, match="is not a CAR model archive"):
        infra_validate(archive, first.golden, first.digest, tmp_path / "work")
    assert nothing_runs(tmp_path / "work")
