"""The API as an OpenAPI 3.1 document, generated from the model that checks requests.

`car openapi` prints it; serving/answering/openapi.yaml is that output.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from car_model.recommender.request import Request
from common.limits import MAX_BATCH, MAX_BODY_BYTES, MAX_ID
from serving.answering.request_body import MAX_DEPTH
from serving.archive.build import MODEL_NAME

if TYPE_CHECKING:
    from car_model.recommender.recommender import Recommender

PATH = f"/predictions/{MODEL_NAME}"
COMPONENTS = "#/components/schemas/"
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Step(_Closed):
    """One level of an item's semantic ID."""

    level: Count
    code: Annotated[int, Field(ge=0)]
    words: str
    """Words of this level that the item itself carries; may be empty."""
    group: str
    """Label of all items with this code; it need not fit this item."""
    probability: Share
    """Probability that the model gave this code."""
    rank: Count
    """Rank of this code among all codes by probability; 1 is the most likely."""
    lift: float | None
    """Probability divided by the code's share of all interactions."""
    expected_code: Annotated[int, Field(ge=0)]
    """The most likely code."""
    expected_group: str
    """Label of the most likely code."""
    expected_probability: Share
    """Probability of the most likely code."""
    agrees: bool
    """Whether the item has the most likely code."""


class HistoryItem(_Closed):
    """An item of the history."""

    item_id: str
    title: str


class Alike(HistoryItem):
    """The item of the history whose text is nearest to a recommendation's."""

    similarity: Share
    """Cosine of the two texts."""


class Cause(HistoryItem):
    """An item of the history that a recommendation rests on."""

    weight: Annotated[float, Field(gt=0)]
    """How far the score falls without it, beyond what popular items lose."""


class Item(_Closed):
    """A recommended item; the fields after `liked` are left out if `explain` is false."""

    item_id: str
    title: str
    score: float | None
    """What items are ranked by, higher is better: log P(item), plus the weighted SID levels, text similarity
    and, if ranked by action, P(liked). It is no probability, may be above 0, and compares items of one answer
    only; null for popular items."""
    liked: Share | None = None
    """Probability that the user would like it; only if ranked by action."""
    reasons: list[str] = []
    """One or two short sentences for people."""
    words: str = ""
    """The item's own words along its semantic path."""
    path: list[Step] = []
    """The item's semantic path, coarse to fine."""
    because: list[Cause] = []
    """The latest items of the history that weigh most."""
    alike: Alike | None = None
    """The item of the history whose text is nearest; null if none is near."""


class Answer(_Closed):
    """Recommended items, best first, and the release that recommends them."""

    release: str
    """Digest of the release that answers."""
    codebook: str
    """Version of its codebook."""
    items: list[Item]
    skipped: list[str]
    """Items of the history that the release does not know."""
    fallback: Annotated[str | None, Field(pattern="^popular$")]
    """popular: no item of the history is known."""
    skipped_candidates: list[str] = []
    """Candidates that are not offered; only if the request has `candidates`."""


class Error(_Closed):
    """Why a request was not answered."""

    error: Annotated[str, Field(min_length=1)]
    """One sentence that names the field."""
    status: Annotated[int, Field(ge=400, le=599)]


class BatchRequest(_Closed):
    """Several requests; a list of them without this object around it is accepted as well."""

    requests: Annotated[list[Request], Field(min_length=1, max_length=MAX_BATCH)]


class BatchAnswer(_Closed):
    """Answers in the order of the requests; a request that cannot be answered has an Error in its place."""

    answers: Annotated[list[Answer | Error], Field(min_length=1, max_length=MAX_BATCH)]


