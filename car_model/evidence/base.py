"""What steps write down for other steps and for people: frozen models, read and written as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin

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


def number_problem(model: Any, path: tuple[str, ...]) -> str:
    """Why no file of a model can hold a number at a path of keys, in words; "" if it can.

    Keys of mappings stay open (names of models and slices), unless their type lists them.
    """
    types = [model]
    for depth, key in enumerate(path):
        children: dict[str, Any] = {}  # types by key
        for kind in _alternatives(types):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                fields = kind.model_fields.items()
                children |= {
                    str(field.serialization_alias or name): field.annotation for name, field in fields
                }
            elif get_origin(kind) is dict:
                keys, value = get_args(kind)
                children |= dict.fromkeys(get_args(keys) if get_origin(keys) is Literal else [key], value)
        if key not in children:
            parent = f"'{'.'.join(path[:depth])}'" if depth else "an evaluation"
            names = f"it has {', '.join(children)}" if children else "it has no parts"
            return f"{parent} has no '{key}' ({names})"
        types = [children[key]]
    is_number = any(kind in (int, float) for kind in _alternatives(types))
    return "" if is_number else f"'{'.'.join(path)}' is not a number"


def _alternatives(types: list[Any]) -> list[Any]:
    """Types with unions taken apart and without Annotated."""
    plain = []
    for kind in types:
        if get_origin(kind) is Annotated:
            plain += _alternatives([get_args(kind)[0]])
        elif get_origin(kind) in (Union, UnionType):
            plain += _alternatives(list(get_args(kind)))
        else:
            plain.append(kind)
    return plain
