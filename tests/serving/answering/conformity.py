"""Whether answers are what the OpenAPI document says."""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator

from serving.answering.openapi import COMPONENTS, PATH, document

DOCUMENT = document()


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    """A validator of one schema of the document; OpenAPI 3.1 schemas are JSON Schema 2020-12."""
    return Draft202012Validator({**schema, "components": DOCUMENT["components"]})


def named(name: str) -> Draft202012Validator:
    return validator({"$ref": COMPONENTS + name})


def body_of(part: dict[str, Any]) -> Draft202012Validator:
    return validator(part["content"]["application/json"]["schema"])


OPERATION = DOCUMENT["paths"][PATH]["post"]
REQUEST = body_of(OPERATION["requestBody"])
RESPONSES = {
    int(status): body_of(response)
    for status, response in OPERATION["responses"].items()
    if "content" in response
}


def conforms(status: int, answer: Any) -> bool:
    """Whether the document knows this answer under this status, and its sentence is one."""
    if status not in RESPONSES or not RESPONSES[status].is_valid(answer):
        return False
    return status == 200 or (answer["status"] == status and one_sentence(answer["error"]))


def one_sentence(text: str) -> bool:
    return text.endswith(".") and text.isprintable() and len(text) < 300
