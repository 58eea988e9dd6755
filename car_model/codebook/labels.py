"""Readable labels of a codebook's codes, as they are stored and shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

FILE = "labels.json"
JOIN = ", "


@dataclass(frozen=True)
class CodeLabels:
    """What codes are called.

    Attributes:
        words: `[level][code]` a label of the code's items together, "" for a code no item uses. A single item
            need not carry its words.
        items: by item id, per level the words of its code that the item itself carries, "" for none.
    """

    words: list[list[str]]
    items: dict[str, list[str]] = field(default_factory=dict)

    def path(self, sids: Sequence[int]) -> list[str]:
        """Labels of one SID, level by level."""
        return [level[code] or f"code {code}" for level, code in zip(self.words, sids, strict=True)]

    def own(self, item_id: str, title: str, sids: Sequence[int]) -> list[str]:
        """Per level the words of the code that this item carries, "" for none.

        Of an item that came without a text, such as one onboarded since, the title is all there is to go by.
        """
        if item_id in self.items:
            return self.items[item_id]
        carried = title.casefold().split()
        labels = [level[code].split(JOIN) for level, code in zip(self.words, sids, strict=True)]
        return [JOIN.join(word for word in label if word.casefold() in carried) for label in labels]

    def extended(self, newer: CodeLabels) -> CodeLabels:
        """These labels of the codes, and of the items also what newer labels of the same codes know."""
        return CodeLabels(self.words, {**self.items, **newer.items})

    def save(self, folder: Path) -> None:
        """Write labels.json."""
        content = {"words": self.words, "items": self.items}
        (folder / FILE).write_text(json.dumps(content, ensure_ascii=False, indent=0) + "\n", "utf-8")

    @classmethod
    def load(cls, folder: Path) -> CodeLabels:
        """Read labels.json; a plain list of levels, the older form, knows no items."""
        content = json.loads((folder / FILE).read_text("utf-8"))
        return cls(content) if isinstance(content, list) else cls(content["words"], content["items"])
