"""The gate's policy: which numbers a release must reach, how much each matters, and why.

A policy is a YAML file. Everything about it is strict, because a typing error in a policy must never open
the gate: unknown fields, duplicate keys, two bounds, numbers that YAML reads in several ways, bounds that
nothing can break, and missing reasons are all refused. So is a policy without a comparison of quality.
"""

from __future__ import annotations

import math
import operator
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

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

from car_model.evidence.base import Text, number_range
from car_model.evidence.evaluation import Evaluation, Part
from common.digests import json_digest
from common.errors import UserError, shorten

DEFAULT_POLICY = Path(__file__).with_name("policy.yaml")
COMPARISONS = {
    "above": (">", operator.gt),
    "at_least": (">=", operator.ge),
    "below": ("<", operator.lt),
    "at_most": ("<=", operator.le),
}
BOUNDS = (*COMPARISONS, "between")
LARGEST = 1e12  # no evaluation holds a larger number
NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]*)(\.[0-9]+)?")
CHAMPION = ("champion", "drift", "paired.champion", "codebook.churn", "codebook.unexplained_new")
"""What conditions with `when: champion` may judge."""
TOLERANCES = {"difference": 0.0, "low": 0.0, "relative": -0.5, "relative_low": -0.5}
"""Fields of `paired.MODEL.METRIC` that compare quality, and the least that a bound on them must ask for."""

MESSAGES = {
    "missing": "is missing",
    "extra_forbidden": "there is no such field",
    "tuple_type": "must be a list",
    "model_type": "must have the fields name, metric, a bound and why",
    "too_short": "must not be empty",
    "string_type": "must be text (in quotes, if it looks like a number)",
}
"""What to say for pydantic's types of errors."""


class PolicyError(UserError):
    """A policy that cannot be trusted; the message names file, line, field and reason."""


def _check_path(path: tuple[str, ...]) -> tuple[str, ...]:
    number_range(Evaluation, path)
    return path


def _check_number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{shorten(value)} is not a number in plain digits, such as 0.05 (which is 5 %)")
    if not abs(value) <= LARGEST:
        raise ValueError(f"{value:g} is not a finite number that an evaluation can hold")
    return value


def _check_order(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"the lower number comes first ({value[0]:g} is above {value[1]:g})")
    return value


