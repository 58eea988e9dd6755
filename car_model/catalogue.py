"""The catalogue: item -> UID and SIDs. UIDs are row numbers from 1 and are only ever appended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

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
    """

    item_ids: list[str]
    titles: list[str]
    sids: np.ndarray

    def __post_init__(self) -> None:
        if not len(self.item_ids) == len(self.titles) == len(self.sids):
            raise CatalogueError("item ids, titles and SIDs differ in number.")
        if self.sids.ndim != 2:
            raise CatalogueError("the SIDs are no table [items, levels]; the catalogue is empty or damaged.")
        if len(self.uids) != len(self.item_ids):
            seen: set[str] = set()
            twice = next(item for item in self.item_ids if item in seen or seen.add(item))  # type: ignore[func-returns-value]
            raise CatalogueError(f"item {twice!r} is in the catalogue twice.")

    @cached_property
    def uids(self) -> dict[str, int]:
        """UID by item id."""
        return {item: at for at, item in enumerate(self.item_ids, start=1)}

    @property
    def size(self) -> int:
        """Number of items, and the highest UID."""
        return len(self.item_ids)

    @cached_property
    def sid_table(self) -> np.ndarray:
        """Codes by UID, int64 [N + 1, levels]; row 0 is padding."""
        return np.concatenate([np.zeros((1, self.sids.shape[1]), dtype=np.int64), self.sids.astype(np.int64)])

    @cached_property
    def digest(self) -> str:
        """Version of the catalogue: ids, titles and SIDs in UID order."""
        return json_digest([self.item_ids, self.titles, self.sids.tolist()])

    def appended(self, item_ids: Sequence[str], titles: Sequence[str], sids: np.ndarray) -> Catalogue:
        """This catalogue with new items after the old ones, whose UIDs and SIDs stay."""
        return Catalogue(
            [*self.item_ids, *item_ids], [*self.titles, *titles], np.concatenate([self.sids, sids])
        )

    def save(self, path: Path) -> None:
        """Write Parquet: item_id, uid, sids, title."""
        table = pa.table(
            {
                "item_id": pa.array(self.item_ids, pa.string()),
                "uid": pa.array(range(1, self.size + 1), pa.int64()),
                "sids": pa.array(self.sids.tolist(), pa.list_(pa.int32())),
                "title": pa.array(self.titles, pa.string()),
            }
        )
        pq.write_table(table, path)

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
        except (OSError, pa.ArrowException, KeyError, ValueError, TypeError, OverflowError) as error:
            raise CatalogueError(f"the catalogue {path} can't be read: {error}") from error
        if columns["uid"] != list(range(1, len(table) + 1)):
            raise CatalogueError(f"the UIDs in {path} are not 1..{len(table)}; the catalogue is damaged.")
        if not all(isinstance(text, str) for text in (*columns["item_id"], *columns["title"])):
            raise CatalogueError(f"some item_id or title in {path} is not text; the catalogue is damaged.")
        return cls(columns["item_id"], columns["title"], sids)
