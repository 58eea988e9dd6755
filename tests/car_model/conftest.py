"""One tiny real bundle a session, and the settings every test here shares."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from car_model.bundle import Bundle
from car_model.data.dataset import Dataset
from car_model.evaluation import evaluate as evaluation
from car_model.evaluation.evaluate import Holdout
from car_model.recommender.recommender import Recommender
from tests.car_model.builders import tiny_dataset
from tests.fixtures import tiny_parts

settings.register_profile(
    "library",
    max_examples=60,
    deadline=None,  # the machine is shared
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("library")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums over threads come in any order; bit-for-bit comparisons need one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def few_latency_requests() -> Iterator[None]:
    """How fast this machine is, is no test's business: a handful of timed answers is enough."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "LATENCY_REQUESTS", 20)
        yield


@pytest.fixture(scope="session")
def parts() -> Bundle:
    """A trained tiny bundle in memory; read-only."""
    return tiny_parts()


@pytest.fixture(scope="session")
def bundle(parts: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same bundle as a folder; read-only, copy it to damage it."""
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    parts.save(folder)
    return folder


@pytest.fixture(scope="session")
def recommender(bundle: Path) -> Recommender:
    """The bundle as it is served."""
    return Recommender.load(bundle)


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """The interactions the bundle was trained on, as ingest writes them."""
    return tiny_dataset()


@pytest.fixture(scope="session")
def holdout(dataset: Dataset) -> Holdout:
    return Holdout.of(dataset)
