"""The handler within TorchServe's own context classes, without a server around it."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from ts.context import Context, RequestProcessor

from car_model.recommender.recommender import Recommender
from serving.answering.answer import FAILED
from serving.torchserve.config import LOAD_FAILURE
from serving.torchserve.handler import CarHandler
from tests.serving.conftest import REQUESTS, Release

pytestmark = pytest.mark.integration  # the release is trained


def make_context(folder: Path, batch: int = 0) -> Context:
    settings = {"handler": {"torchThreads": 1}}
    context = Context("car", str(folder), {}, 8, None, "0.12", model_yaml_config=settings)
    context.request_processor = [RequestProcessor({}) for _ in range(batch)]
    return context


@pytest.fixture(scope="module")
def model_dir(first: Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    with zipfile.ZipFile(first.archive) as opened:
        opened.extractall(folder)
    return folder


@pytest.fixture
def handler(model_dir: Path) -> CarHandler:
    handler = CarHandler()
    handler.initialize(make_context(model_dir))
    return handler


def handle(handler: CarHandler, model_dir: Path, rows: list[Any]) -> list[tuple[int, dict[str, Any]]]:
    context = make_context(model_dir, len(rows))
    replies = handler.handle(rows, context)
    return [(context.get_response_status(i)[0], json.loads(reply)) for i, reply in enumerate(replies)]


def test_it_answers_as_the_recommender_does(handler: CarHandler, model_dir: Path, first: Release) -> None:
    recommender = Recommender.load(first.bundle, release=first.digest)
    replies = handle(handler, model_dir, [{"body": json.dumps(request).encode()} for request in REQUESTS])
    assert replies == [(200, json.loads(json.dumps(recommender.recommend(request)))) for request in REQUESTS]
    assert torch.get_num_threads() == 1


def test_each_request_of_a_batch_gets_its_own_status(handler: CarHandler, model_dir: Path) -> None:
    rows = [{"body": b'{"history": ["i1"]}'}, {"body": b"{"}, {}, {"data": {"history": [], "k": 2}}]
    rows.append({"body": b'{"history": [], "k": 0}'})
    replies = handle(handler, model_dir, rows)
    assert [status for status, _ in replies] == [200, 400, 400, 200, 400]
    assert "not JSON" in replies[1][1]["error"]
    assert "no body" in replies[2][1]["error"]
    assert "'k'" in replies[4][1]["error"]


def test_a_defect_spoils_one_request_only(
    handler: CarHandler, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = handler.recommender.recommend_batch

    def defective(requests: list[dict[str, Any]]) -> list[Any]:
        if any(request["history"] == ["i2"] for request in requests):
            raise ZeroDivisionError
        return answers(requests)

    monkeypatch.setattr(handler.recommender, "recommend_batch", defective)
    rows = [{"body": b'{"history": ["i1"]}'}, {"body": b'{"history": ["i2"]}'}]
    replies = handle(handler, model_dir, rows)
    assert [status for status, _ in replies] == [200, 500]
    assert replies[1][1] == {"error": FAILED, "status": 500}


def test_a_bundle_that_does_not_load_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "release.json").write_text('{"release": "x"}')
    with pytest.raises(Exception, match=r"release.json does not name a release"):
        CarHandler().initialize(make_context(tmp_path))
    assert LOAD_FAILURE in caplog.text
