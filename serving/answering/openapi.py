"""The API as an OpenAPI 3.1 document, made from the very model that checks requests.

`python -m serving openapi` prints it; serving/answering/openapi.yaml is that output.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from car_model.recommender.request import MAX_BATCH, Request
from serving.answering.request_body import MAX_BODY_BYTES, MAX_DEPTH
from serving.archive.build import MODEL_NAME

PATH = f"/predictions/{MODEL_NAME}"
COMPONENTS = "#/components/schemas/"
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Step(_Closed):
    """One level of an item's semantic ID."""

    level: Count
    code: Annotated[int, Field(ge=0)]
    words: Annotated[
        str, Field(description="Words of this level that the item itself carries; may be empty.")
    ]
    group: Annotated[str, Field(description="Label of all items with this code; this one may not fit it.")]
    probability: Annotated[Share, Field(description="How much the model expected this code.")]
    rank: Annotated[Count, Field(description="1: of all codes, the model expected this one most.")]
    lift: Annotated[float | None, Field(description="Probability over the code's share of all interactions.")]
    expected_code: Annotated[int, Field(ge=0)]
    expected_group: Annotated[str, Field(description="Label of the code that was expected most.")]
    expected_probability: Share
    agrees: Annotated[bool, Field(description="Whether the item has the code that was expected most.")]


class Named(_Closed):
    """An item of the history."""

    item_id: str
    title: str


class Cause(Named):
    """An item of the history that a recommended one rests on."""

    weight: Annotated[
        float,
        Field(gt=0, description="How far the score falls without it, beyond what popular items lose."),
    ]


class Item(_Closed):
    """A recommended item; what follows the score is there unless `explain` is false."""

    item_id: str
    title: str
    score: Annotated[
        float | None, Field(description="Log-probability, higher is better; null for popular ones.")
    ]
    liked: Annotated[
        Share | None, Field(description="How likely the user would like it; only where ranked by action.")
    ] = None
    reasons: Annotated[list[str], Field(description="Sentences for people.")] = []
    words: Annotated[str, Field(description="The item's own words along its semantic path.")] = ""
    path: list[Step] = []
    because: Annotated[list[Cause], Field(description="What weighs most of the latest items.")] = []
    alike: Annotated[Named | None, Field(description="Of the history, the most alike to the model.")] = None


class Answer(_Closed):
    """Recommended items, best first, and who recommends them."""

    release: Annotated[str, Field(description="Digest of the release that answers.")]
    codebook: Annotated[str, Field(description="Version of its codebook.")]
    items: list[Item]
    skipped: Annotated[list[str], Field(description="Items of the history that the release does not know.")]
    fallback: Annotated[
        str | None,
        Field(pattern="^popular$", description="popular: nothing of the history is known."),
    ]
    skipped_candidates: Annotated[
        list[str], Field(description="Candidates that are not offered; there only with `candidates`.")
    ] = []


class Error(_Closed):
    """Why a request was not answered."""

    error: Annotated[str, Field(min_length=1, description="One sentence that names the field.")]
    status: Annotated[int, Field(ge=400, le=599)]


class BatchRequest(_Closed):
    """Several requests; a list of them without this object around it is read as well."""

    requests: Annotated[list[Request], Field(min_length=1, max_length=MAX_BATCH)]


class BatchAnswer(_Closed):
    """Answers in the order of the requests; an Error stands where a request can't be answered."""

    answers: Annotated[list[Answer | Error], Field(min_length=1, max_length=MAX_BATCH)]


def document() -> dict[str, Any]:
    """The OpenAPI document."""
    models = (Request, BatchRequest, Answer, BatchAnswer, Error)
    _, schemas = models_json_schema(
        [(model, "validation") for model in models], ref_template=COMPONENTS + "{model}"
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "CAR on Kubeflow: recommendations",
            "version": version("car-on-kubeflow"),
        },
        "servers": [{"url": "http://127.0.0.1:8080", "description": "The inference port of the server."}],
        "paths": {PATH: {"post": _operation()}},
        "components": {
            "schemas": dict(sorted(schemas["$defs"].items())),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation() -> dict[str, Any]:
    batch = {"type": "array", "items": _ref("Request"), "minItems": 1, "maxItems": MAX_BATCH}
    return {
        "operationId": "recommend",
        "summary": "Recommend items after one or several histories",
        "description": (
            f"A body has at most {MAX_BODY_BYTES} bytes of UTF-8 JSON, {MAX_DEPTH} levels deep, no name "
            "twice in an object. `thinking` is at most the number of levels of the release. A bad request "
            "of a batch gets its error in its place; only a malformed batch is refused as a whole."
        ),
        "security": [{"key": []}, {}],
        "requestBody": {
            "required": True,
            "content": _json({"oneOf": [_ref("Request"), _ref("BatchRequest"), batch]}, _examples()),
        },
        "responses": {
            "200": {
                "description": "An answer, or the answers to a batch.",
                "content": _json({"oneOf": [_ref("Answer"), _ref("BatchAnswer")]}),
            },
            "400": {"description": "The request is wrong.", "content": _json(_ref("Error"))},
            "413": {"description": f"The body has more than {4 * MAX_BODY_BYTES} bytes."},
            "500": {"description": "A defect of the server.", "content": _json(_ref("Error"))},
            "503": {
                "description": "Too many requests wait already, or no worker is up: ask again later.",
                "headers": {
                    "Retry-After": {
                        "description": "Seconds to wait. TorchServe does not say it: back off from 0.1 s.",
                        "schema": {"type": "integer", "minimum": 0},
                    }
                },
            },
            "507": {"description": "The worker was killed while it had the request: ask again."},
        },
    }


def _examples() -> dict[str, Any]:
    one = {"history": ["50", "172"], "k": 3}
    return {
        "one": {"value": one},
        "candidates": {"value": {**one, "candidates": ["1", "7", "181"], "thinking": 0}},
        "by action": {"value": {**one, "actions": [5, None], "rank_by": "action"}},
        "batch": {"value": {"requests": [one, {"history": []}]}},
    }


def _json(schema: dict[str, Any], examples: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"application/json": {"schema": schema, **({"examples": examples} if examples else {})}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": COMPONENTS + name}


def as_yaml() -> str:
    """The document as text."""
    return yaml.dump(document(), Dumper=_Plain, sort_keys=False, allow_unicode=True, width=110)