Bound = Annotated[float, BeforeValidator(_check_number)]
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
    when: Literal["always", "champion"] = "always"
    """`champion`: compares with the release in production; waived at a first release that asks for
    bootstrap."""
    required: bool = False
    """Whether it fails if the evaluation says that there was nothing to measure, such as a release without a
    ranker or a holdout without cold items; otherwise it is not applicable then."""
    why: Text
    """The reason for the condition, shown in the gate table."""

    @model_validator(mode="after")
    def _one_bound(self) -> Condition:
        bounds = [kind for kind in BOUNDS if getattr(self, kind) is not None]
        if len(bounds) != 1:
            names = " and ".join(bounds) or "none"
            raise ValueError(f"give exactly one of {', '.join(BOUNDS)} (found {names})")
        return self

    @model_validator(mode="after")
    def _fits_its_metric(self) -> Condition:
        parts = CHAMPION if self.when == "champion" else [self.metric[0]]
        if not any(f"{self.metric_name}.".startswith(f"{part}.") for part in parts):
            raise ValueError(f"'when: {self.when}' is for numbers of {', '.join(parts)}")
        least, most = number_range(Evaluation, self.metric)
        where = (
            f"{self.metric_name} is {f'{least:g} to {most:g}' if most < math.inf else f'{least:g} or more'}"
        )
        low, high = self.limits
        for number in (low, high):
            if math.isfinite(number) and not least <= number <= most:
                percent = f"; {number:g} % is {number / 100:g}" if most == 1 < number <= 100 else ""
                raise ValueError(f"{number:g} is out of reach: {where}{percent}")
        if low <= least and high >= most and self.above is None and self.below is None:
            raise ValueError(f"{self.bound_text} can't fail: {where}")
        if self.above == most or self.below == least:
            raise ValueError(f"{self.bound_text} can't hold: {where}")
        return self

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and the highest number that the bound names; infinite if it names none."""
        if self.between is not None:
            return self.between
        low = self.above if self.above is not None else self.at_least
        high = self.below if self.below is not None else self.at_most
        return -math.inf if low is None else low, math.inf if high is None else high

    @property
    def compares_quality(self) -> bool:
        """Whether a challenger that is clearly worse than another model fails the condition.

        One that need not be measured does not count.
        """
        parts = [part for part in get_args(Part) if f"{self.metric_name}.".startswith(f"{part}.")]
        strict = self.limits[0] >= TOLERANCES.get(self.metric[-1], math.inf)
        return self.metric[0] == "paired" and strict and (self.required or not parts)

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
    """All are judged. At least one that blocks always must compare quality with another model's."""

    @model_validator(mode="after")
    def _guards_something(self) -> GatePolicy:
        names = [condition.name for condition in self.conditions]
        duplicates = sorted({name for name in names if names.count(name) > 1})
        if duplicates:
            raise ValueError(f"condition names must differ; {', '.join(map(repr, duplicates))} is used twice")
        always = [each for each in self.conditions if each.severity == "block" and each.when == "always"]
        if not any(each.compares_quality for each in always):
            raise ValueError(
                "at least one condition with 'severity: block' and 'when: always' must compare quality, "
                "such as paired.popularity.ndcg@10.low above 0: a lower bound of 0 or more on difference "
                "or low, or of -0.5 or more on relative or relative_low"
            )
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the conditions as understood, independent of comments and layout."""
        return json_digest(self.model_dump(mode="json"))


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
    lines: dict[tuple[int | str, ...], int] = {}
    try:
        raw = _read(text, lines)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise PolicyError(f"Gate policy {name} is not valid YAML: {line}{error.problem}.") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise PolicyError(f"Gate policy {name} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(raw, dict):
        raise PolicyError(f"Gate policy {name} must be a mapping with the field 'conditions'.")
    try:
        return GatePolicy.model_validate(raw)
    except ValidationError as error:
        problems = []  # one sentence for each, with its line and the condition's own name
        errors = error.errors()
        others = [each for each in errors if each["type"] != "too_short" or len(each["loc"]) > 1]
        for problem in others or errors:  # (a list of broken conditions counts as empty, too)
            location, title = problem["loc"], None
            if len(location) > 1 and isinstance(raw["conditions"], list):
                condition = raw["conditions"][int(location[1])]
                title = condition.get("name") if isinstance(condition, dict) else None
            below = [location[:n] for n in range(len(location), -1, -1)]
            line_number = next(lines[path] for path in below if path in lines)
            field = ".".join(map(str, location)) or "conditions"
            message = MESSAGES.get(problem["type"], problem["msg"].removeprefix("Value error, "))
            problems.append(f"line {line_number}, {field}{f' ({title})' if title else ''}: {message}.")
        raise PolicyError(f"Gate policy {name}: {' '.join(problems)}") from error


Lines = dict[tuple[int | str, ...], int]  # the line of every path of keys


def _read(text: str, lines: Lines) -> Any:
    """Read YAML in the one way in which everybody reads it, and note lines.

    Only plain digits are numbers; 1:30, 0x10, 010, 1_000, 1e3, .inf and yes stay text, which no bound takes.
    """
    for token in yaml.scan(text):
        if isinstance(token, yaml.AnchorToken | yaml.AliasToken | yaml.TagToken | yaml.DirectiveToken):
            problem = "anchors (&), aliases (*), tags (!) and directives (%) are refused; write values out"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=token.start_mark)
    return _value(yaml.compose(text, Loader=yaml.BaseLoader), (), lines)


def _value(node: yaml.Node | None, path: tuple[int | str, ...], lines: Lines) -> Any:
    lines[path] = node.start_mark.line + 1 if node else 1
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, i), lines) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        members: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in members:
                simple = isinstance(key, yaml.ScalarNode)
                problem = f"the key {shorten(key.value)} is given twice" if simple else "a key is not text"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            members[key.value] = _value(value, (*path, key.value), lines)
        return members
    if not isinstance(node, yaml.ScalarNode) or (node.style is None and node.value in ("", "~", "null")):
        return None
    return float(node.value) if node.style is None and NUMBER.fullmatch(node.value) else node.value
