"""What steps write down for other steps and for people: frozen models, read and written as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from common.errors import UserError, first_problem
from common.files import read_json_object, write_atomic

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Digest = Text


def alias(name: str) -> Any:
    """Another name for a field in JSON; in Python it keeps its own."""
    return Field(validation_alias=name, serialization_alias=name)


class EvidenceError(UserError):
    """An evidence file that cannot be read, or does not say what it must."""


class Evidence(BaseModel):
    """Base of everything in a piece of evidence.

    Strict: a number is a finite number, never a text or a truth value.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )


class EvidenceFile(Evidence):
    """Evidence that is a file of its own."""

    step: ClassVar[str]
    """The pipeline step that writes the file."""

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Read what `write` wrote.

        Raises EvidenceError if the file is missing, is not JSON, or does not validate.
        """
        return cls.from_object(cls.read_object(path), str(path))

    @classmethod
    def from_object(cls, value: Mapping[str, Any], name: str) -> Self:
        """Validate a JSON object, which errors call `name`. Raises EvidenceError."""
        try:
            return cls.model_validate_json(json.dumps(value))
        except ValidationError as error:
            problem = first_problem(error).rstrip(".")
        raise EvidenceError(f"{name} cannot be trusted: {problem}; run the {cls.step} step again.")

    @classmethod
    def read_object(cls, path: Path | str) -> dict[str, Any]:
        """Read the file's JSON object without checking what it holds. Raises EvidenceError."""
        return read_json_object(Path(path), EvidenceError, f"run the {cls.step} step again")

    def write(self, path: Path | str) -> None:
        """Write the file whole or not at all."""
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
        write_atomic(Path(path), f"{text}\n")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, as written."""
        return self.model_dump(mode="json")

    @classmethod
    def salvage(cls, value: Mapping[str, Any]) -> Self:
        """Make the best of damaged evidence: whatever does not validate counts as missing.

        Only for showing evidence to people. The gate judges the file as it is.

        Raises EvidenceError if nothing is left, since what is damaged can't be left out.
        """
        value = json.loads(json.dumps(value))
        while True:
            try:
                return cls.model_validate_json(json.dumps(value))
            except ValidationError as error:
                errors = error.errors()
            dropped = [_drop(value, error["loc"], error["type"] == "missing") for error in errors]
            if not any(dropped):  # (errors inside an object that is gone drop nothing)
                raise EvidenceError(f"This {cls.step} evidence is damaged beyond repair: {errors[0]['msg']}.")


def _drop(value: Any, location: tuple[int | str, ...], missing: bool) -> bool:
    """Remove the object or value at a pydantic error's location, a list whole; say whether it was there.

    Locations hold more than keys: tags of unions and "[key]".
    """
    holders: list[tuple[dict[str, Any], str]] = []  # the way down, objects only
    for step in location[:-1] if missing else location:
        if isinstance(value, dict) and isinstance(step, str) and step in value:
            holders.append((value, step))
            value = value[step]
        elif isinstance(value, list):
            break
    for holder, key in holders[-1:]:
        holder.pop(key, None)
    return bool(holders)


def number_range(model: type[BaseModel], path: tuple[str, ...]) -> tuple[float, float]:
    """The smallest and the largest number that a file of a model can hold at a path of keys.

    Keys of mappings stay open (names of models and slices), unless their type lists them.

    Raises ValueError if the file can't hold a number there; the message says why, in words.
    """
    schema = _schema(model)
    nodes = [schema]
    for depth, key in enumerate(path):
        children: dict[str, Any] = {}  # schemas by key
        for node in _alternatives(schema, nodes):
            children |= node.get("properties", {})
            if values := node.get("additionalProperties"):
                (keys,) = _alternatives(schema, [node.get("propertyNames", {})])
                children |= dict.fromkeys(keys.get("enum", [key]), values)
        if key not in children:
            parent = f"'{'.'.join(path[:depth])}'" if depth else "an evaluation"
            names = f"it has {', '.join(children)}" if children else "it has no parts"
            raise ValueError(f"{parent} has no '{key}' ({names})")
        nodes = [children[key]]
    numbers = [node for node in _alternatives(schema, nodes) if node.get("type") in ("number", "integer")]
    if not numbers:
        raise ValueError(f"'{'.'.join(path)}' is not a number")
    return (
        min(node.get("minimum", -math.inf) for node in numbers),
        max(node.get("maximum", math.inf) for node in numbers),
    )


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(mode="serialization")


def _alternatives(schema: dict[str, Any], nodes: list[Any]) -> list[dict[str, Any]]:
    """Nodes of a JSON schema with references followed and unions taken apart."""
    plain: list[dict[str, Any]] = []
    for node in nodes:
        if "$ref" in node:
            plain += _alternatives(schema, [schema["$defs"][node["$ref"].rpartition("/")[2]]])
        elif unions := node.get("anyOf") or node.get("oneOf"):
            plain += _alternatives(schema, unions)
        else:
            plain.append(node)
    return plain