def document(recommender: Recommender | None = None) -> dict[str, Any]:
    """The OpenAPI document; that of a server gives requests which its release can answer as examples."""
    models = (Request, BatchRequest, Answer, BatchAnswer, Error)
    _, schemas = models_json_schema(
        [(model, "validation") for model in models], ref_template=COMPONENTS + "{model}"
    )
    server = {"url": "http://127.0.0.1:8080", "description": "The inference port of the server."}
    return {
        "openapi": "3.1.0",
        "info": {"title": "CAR on Kubeflow: recommendations", "version": version("car-on-kubeflow")},
        "servers": [{"url": "/"} if recommender else server],
        "paths": {
            PATH: {"post": _operation(_examples(recommender))},
            "/ping": _get("ping", "Whether the model answers, and in the ASGI server which release"),
            "/openapi.json": _get("openapi", "This document (ASGI server)"),
            "/metrics": _get("metrics", "Metrics for Prometheus; pods and TorchServe have a port for them"),
            "/live": _get("live", "Whether the process should be kept (pods; needs no key)"),
            "/ready": _get("ready", "Whether a release answers (pods; needs no key)"),
        },
        "components": {
            "schemas": dict(sorted(schemas["$defs"].items())),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _get(name: str, summary: str) -> dict[str, Any]:
    """A path that is read only."""
    refused = {"description": "Not now.", "content": _json(_ref("Error"))}
    responses = {"200": {"description": "Yes, or the content."}, "503": refused}
    security: list[dict[str, list[str]]] = [{}] if name in ("live", "ready") else [{"key": []}, {}]
    return {"get": {"operationId": name, "summary": summary, "security": security, "responses": responses}}


def _examples(recommender: Recommender | None) -> dict[str, Any]:
    """Requests with items of the release, if there are any that a request may name."""
    items = recommender.catalogue.item_ids if recommender else ["50", "172", "1", "7", "181"]
    items = [item for item in items if item and len(item) <= MAX_ID][:5]
    request: dict[str, Any] = {"history": items[:2], "k": 3}
    examples: dict[str, dict[str, Any]] = {
        "one": request,
        "candidates": request | {"candidates": items[2:] or items, "thinking": 0},
        "batch": {"requests": [request, {"history": []}]},
    }
    if recommender and recommender.bundle.ranker:
        actions = [None] * len(request["history"])
        examples["by action"] = request | {"actions": actions, "rank_by": "action"}
    return {name: {"value": value} for name, value in examples.items()}


def _operation(examples: dict[str, Any]) -> dict[str, Any]:
    batch = {"type": "array", "items": _ref("Request"), "minItems": 1, "maxItems": MAX_BATCH}
    return {
        "operationId": "recommend",
        "summary": "Recommend items for one or several histories",
        "description": (
            f"A body is UTF-8 JSON of at most {MAX_BODY_BYTES} bytes, nested at most {MAX_DEPTH} levels "
            "deep, without duplicate names in an object. `thinking` is at most the number of levels of the "
            "release. `rank_by: action` needs a release with a ranker by action. A bad request in a batch "
            "gets its error in its place; only a malformed batch is refused as a whole."
        ),
        "security": [{"key": []}, {}],
        "requestBody": {
            "required": True,
            "content": _json({"oneOf": [_ref("Request"), _ref("BatchRequest"), batch]}, examples),
        },
        "responses": {
            "200": {
                "description": "An answer, or the answers to a batch.",
                "content": _json({"oneOf": [_ref("Answer"), _ref("BatchAnswer")]}),
            },
            "400": {
                "description": (
                    "The request is wrong. Without a valid key, TorchServe answers 400 too, in its own form: "
                    "`code`, `message`, and `type` InvalidKeyException."
                ),
                "content": _json(_ref("Error")),
            },
            "401": {"description": "No valid key (pods).", "content": _json(_ref("Error"))},
            "408": {"description": "The request did not end (ASGI).", "content": _json(_ref("Error"))},
            "413": {"description": f"The body has more than {4 * MAX_BODY_BYTES} bytes."},
            "500": {"description": "A defect of the server.", "content": _json(_ref("Error"))},
            "503": {
                "description": "Too many requests wait already, or no worker is up: ask again later.",
                "headers": {
                    "Retry-After": {
                        "description": "Seconds to wait. TorchServe does not send it: back off from 0.1 s.",
                        "schema": {"type": "integer", "minimum": 0},
                    }
                },
            },
            "507": {"description": "The worker was killed while it had the request: ask again."},
        },
    }


def _json(schema: dict[str, Any], examples: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"application/json": {"schema": schema, **({"examples": examples} if examples else {})}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": COMPONENTS + name}


def as_yaml() -> str:
    """The document as text."""
    value = json.loads(json.dumps(document()))  # no object is in it twice, so YAML needs no anchors
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110)
