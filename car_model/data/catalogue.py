"""The catalogue: item -> UID and SIDs. UIDs are row numbers from 1 and are only ever appended.

Along a lineage of releases an item keeps its UID for ever. One that is no longer offered is *retired*:
histories may still name it, but it is not recommended.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common.digests import json_digest
from common.errors import UserError


class CatalogueError(UserError, ValueError):
    """The catalogue is inconsistent or unreadable; the message says where."""


@dataclass(frozen=True)
class Catalogue:
    """Items in UID order.

    Attributes:
        item_ids: [N] unique ids; the item with UID u is item_ids[u - 1].
        titles: [N].
        sids: int32 [N, levels].
        retired: ids of items that are no longer offered.
        text: float32 [N, A] coordinates of the items' texts (`Codebook.coordinates`), of float16's precision,
            main axes first; None in a catalogue made without.
    """

    item_ids: list[str]
    titles: list[str]
    sids: np.ndarray
    retired: frozenset[str] = frozenset()
    text: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not len(self.item_ids) == len(self.titles) == len(self.sids):
            raise CatalogueError("item ids, titles and SIDs differ in number.")
        if self.text is not None and (self.text.ndim != 2 or len(self.text) != len(self.sids)):
            raise CatalogueError("the coordinates of the texts are no table [items, axes].")
        if self.sids.ndim != 2:
            raise CatalogueError("the SIDs are no table [items, levels]; the catalogue is empty or damaged.")
        if len(self.uids) != len(self.item_ids):
            seen: set[str] = set()
            twice = next(item for item in self.item_ids if item in seen or seen.add(item))  # type: ignore[func-returns-value]
            raise CatalogueError(f"item {twice!r} is in the catalogue twice.")
        if strangers := self.retired - set(self.uids):
            raise CatalogueError(f"item {min(strangers)!r} is retired but not in the catalogue.")

    @cached_property
    def uids(self) -> dict[str, int]:
        """UID by item id."""
        return {item: at for at, item in enumerate(self.item_ids, start=1)}

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
        """Codes by UID, int64 [N + 1, levels]; row 0 is padding."""
        return np.concatenate([np.zeros((1, self.sids.shape[1]), dtype=np.int64), self.sids.astype(np.int64)])

    @cached_property
    def text_table(self) -> np.ndarray | None:
        """Coordinates of texts by UID, float32 [N + 1, A]; row 0 is padding."""
        if self.text is None:
            return None
        return np.concatenate([np.zeros((1, self.text.shape[1]), dtype=np.float32), self.text])

    @cached_property
    def digest(self) -> str:
        """Version of the catalogue: ids, titles, SIDs and texts in UID order, and what is retired."""
        parts: list[Any] = [self.item_ids, self.titles, self.sids.tolist()]
        if self.retired or self.text is not None:
            parts.append(sorted(self.retired))
        if self.text is not None:
            parts.append(hashlib.sha256(self.text.astype("<f2").tobytes()).hexdigest())
        return json_digest(parts)

    def appended(
        self,
        item_ids: Sequence[str],
        titles: Sequence[str],
        sids: np.ndarray,
        text: np.ndarray | None = None,
    ) -> Catalogue:
        """This catalogue with new items after the old ones, whose UIDs, SIDs and texts stay."""
        _all_or_none(self.text, text)
        return Catalogue(
            [*self.item_ids, *item_ids],
            [*self.titles, *titles],
            np.concatenate([self.sids, sids]),
            self.retired,
            None if text is None or self.text is None else np.concatenate([self.text, text]),
        )

    def extend_lineage(
        self, offered: Catalogue, kept: tuple[np.ndarray, np.ndarray | None] | None = None
    ) -> Catalogue:
        """The next catalogue of this lineage: what is offered now, under this one's UIDs.

        Args:
            offered: the items offered now with their titles, SIDs and texts, in any order.
            kept: SIDs [N, levels] and texts [N, A] for items of this catalogue that are not among them; by
                default the ones they have.
        """
        sids, text = (self.sids, self.text) if kept is None else kept
        _all_or_none(text, offered.text)
        rows = np.array([offered.uids.get(item, 0) for item in self.item_ids], dtype=np.int64) - 1
        new = [uid - 1 for item, uid in offered.uids.items() if item not in self.uids]
        merge = partial(_merged, rows=rows, new=new)
        return Catalogue(
            [*self.item_ids, *(offered.item_ids[at] for at in new)],
            merge(np.array(self.titles, dtype=object), np.array(offered.titles, dtype=object)).tolist(),
            merge(sids, offered.sids),
            frozenset(set(self.item_ids) - set(offered.item_ids)),
            None if text is None or offered.text is None else merge(text, offered.text),
        )

    def save(self, path: Path) -> None:
        """Write Parquet: item_id, uid, sids, title; where there are any, also `text` and `retired`."""
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
        """Read what `save` wrote.

        Raises:
            CatalogueError: missing, damaged, or UIDs that are not 1..N.
        """
        try:
            table = pq.read_table(path).sort_by("uid")
            columns = {name: table[name].to_pylist() for name in ("item_id", "uid", "sids", "title")}
            sids = np.array(columns["sids"], dtype=np.int32)
            flags = table["retired"].to_pylist() if "retired" in table.column_names else []
            text = _text(table)
        except (OSError, pa.ArrowException, KeyError, ValueError, TypeError, OverflowError) as error:
            raise CatalogueError(f"the catalogue {path} can't be read: {error}") from error
        if columns["uid"] != list(range(1, len(table) + 1)):
            raise CatalogueError(f"the UIDs in {path} are not 1..{len(table)}; the catalogue is damaged.")
        if not all(isinstance(text, str) for text in (*columns["item_id"], *columns["title"])):
            raise CatalogueError(f"some item_id or title in {path} is not text; the catalogue is damaged.")
        retired = frozenset(item for item, gone in zip(columns["item_id"], flags, strict=False) if gone)
        return cls(columns["item_id"], columns["title"], sids, retired, text)


def _text(table: pa.Table) -> np.ndarray | None:
    """The coordinates of the texts, float32 [N, A], where the table has them."""
    if "text" not in table.column_names:
        return None
    column = table["text"].combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    if not np.isfinite(flat).all():
        raise ValueError("the coordinates of the texts hold NaN or infinity")
    return flat.reshape(len(table), column.type.list_size)


def _all_or_none(one: np.ndarray | None, other: np.ndarray | None) -> None:
    if (one is None) != (other is None):
        raise CatalogueError("either all items of a catalogue have the coordinates of their texts, or none.")
    if one is not None and other is not None and one.shape[1] != other.shape[1]:
        raise CatalogueError(
            f"some items have {one.shape[1]} coordinates of their texts, others {other.shape[1]}."
        )


def _merged(old: np.ndarray, now: np.ndarray, rows: np.ndarray, new: list[int]) -> np.ndarray:
    """Values of old items, where `rows` >= 0 those of now, and then of the new ones."""
    merged = old.copy()
    merged[rows >= 0] = now[rows[rows >= 0]]
    return np.concatenate([merged, now[new]])
