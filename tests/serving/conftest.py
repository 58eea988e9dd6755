"""Two real releases, made once a session, and a server state folder that is always stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.load.checked_clients import ExpectedAnswers, expected_answers
from car_model.recommender.recommender import Recommender
from common.digests import file_digest
from registry.releases.bundle_files import release_digest
from serving.answering.answer import respond
from serving.archive.build import build_archive, read_archive
from serving.torchserve import process
from serving.torchserve.process import find_processes
from serving.torchserve.server import TorchServe
from serving.torchserve.state_dir import StateDir
from serving.torchserve.versions import register_and_wait
from tests.fixtures import tiny_bundle, tiny_parts

REQUESTS = [
    {"history": ["i1", "i5", "i9"], "k": 5},
    {"history": ["i2"], "k": 3, "thinking": 0},
    {"history": [], "k": 4},
    {"history": ["unknown", "i3"], "k": 2, "exclude": ["i7"], "explain": False},
]


@dataclass(frozen=True)
class Release:
    """What the pipeline hands to serving."""

    digest: str
    bundle: Path
    archive: Path
    golden: Path


def make_release(folder: Path, seed: int) -> Release:
    """Train a tiny bundle, write its golden answers, build its archive."""
    bundle = tiny_bundle(folder / "bundle", seed=seed)
    torch.set_num_threads(1)
    recommender = Recommender.load(bundle)
    golden = folder / "golden.json"
    answers = [recommender.recommend(request) for request in REQUESTS]
    golden.write_text(json.dumps({"requests": REQUESTS, "answers": answers}))
    digest = release_digest(bundle)
    return Release(digest, bundle, build_archive(bundle, folder, digest), golden)


def write_infra_report(folder: Path, archive: Path, **changes: Any) -> Path:
    """Write what an infra validation reports of an archive, perhaps with other values."""
    report = {
        "archive_sha256": file_digest(archive),
        "provenance": vars(read_archive(archive).provenance),
    }
    path = folder / "infra.json"
    path.write_text(json.dumps(report | changes))
    return path


SUPERVISE = process.supervise


@pytest.fixture(autouse=True, scope="session")
def unsupervised() -> Iterator[None]:
    """No server comes back by itself where a test kills it; the tests of the supervisor have it back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "supervise", lambda state: None)
        yield


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return make_release(tmp_path_factory.mktemp("first"), seed=1)


@pytest.fixture(scope="session")
def second(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return make_release(tmp_path_factory.mktemp("second"), seed=2)


@pytest.fixture(scope="session")
def right(first: Release, second: Release) -> ExpectedAnswers:
    """What either release answers, recorded in quiet."""
    return expected_answers({release.digest: release.bundle for release in (first, second)}, REQUESTS)


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for one server; whatever a test leaves running in it is stopped, and that is checked."""
    folder = tmp_path_factory.mktemp("state") / "prö 茶 🍵 #1=a:b"  # a folder may have any name
    folder.mkdir()
    yield folder
    TorchServe.stop(folder)
    assert find_processes(StateDir(folder)) == []


@pytest.fixture(scope="module")
def server(state_dir: Path, first: Release) -> Iterator[TorchServe]:
    """A server of the first release."""
    server = TorchServe.start(state_dir)
    register_and_wait(server, first.archive)
    yield server
    TorchServe.stop(state_dir)


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    """A recommender in this process."""
    return Recommender(tiny_parts(epochs=1), release="r1")


def ask(recommender: Recommender, value: Any) -> tuple[int, Any]:
    """Status and answer of a body, without a server."""
    status, body = respond(recommender, json.dumps(value).encode())
    return status, json.loads(body)
