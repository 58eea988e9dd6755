"""Readable labels of a codebook's codes, as they are stored and shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FILE = "labels.json"


@dataclass(frozen=True)
class CodeLabels:
    """`words[level][code]`: a label, "" for a code no item uses."""

    words: list[list[str]]

    def path(self, sids: Sequence[int]) -> list[str]:
        """Labels of one SID, level by level."""
        return [level[code] or f"code {code}" for level, code in zip(self.words, sids, strict=True)]

    def save(self, folder: Path) -> None:
        """Write labels.json."""
        (folder / FILE).write_text(json.dumps(self.words, ensure_ascii=False, indent=0) + "\n")

    @classmethod
    def load(cls, folder: Path) -> CodeLabels:
        """Read labels.json."""
        return cls(json.loads((folder / FILE).read_text()))
