"""Bodies in, status and bytes out: single requests, batches, and defects that stay where they are."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from car_model.recommender.recommender import Recommender
from common.limits import MAX_BATCH
from serving.answering.answer import FAILED, respond, respond_all
from tests.fixtures import tiny_parts, tiny_vectors
from tests.serving.conftest import REQUESTS, ask


@pytest.mark.parametrize("request_", REQUESTS)
def test_one_request_is_answered_by_the_recommender(recommender: Recommender, request_: dict) -> None:
    assert ask(recommender, request_) == (200, recommender.recommend(request_))


@pytest.mark.parametrize("shape", [list, lambda entries: {"requests": entries}])
def test_a_batch_is_answered_in_order(recommender: Recommender, shape: Any) -> None:
    status, answer = ask(recommender, shape(REQUESTS))
    assert status == 200
    assert answer == {"answers": [recommender.recommend(request) for request in REQUESTS]}


def test_a_bad_entry_of_a_batch_spoils_no_other(recommender: Recommender) -> None:
    bad = [{"history": [], "k": 0}, None, 7, [REQUESTS[0]], {"requests": [REQUESTS[0]]}, {}]
    status, answer = ask(recommender, [REQUESTS[0], *bad, REQUESTS[1]])
    assert status == 200
    first, *refused, last = answer["answers"]
    assert (first, last) == (recommender.recommend(REQUESTS[0]), recommender.recommend(REQUESTS[1]))
    assert [entry.pop("status") for entry in refused] == [400] * len(bad)
    assert all(list(entry) == ["error"] and entry["error"].endswith(".") for entry in refused)
    assert refused[0]["error"].startswith("'k'")
    assert refused[4]["error"].startswith("'history' is missing")  # a batch in a batch is no request


@pytest.mark.parametrize("body", [[], [{}] * (MAX_BATCH + 1), {"requests": 1}, {"requests": [{}], "k": 1}])
def test_a_malformed_batch_is_refused_whole(recommender: Recommender, body: Any) -> None:
    status, answer = ask(recommender, body)
    assert (status, answer["status"]) == (400, 400)
    assert "requests" in answer["error"]


def test_a_defect_spoils_one_entry_only(recommender: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, answer = recommender.recommend_batch, recommender.recommend

    def defective(requests: list[dict[str, Any]]) -> list[Any]:
        if any(request["history"] == ["i2"] for request in requests):
            raise ZeroDivisionError
        return [
            {"score": float("nan")} if request["history"] == ["i3"] else reply
            for request, reply in zip(requests, answers(requests), strict=True)
        ]

    monkeypatch.setattr(recommender, "recommend_batch", defective)
    requests: list[dict] = [{"history": [item]} for item in ("i1", "i2", "i3")]
    status, reply = ask(recommender, requests)
    assert status == 200
    assert ask(recommender, requests[2]) == (500, {"error": FAILED, "status": 500})
    monkeypatch.undo()
    assert reply["answers"] == [answer(requests[0]), *[{"error": FAILED, "status": 500}] * 2]


PLAIN = tiny_parts(epochs=1)
SIMILAR = replace(PLAIN, catalogue=replace(PLAIN.catalogue, text=tiny_vectors()), similarity_scale=3.0)
SHOPS = {False: Recommender(PLAIN), True: Recommender(SIMILAR)}
item_ids = st.lists(st.integers(1, 60).map(lambda number: f"i{number}"), max_size=30)
single = st.fixed_dictionaries(
    {"history": item_ids},
    optional={
        "k": st.integers(0, 25),
        "thinking": st.integers(0, 4),
        "explain": st.booleans(),
        "candidates": item_ids,
        "exclude": item_ids,
    },
)
body = st.one_of(single, st.lists(single, max_size=3), st.just("none")).map(
    lambda item: json.dumps(item).encode()
)


@given(st.lists(body, min_size=1, max_size=12), st.booleans())
@settings(max_examples=60, deadline=None)
def test_what_waits_together_is_answered_as_if_alone(bodies: list[bytes], likeness: bool) -> None:
    recommender = SHOPS[likeness]
    assert respond_all(recommender, bodies) == [respond(recommender, item) for item in bodies]


@pytest.mark.parametrize("explain", [True, False])
def test_broken_weights_are_no_broken_json(explain: bool) -> None:
    parts = tiny_parts(epochs=1)
    with torch.no_grad():
        parts.model.think_bias.fill_(torch.nan)
    weightless = Recommender(replace(parts, think_scale=0.0))
    status, body = respond(weightless, json.dumps({"history": ["i7"], "explain": explain}).encode())
    assert (status, "NaN" in body.decode()) == ((500, False) if explain else (200, False))
    assert json.loads(body)
