"""CSV tables of measurements: one typed row per run, every number kept with all its digits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Self, TypeVar

import pandas as pd
from pydantic import BaseModel, ConfigDict

from common.files import atomic_path


class Row(BaseModel):
    """A row of a table: a frozen model whose fields are the columns."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=()
    )


class Range(Row):
    """Median and extremes over the rounds of a measurement."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Summarise the values of all rounds."""
        numbers = [float(value) for value in values]
        return cls(median=median(numbers), min=min(numbers), max=max(numbers))

    def text(self, form: str = "{:.3g}", scale: float = 1.0) -> str:
        """`median (min-max)`, each number multiplied by `scale`."""
        middle, low, high = (form.format(scale * value) for value in (self.median, self.min, self.max))
        return f"{middle} ({low}-{high})"


RowType = TypeVar("RowType", bound=Row)


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write a table in one step. Lists and objects are stored as compact JSON, None as an empty cell."""
    columns = list(type(rows[0]).model_fields)
    cells = [[_encode(value) for value in row.model_dump(mode="json").values()] for row in rows]
    with atomic_path(path) as temporary:
        pd.DataFrame(cells, columns=columns).to_csv(temporary, index=False, lineterminator="\n")


def read_rows(path: Path, row_type: type[RowType]) -> list[RowType]:
    """Read a table; one that does not exist yet has no rows."""
    if not path.is_file():
        return []
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    return [
        row_type.model_validate({str(name): _decode(cell) for name, cell in record.items()})
        for record in frame.to_dict("records")
    ]


def append_row(path: Path, row: Row) -> None:
    """Add one row at the end of a table."""
    write_rows(path, [*read_rows(path, type(row)), row])


def _encode(value: Any) -> str:
    """Text stands as it is unless it reads as JSON (`12`, `true`); then it is quoted."""
    if value is None:
        return ""
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError:
            return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _decode(cell: str) -> Any:
    if not cell:
        return None
    try:
        return json.loads(cell)
    except ValueError:
        return cell
