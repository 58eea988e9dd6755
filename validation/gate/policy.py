"""The gate's policy: which numbers a release must reach, how much each matters, and why.

A policy is a YAML file. Everything about it is strict, because a typing error in a policy must never open
the gate: unknown fields, duplicate keys, two bounds, NaN bounds and missing reasons are all refused.
"""

from __future__ import annotations

import operator
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
    ValidationError,
    model_validator,
)

from car_model.evidence.base import Text, number_problem
from car_model.evidence.evaluation import Evaluation
from common.digests import json_digest
from common.errors import UserError

DEFAULT_POLICY = Path(__file__).with_name("policy.yaml")
COMPARISONS = {
    "above": (">", operator.gt),
    "at_least": (">=", operator.ge),
    "below": ("<", operator.lt),
    "at_most": ("<=", operator.le),
}
BOUNDS = (*COMPARISONS, "between")


class PolicyError(UserError):
    """A policy that cannot be trusted; the message names file, field and reason."""


def _check_path(path: tuple[str, ...]) -> tuple[str, ...]:
    if problem := number_problem(Evaluation, path):
        raise ValueError(problem)
    return path


def _refuse_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a bound is a number, not true or false")
    return value


def _check_order(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"the lower number comes first ({value[0]:g} is above {value[1]:g})")
    return value


Bound = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(_refuse_bool)]
Range = Annotated[tuple[Bound, Bound], AfterValidator(_check_order)]
MetricPath = Annotated[
    tuple[Text, ...],
    Field(min_length=1),
    BeforeValidator(lambda value: value.split(".") if isinstance(value, str) else value),
    AfterValidator(_check_path),
]


class Condition(BaseModel):
    """One number of the evaluation and the one bound that it must keep."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: Text
    """What people call the condition; unique in a policy."""
    metric: MetricPath
    """Keys into the evaluation, outermost first: joined by dots, or a list if a key holds a dot itself."""
    above: Bound | None = None
    """The value must be greater. A condition has exactly one bound."""
    at_least: Bound | None = None
    """The value must be greater or equal."""
    below: Bound | None = None
    """The value must be smaller."""
    at_most: Bound | None = None
    """The value must be smaller or equal."""
    between: Range | None = None
    """[low, high]: the value must lie between the two, or be one of them."""
    severity: Literal["block", "warn"] = "block"
    """What a failure does: `block` stops the release, `warn` only reports."""
    when: Literal["always", "champion", "ranker"] = "always"
    """`champion`: compares with the release in production; waived at a first release that asks for bootstrap.
    `ranker`: judges the action ranker; passes if the evaluation says that the release has none."""
    why: Text
    """The reason for the condition, shown in the gate table."""

    @model_validator(mode="after")
    def _one_bound(self) -> Condition:
        bounds = [kind for kind in BOUNDS if getattr(self, kind) is not None]
        if len(bounds) != 1:
            names = " and ".join(bounds) or "none"
            raise ValueError(f"give exactly one of {', '.join(BOUNDS)} (found {names})")
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
        kind = next(kind for kind in COMPARISONS if getattr(self, kind) is not None)
        return f"{COMPARISONS[kind][0]} {getattr(self, kind):g}"

    def holds(self, value: float) -> bool:
        """Whether a finite value keeps the bound."""
        if self.between is not None:
            return self.between[0] <= value <= self.between[1]
        kind = next(kind for kind in COMPARISONS if getattr(self, kind) is not None)
        return bool(COMPARISONS[kind][1](value, getattr(self, kind)))


class GatePolicy(BaseModel):
    """The conditions of one gate; its digest names it in every verdict."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    conditions: tuple[Condition, ...] = Field(min_length=1)
    """All are judged. At least one must block and apply always."""

    @model_validator(mode="after")
    def _guards_something(self) -> GatePolicy:
        names = [condition.name for condition in self.conditions]
        duplicates = sorted({name for name in names if names.count(name) > 1})
        if duplicates:
            raise ValueError(f"condition names must differ; {', '.join(map(repr, duplicates))} is used twice")
        if not any(each.severity == "block" and each.when == "always" for each in self.conditions):
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
        duplicates = [key for key in keys if keys.count(key) > 1]
        if duplicates:
            problem = f"the key {duplicates[0]!r} is given twice"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return super().construct_mapping(node, deep)


def load_policy(path: Path | str | None = None) -> GatePolicy:
    """Read a policy file; None means the default that comes with the project.

    Raises PolicyError if the file is missing, is not YAML, or breaks a rule of GatePolicy.
    """
    source = DEFAULT_POLICY if path is None else Path(path)
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"Gate policy {source} cannot be read ({error}); give the path of a YAML file."
        raise PolicyError(message) from error
    return parse_policy(text, str(source))


def parse_policy(text: str, name: str = "policy") -> GatePolicy:
    """Read a policy from YAML text; `name` is what errors call it.

    Raises PolicyError if the text is not YAML or breaks a rule of GatePolicy.
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
        problems = []  # one sentence for each mistake, with the condition's own name if it has one
        for problem in error.errors():
            location, title = problem["loc"], None
            if len(location) > 1 and isinstance(raw["conditions"], list):
                condition = raw["conditions"][int(location[1])]
                title = condition.get("name") if isinstance(condition, dict) else None
            field = ".".join(map(str, location)) or "conditions"
            message = problem["msg"].removeprefix("Value error, ")
            problems.append(f"{field}{f' ({title})' if title else ''}: {message}.")
        raise PolicyError(f"Gate policy {name}: {' '.join(problems)}") from error
