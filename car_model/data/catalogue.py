"""The catalogue: each item's UID and SID. UIDs are row numbers from 1 and are only ever appended.

Along a lineage of releases an item keeps its UID for ever. An item that is no longer offered is *retired*:
histories may still name it, but it is not recommended.

Shape letters: N items, L levels, A axes of texts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common.digests import json_digest
from common.errors import UserError


class CatalogueError(UserError):
    """The catalogue is inconsistent or unreadable; the message says why."""


@dataclass(frozen=True)
class Catalogue:
    """Items in UID order."""

    item_ids: list[str]  # [N] unique; the item with UID u is item_ids[u - 1]
    titles: list[str]  # [N]
    sids: np.ndarray  # int32 [N, L]
    retired: frozenset[str] = frozenset()  # ids of items that are no longer offered
    text: np.ndarray | None = None  # float32 [N, A] coordinates of texts (`Codebook.coordinates`), if any

    def __post_init__(self) -> None:
        if not len(self.item_ids) == len(self.titles) == len(self.sids):
            raise CatalogueError("item ids, titles and SIDs differ in number.")
        if self.text is not None and (self.text.ndim != 2 or len(self.text) != len(self.sids)):
            raise CatalogueError("the coordinates of the texts are not a table [items, axes].")
        if self.sids.ndim != 2:
            raise CatalogueError("the SIDs are no table [items, levels]; the catalogue is empty or damaged.")
        if len(self.uids) != len(self.item_ids):
            double = next(item for uid, item in enumerate(self.item_ids, 1) if self.uids[item] != uid)
            raise CatalogueError(f"item {double!r} is in the catalogue twice.")
        if unknown := self.retired - set(self.uids):
            raise CatalogueError(f"item {min(unknown)!r} is retired but not in the catalogue.")

    @cached_property
    def uids(self) -> dict[str, int]:
        """UID by item id."""
        return {item: uid for uid, item in enumerate(self.item_ids, start=1)}

    @property
    def size(self) -> int:
        """Number of items, and the highest UID."""
        return len(self.item_ids)

    @cached_property
    def offered(self) -> set[str]:
        """Ids of the items that may be recommended."""
        return set(self.uids) - self.retired

    @cached_property
    def barred(self) -> list[int]:
        """UIDs that are never recommended: padding (0) and retired items."""
        return [0, *sorted(self.uids[item] for item in self.retired)]

    @cached_property
    def sid_table(self) -> np.ndarray:
        """Codes by UID, int64 [N + 1, L]; row 0 is padding."""
        return np.pad(self.sids.astype(np.int64), ((1, 0), (0, 0)))

    @cached_property
    def text_table(self) -> np.ndarray | None:
        """Coordinates of texts by UID, float32 [N + 1, A]; row 0 is padding."""
        return None if self.text is None else np.pad(self.text, ((1, 0), (0, 0)))

    @cached_property
    def digest(self) -> str:
        """Version of the catalogue: ids, titles, SIDs and texts in UID order, and what is retired."""
        parts: list[Any] = [self.item_ids, self.titles, self.sids.tolist()]
        if self.retired or self.text is not None:
            parts.append(sorted(self.retired))
        if self.text is not None:
            parts.append(hashlib.sha256(self.text.astype("<f2").tobytes()).hexdigest())
        return json_digest(parts)

    def without(self, items: Set[str]) -> Catalogue:
        """This catalogue without some items; the others move up."""
        rows = [row for row, item in enumerate(self.item_ids) if item not in items]
        return Catalogue(
            [self.item_ids[row] for row in rows],
            [self.titles[row] for row in rows],
            self.sids[rows],
            self.retired - items,
            None if self.text is None else self.text[rows],
        )

    def append(
        self, item_ids: Sequence[str], titles: Sequence[str], sids: np.ndarray, text: np.ndarray | None = None
    ) -> Catalogue:
        """This catalogue with new items after the old ones, whose UIDs, SIDs and texts stay."""
        _check_texts(self.text, text)
        return Catalogue(
            [*self.item_ids, *item_ids],
            [*self.titles, *titles],
            np.concatenate([self.sids, sids]),
            self.retired,
            None if text is None or self.text is None else np.concatenate([self.text, text]),
        )

    def extend_lineage(
        self, offered: Catalogue, recoded: tuple[np.ndarray, np.ndarray | None] | None = None
    ) -> Catalogue:
        """The next catalogue of this lineage: what is offered now, in any order, under this one's UIDs.

        `recoded` are new SIDs [N, L] and texts [N, A] of this catalogue's items; used for those that are no
        longer offered.
        """
        sids, text = (self.sids, self.text) if recoded is None else recoded
        _check_texts(text, offered.text)
        rows = np.array([offered.uids.get(item, 0) for item in self.item_ids], dtype=np.int64) - 1
        still = rows >= 0
        new = [uid - 1 for item, uid in offered.uids.items() if item not in self.uids]

        def merge(old: np.ndarray, now: np.ndarray) -> np.ndarray:
            """Values of this catalogue's items, updated if still offered, then those of new items."""
            merged = old.copy()
            merged[still] = now[rows[still]]
            return np.concatenate([merged, now[new]])

        return Catalogue(
            [*self.item_ids, *(offered.item_ids[row] for row in new)],
            merge(np.array(self.titles, dtype=object), np.array(offered.titles, dtype=object)).tolist(),
            merge(sids, offered.sids),
            frozenset(set(self.item_ids) - set(offered.item_ids)),
            None if text is None or offered.text is None else merge(text, offered.text),
        )

    def save(self, path: Path) -> None:
        """Write Parquet: item_id, uid, sids and title; `text` and `retired` if there are any."""
        columns = {
            "item_id": pa.array(self.item_ids, pa.string()),
            "uid": pa.array(range(1, self.size + 1), pa.int64()),
            "sids": pa.array(self.sids.tolist(), pa.list_(pa.int32())),
            "title": pa.array(self.titles, pa.string()),
        }
        if self.text is not None:
            flat = pa.array(np.ascontiguousarray(self.text, dtype=np.float16).ravel())
            columns["text"] = pa.FixedSizeListArray.from_arrays(flat, self.text.shape[1])
        if self.retired:
            columns["retired"] = pa.array([item in self.retired for item in self.item_ids], pa.bool_())
        pq.write_table(pa.table(columns), path)

    @classmethod
    def load(cls, path: Path) -> Catalogue:
        """Read what `save` wrote. Raises CatalogueError if it is missing or damaged."""
        try:
            table = pq.read_table(path).sort_by("uid")
            columns = {name: table[name].to_pylist() for name in ("item_id", "uid", "sids", "title")}
            sids = np.array(columns["sids"], dtype=np.int32)
            flags = table["retired"].to_pylist() if "retired" in table.column_names else []
            text = None
            if "text" in table.column_names:
                column = table["text"].combine_chunks()
                flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
                if not np.isfinite(flat).all():
                    raise ValueError("the coordinates of the texts hold NaN or infinity")
                text = flat.reshape(len(table), column.type.list_size)
        except (OSError, pa.ArrowException, KeyError, ValueError, TypeError, OverflowError) as error:
            raise CatalogueError(f"the catalogue {path} can't be read: {error}") from error
        if columns["uid"] != list(range(1, len(table) + 1)):
            raise CatalogueError(f"the UIDs in {path} are not 1..{len(table)}; the catalogue is damaged.")
        if not all(isinstance(value, str) for value in (*columns["item_id"], *columns["title"])):
            raise CatalogueError(f"some item_id or title in {path} is not text; the catalogue is damaged.")
        retired = frozenset(item for item, gone in zip(columns["item_id"], flags, strict=False) if gone)
        return cls(columns["item_id"], columns["title"], sids, retired, text)


def _check_texts(before: np.ndarray | None, added: np.ndarray | None) -> None:
    """Refuse to join items with text coordinates and items without, or with another number of axes."""
    if (before is None) != (added is None):
        raise CatalogueError("either all items of a catalogue have the coordinates of their texts, or none.")
    if before is not None and added is not None and before.shape[1] != added.shape[1]:
        raise CatalogueError(
            f"some items have {before.shape[1]} coordinates of their texts, others {added.shape[1]}."
        )
