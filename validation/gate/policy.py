"""The gate's policy: which numbers a release must reach, how much each matters, and why.

A policy is a YAML file. Everything about it is strict, because a typing error in a policy must never open
the gate: unknown fields, duplicate keys, two bounds, NaN bounds and missing reasons are all refused.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from common.digests import json_digest
from common.errors import UserError

DEFAULT_POLICY = Path(__file__).with_name("policy.yaml")
SIGNS = {"above": ">", "at_least": ">=", "below": "<", "at_most": "<="}
BOUNDS = (*SIGNS, "between")


class PolicyError(UserError, ValueError):
    """A policy that cannot be trusted; the message names file, field and reason."""


def _split_path(value: Any) -> Any:
    """Allow `paired.popularity.ndcg@10.low`; a list is for keys that hold a dot themselves."""
    return value.split(".") if isinstance(value, str) else value


def _refuse_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a bound is a number, not true or false")
    return value


def _in_order(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"the lower number comes first ({value[0]:g} is above {value[1]:g})")
    return value


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Bound = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(_refuse_bool)]
Range = Annotated[tuple[Bound, Bound], AfterValidator(_in_order)]
MetricPath = Annotated[tuple[Text, ...], Field(min_length=1), BeforeValidator(_split_path)]


class Condition(BaseModel):
    """One number of the evidence and the one bound it must keep."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Text
    metric: MetricPath  # keys into evaluation.json, outermost first
    above: Bound | None = None
    at_least: Bound | None = None
    below: Bound | None = None
    at_most: Bound | None = None
    between: Range | None = None  # both ends count
    severity: Literal["block", "warn"] = "block"
    # champion: compares with the production release; ranker: judges ranking by action, where there is one
    when: Literal["always", "champion", "ranker"] = "always"
    why: Text

    @model_validator(mode="after")
    def _one_bound(self) -> Condition:
        given = [kind for kind in BOUNDS if getattr(self, kind) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"give exactly one of {', '.join(BOUNDS)} (found {found})")
        return self

    @property
    def metric_name(self) -> str:
        """The path as people write it: keys joined by dots."""
        return ".".join(self.metric)

    @property
    def bound_text(self) -> str:
        """The bound as people read it, such as `>= -0.05` or `0.5 to 10`."""
        if self.between is not None:
            return f"{self.between[0]:g} to {self.between[1]:g}"
        kind = next(kind for kind in SIGNS if getattr(self, kind) is not None)
        return f"{SIGNS[kind]} {getattr(self, kind):g}"

    def holds(self, value: float) -> bool:
        """Whether a finite value keeps the bound."""
        if self.between is not None:
            return self.between[0] <= value <= self.between[1]
        return (
            (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
        )


class GatePolicy(BaseModel):
    """The conditions of one gate; its digest names it in every verdict."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    conditions: tuple[Condition, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _guards_something(self) -> GatePolicy:
        names = [condition.name for condition in self.conditions]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"condition names must differ; {', '.join(map(repr, twice))} is used twice")
        if not any(one.severity == "block" and one.when == "always" for one in self.conditions):
            raise ValueError("at least one condition needs 'severity: block' and 'when: always'; "
                             "without it a first release would pass unseen")  # fmt: skip
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the conditions as understood, independent of comments and layout."""
        return json_digest(self.model_dump(mode="json"))


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice instead of silently keeping the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {twice[0]!r} is given twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


def load_policy(path: Path | str | None = None) -> GatePolicy:
    """Read a policy file; None means the default that comes with the project.

    Raises:
        PolicyError: the file is missing, is not YAML, or breaks a rule of GatePolicy.
    """
    source = DEFAULT_POLICY if path is None else Path(path)
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(
            f"Gate policy {source} cannot be read ({error}); give the path of a YAML file."
        ) from error
    return parse_policy(text, str(source))


def parse_policy(text: str, name: str = "policy") -> GatePolicy:
    """Read a policy from YAML text; `name` is what errors call it.

    Raises:
        PolicyError: the text is not YAML or breaks a rule of GatePolicy.
    """
    try:
        raw = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 (a SafeLoader, only stricter)
    except (yaml.YAMLError, TypeError, RecursionError) as error:
        raise PolicyError(f"Gate policy {name} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(raw, dict):
        raise PolicyError(
            f"Gate policy {name} must be a mapping with the field 'conditions', not {type(raw).__name__}."
        )
    try:
        return GatePolicy.model_validate(raw)
    except ValidationError as error:
        raise PolicyError(_problems(name, raw, error)) from error


def _problems(name: str, raw: dict[Any, Any], error: ValidationError) -> str:
    """One sentence per mistake, with the condition's own name where it has one."""
    lines = [f"Gate policy {name}: {_place(raw, one['loc'])}: {one['msg'].removeprefix('Value error, ')}."
             for one in error.errors()]  # fmt: skip
    return " ".join(lines)


def _place(raw: dict[Any, Any], location: tuple[int | str, ...]) -> str:
    place = ".".join(str(part) for part in location) or "conditions"
    conditions = raw.get("conditions")
    match location:
        case ("conditions", int(index), *_) if isinstance(conditions, list) and isinstance(
            conditions[index], dict
        ):
            title = conditions[index].get("name")
            return f"{place} ({title})" if title else place
    return place
