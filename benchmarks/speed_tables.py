"""Sections of the results page beside accuracy: what each benchmark wrote, by its own tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import (
    churn,
    cold_items,
    inference,
    mfu,
    rank_by,
    ranking_speed,
    rollover_tables,
    scale,
    serving_speed,
    shortlist,
    training_speed,
)
from benchmarks.report.table import Sheet

FOLDER = Path("benchmarks/results/speed")
NOTES = Path("benchmarks/notes")
SECTIONS: dict[str, tuple[str, str, Callable[[dict[str, Any]], list[Sheet]]]] = {
    "inference-toys": ("Inference", "python -m benchmarks.inference --data-dir PATH", inference.sheets),
    "serving": ("Serving", "python -m benchmarks.serving_speed --data PATH", serving_speed.sheets),
    "rollover": ("Rollovers under load", "python -m benchmarks.rollover", rollover_tables.sheets),
    "training": ("Training", "python -m benchmarks.training_speed --data-dir PATH", training_speed.sheets),
    "mfu": ("Training on a GPU", "python -m benchmarks.training_speed --fill --data-dir PATH", mfu.sheets),
    "ranking": ("Ranking by action: speed", "python -m benchmarks.ranking_speed", ranking_speed.sheets),
    "rank_by": ("Ranking by action: answers", "python -m benchmarks.rank_by", rank_by.sheets),
    "churn": ("Churn of codebooks", "python -m benchmarks.churn --data PATH ...", churn.sheets),
    "cold_items": ("Cold items", "python -m benchmarks.cold_items --data PATH", cold_items.sheets),
    "scale": ("Scale", "python -m benchmarks.scale", scale.sheets),
    "shortlist": ("Answers from a shortlist", "python -m benchmarks.shortlist --data PATH", shortlist.sheets),
}


def speed_sections() -> list[str]:
    """A section a benchmark that was run: command, machine, tables, remarks."""
    parts = []
    for name, (title, command, sheets) in SECTIONS.items():
        path = FOLDER / f"{name}.json"
        if not path.is_file():
            continue
        found = json.loads(path.read_text())
        parts += [f"## {title}\n", f"`{command}` on: {found['machine']}.\n"]
        parts += [sheet.markdown() for sheet in sheets(found)]
        note = NOTES / f"{name}.md"
        parts += [note.read_text()] if note.is_file() else []
    return parts
