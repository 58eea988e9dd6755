"""The catalogue: item -> UID and SIDs. UIDs are row numbers from 1 and are only ever appended.

Along a lineage of releases an item keeps its UID for ever. One that is no longer offered is *retired*:
histories may still name it, but it is not recommended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from car_model.digests import json_digest


class CatalogueError(ValueError):
    """The catalogue is inconsistent or unreadable; the message says where."""


@dataclass(frozen=True)
class Catalogue:
    """Items in UID order.

    Attributes:
        item_ids: [N] unique ids; the item with UID u is item_ids[u - 1].
        titles: [N].
        sids: int32 [N, levels].
        retired: ids of items that are no longer offered.
    """

    item_ids: list[str]
    titles: list[str]
    sids: np.ndarray
    retired: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not len(self.item_ids) == len(self.titles) == len(self.sids):
            raise CatalogueError("item ids, titles and SIDs differ in number.")
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
    def digest(self) -> str:
        """Version of the catalogue: ids, titles and SIDs in UID order, and what is retired."""
        parts: list[Any] = [self.item_ids, self.titles, self.sids.tolist()]
        return json_digest([*parts, sorted(self.retired)] if self.retired else parts)

    def appended(self, item_ids: Sequence[str], titles: Sequence[str], sids: np.ndarray) -> Catalogue:
        """This catalogue with new items after the old ones, whose UIDs and SIDs stay."""
        return Catalogue(
            [*self.item_ids, *item_ids],
            [*self.titles, *titles],
            np.concatenate([self.sids, sids]),
            self.retired,
        )

    def continued(self, offered: Catalogue, retired_sids: np.ndarray | None = None) -> Catalogue:
        """The next catalogue of this lineage: what is offered now, under this one's UIDs.

        Args:
            offered: the items offered now with their titles and SIDs, in any order.
            retired_sids: [N, levels] SIDs for items of this catalogue that are not among them; by default
                the ones they have.
        """
        kept = self.sids if retired_sids is None else retired_sids
        now = dict(zip(offered.item_ids, zip(offered.titles, offered.sids, strict=True), strict=True))
        before = dict(zip(self.item_ids, zip(self.titles, kept, strict=True), strict=True))
        items: Mapping[str, tuple[str, np.ndarray]] = {**before, **now}  # keeps the order of the UIDs
        titles, sids = zip(*items.values(), strict=True)
        return Catalogue(list(items), list(titles), np.stack(sids), frozenset(set(before) - set(now)))

    def save(self, path: Path) -> None:
        """Write Parquet: item_id, uid, sids, title; where something is retired also `retired`."""
        columns = {
            "item_id": pa.array(self.item_ids, pa.string()),
            "uid": pa.array(range(1, self.size + 1), pa.int64()),
            "sids": pa.array(self.sids.tolist(), pa.list_(pa.int32())),
            "title": pa.array(self.titles, pa.string()),
        }
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
        except (OSError, pa.ArrowException, KeyError, ValueError, TypeError, OverflowError) as error:
            raise CatalogueError(f"the catalogue {path} can't be read: {error}") from error
        if columns["uid"] != list(range(1, len(table) + 1)):
            raise CatalogueError(f"the UIDs in {path} are not 1..{len(table)}; the catalogue is damaged.")
        if not all(isinstance(text, str) for text in (*columns["item_id"], *columns["title"])):
            raise CatalogueError(f"some item_id or title in {path} is not text; the catalogue is damaged.")
        retired = frozenset(item for item, gone in zip(columns["item_id"], flags, strict=False) if gone)
        return cls(columns["item_id"], columns["title"], sids, retired)
