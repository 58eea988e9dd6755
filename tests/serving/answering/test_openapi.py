"""The OpenAPI document: valid, the one in the repository, and telling the truth in both directions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator, validate
from starlette.testclient import TestClient

from car_model.bundle import Bundle
from car_model.recommender.recommender import Recommender
from serving import answering
from serving.answering.answer import respond
from serving.answering.openapi import PATH, as_yaml, document
from serving.asgi.app import App, AsgiMetrics
from serving.asgi.server import Pod
from tests.car_model.action_ranker.liking import liking
from tests.serving.answering.conformity import DOCUMENT, OPERATION, REQUEST, conforms, named
from tests.serving.conftest import ask
from tests.serving.hostile import bodies, good, seeded

LEVELS = 3
ITEM = st.sampled_from(["i1", "i2", "i47", "none such", "", "x" * 256, "x" * 257])
LEAF = st.none() | st.booleans() | st.sampled_from([0, 1, 3, 100, 101, -1, 2.0, 2.5]) | ITEM
VALUE = LEAF | st.lists(LEAF, max_size=3) | st.sampled_from(["relevance", "action"])
FIELDS = ["history", "k", "thinking", "exclude", "candidates", "explain", "actions", "rank_by", "other"]
NEAR_REQUEST = st.dictionaries(st.sampled_from(FIELDS), VALUE).map(
    lambda fields: {"history": ["i1"], **fields}
)


@pytest.fixture(scope="module")
def by_action() -> Recommender:
    """A release that has a ranker by action."""
    return Recommender(liking()[0], release="r2")


def test_it_is_valid_openapi() -> None:
    validate(document(), cls=OpenAPIV31SpecValidator)
    assert document()["openapi"].startswith("3.1")


def test_the_file_is_what_the_code_says() -> None:
    """If this fails: car openapi > serving/answering/openapi.yaml, and read the diff."""
    assert Path(answering.__file__).with_name("openapi.yaml").read_text("utf-8") == as_yaml()
    assert yaml.safe_load(as_yaml()) == document()


@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(NEAR_REQUEST)
def test_what_the_document_allows_is_answered_and_nothing_else(
    recommender: Recommender, by_action: Recommender, request_: dict
) -> None:
    thinks, actions = request_.get("thinking"), request_.get("actions")
    fits = not (isinstance(thinks, int | float) and not isinstance(thinks, bool) and thinks > LEVELS)
    fits = fits and named("Request").is_valid(request_)
    fits = fits and (actions is None or len(actions) == len(request_["history"]))
    for model, ranks in ((recommender, False), (by_action, True)):
        status, answer = ask(model, request_)
        assert (status == 200) == (fits and (ranks or request_.get("rank_by") != "action"))
        assert conforms(status, answer)


def examples(operation: dict) -> dict:
    content = operation["requestBody"]["content"]["application/json"]
    return {name: example["value"] for name, example in content["examples"].items()}


def odd(parts: Bundle, item_ids: list[str]) -> Recommender:
    """A release whose first items have other ids."""
    rest = parts.catalogue.item_ids[len(item_ids) :]
    return Recommender(replace(parts, catalogue=replace(parts.catalogue, item_ids=[*item_ids, *rest])), "r3")


def test_the_documents_examples_are_answered_by_every_release(
    recommender: Recommender, by_action: Recommender
) -> None:
    parts = recommender.bundle
    long = [f"{i} {'x' * 300}" for i in range(parts.catalogue.size)]
    strange = ["", " ", "\x00", "'\"<b>", "\U0001f3ac", "../..", "x" * 257, "é" * 256, "null", "NaN"]
    releases = [recommender, by_action, odd(parts, strange), odd(parts, long), odd(parts, long[:-1])]
    for release in releases:
        own = document(release)
        validate(own, cls=OpenAPIV31SpecValidator)
        requests = examples(own["paths"][PATH]["post"])
        assert ("by action" in requests) == (release is by_action)
        for request in [*requests.values(), *examples(OPERATION).values()]:
            assert REQUEST.is_valid(request)
            status, answer = ask(release, request)
            assert status == 200, answer
            assert all("error" not in entry for entry in answer.get("answers", [answer]))
        if release is not releases[3]:  # whose ids no request may name
            assert ask(release, requests["one"])[1]["skipped"] == []


def test_every_route_is_in_the_document_and_takes_no_other_method(recommender: Recommender) -> None:
    pod = Pod(None)
    pod.app = App(recommender, metrics=AsgiMetrics())
    pod._release_routes = pod.app.starlette()
    routes = {route.path for app in (pod._release_routes, pod._probes) for route in app.routes}
    assert routes == set(DOCUMENT["paths"])
    with TestClient(pod) as client:
        for path in routes - {"/metrics"}:
            allowed = {method.upper() for method in DOCUMENT["paths"][path]}
            for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "STRANGE"} - allowed:
                reply = client.request(method, path)
                assert (reply.status_code, reply.json()["status"]) == (405, 405)
                assert allowed <= set(reply.headers["Allow"].split(", "))
        assert client.get("/docs").json()["status"] == 404
        assert client.get("/openapi.json").json() == document(recommender)


def test_every_field_of_an_answer_is_in_the_document_and_used(by_action: Recommender) -> None:
    """A schema that forbids nothing proves nothing: every field is met, and a strange one refused."""
    schemas, rng = DOCUMENT["components"]["schemas"], seeded(3)
    met: dict[str, set[str]] = {"Answer": set(), "Item": set(), "Step": set(), "Cause": set(), "Error": set()}
    requests = [good(rng) | {"rank_by": rng.choice(["relevance", "action"])} for _ in range(60)]
    for request in [*requests, {"history": [], "k": 0}]:
        status, answer = ask(by_action, request)
        assert conforms(status, answer)
        assert not conforms(status, {**answer, "strange": 1})
        met["Answer" if status == 200 else "Error"] |= set(answer)
        for item in answer.get("items", []):
            met["Item"] |= set(item)
            for name, parts in (("Step", item.get("path", [])), ("Cause", item.get("because", []))):
                met[name] |= {field for part in parts for field in part}
    assert met == {name: set(schemas[name]["properties"]) for name in met}


def test_hostile_bodies_get_what_the_document_says(recommender: Recommender) -> None:
    statuses = set()
    for body in bodies(1500, seed=2):
        status, answer = respond(recommender, body)
        assert conforms(status, json.loads(answer)), (body[:200], answer[:300])
        statuses.add(status)
    assert statuses == {200, 400}


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=80) | st.text(max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_get_what_the_document_says(recommender: Recommender, body: bytes) -> None:
    status, answer = respond(recommender, body)
    assert conforms(status, json.loads(answer))
