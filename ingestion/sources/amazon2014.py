"""The 5-core sets of the Amazon Reviews 2014 data, with the numbering that sequential papers share.

Research use; cite He and McAuley 2016, and McAuley et al. 2015. The files are read in place, except the
catalogue: its categories are nested lists, so the cache gets a copy as flat text.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from common.digests import file_digest
from common.files import write_atomic
from ingestion.config import DatasetConfig, IngestError, InteractionSource, ItemSource

INTERACTIONS = "interactions.tsv"
ITEMS = "items.jsonl"
OPTIONAL = {"timestamp": "date", "action": "liked"}
TEXT = ("title", "categories", "attributes", "tags")


def dataset(data_dir: Path, cache_dir: Path, set_name: str | None = None) -> DatasetConfig:
    """Describe one set: `data_dir` is its folder, or the folder above it with the set's name.

    `position` gives the order. `date` and `liked` are mapped if every row has them (Toys and Games).

    Raises:
        IngestError: the folder is not such a set, or a line of its catalogue is broken.
    """
    folder = _set_folder(data_dir, set_name)
    records = []
    with (folder / ITEMS).open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                records.append(_flat(json.loads(line)))
            except ValueError as error:
                raise IngestError(f"{folder / ITEMS}, line {number}, is not JSON ({error}).") from error
    content = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    cached = cache_dir / "amazon2014" / file_digest(folder / ITEMS)[:16] / ITEMS
    items = write_atomic(cached, content)
    text = [name for name in TEXT if any(record.get(name) for record in records)]
    complete = _complete_columns(folder / INTERACTIONS, list(OPTIONAL.values()))
    columns = {"user_id": "user_id", "item_id": "item_id", "position": "position"}
    columns |= {name: column for name, column in OPTIONAL.items() if column in complete}
    return DatasetConfig(
        name=f"amazon2014-{folder.name}",
        interactions=InteractionSource(location=str(folder / INTERACTIONS), columns=columns, quote=""),
        items=ItemSource(
            location=str(items),
            columns={name: name for name in ("item_id", *text)},
            markup="keep",  # published numbers are of these texts
        ),
        text_columns=tuple(text),
        cold_items="drop",  # published numbers rank the items of the core
        action_min=0 if "action" in columns else None,
        action_max=1 if "action" in columns else None,
    )


def _set_folder(data_dir: Path, set_name: str | None) -> Path:
    folder = (data_dir / set_name if set_name else data_dir).resolve()
    missing = [name for name in (INTERACTIONS, ITEMS) if not (folder / name).is_file()]
    if not missing:
        return folder
    below = sorted(path.parent.name for path in folder.glob(f"*/{INTERACTIONS}"))
    hint = f"point DATA_DIR at one of its sets: {', '.join(below)}." if below else "check DATA_DIR."
    raise IngestError(f"{folder} has no {missing[0]}; {hint}")


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """Nested categories -> "A > B; C > D". Tags replace a missing title, and then are not repeated."""
    title, tags = record.get("title"), record.get("tags")
    return {
        "item_id": record.get("item_id"),
        "title": title or tags,
        "categories": "; ".join(" > ".join(path) for path in record.get("categories") or []) or None,
        "attributes": ", ".join(record.get("attributes") or []) or None,
        "tags": tags if title else None,
    }


def _complete_columns(path: Path, names: list[str]) -> set[str]:
    """Those of the columns that have a value in every row."""
    try:
        table = pyarrow.csv.read_csv(
            path,
            parse_options=pyarrow.csv.ParseOptions(delimiter="\t", quote_char=False),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
            ),
        )
    except pa.ArrowInvalid as error:
        raise IngestError(f"{path} cannot be read as tab-separated text: {error}.") from error
    return {name for name in names if name in table.column_names and table[name].null_count == 0}
