"""Made-up interactions and a catalogue as skewed as real ones, of any size, the same every time.

Items' popularity falls with their rank (rank ** -0.7), users' histories are log-normal with a floor of five,
half of a user's items come from the one of 256 kinds that the user likes, and items come into fashion one
after the other. Text vectors gather around their kind.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib.format import open_memmap

from ingestion.config import DatasetConfig, InteractionSource, ItemSource

KINDS, DIM = 256, 384
SKEW, FLOOR, SPREAD = 0.7, 5, 0.9
FASHION = 0.01  # share of the items that come into fashion over all the time
OF_KIND = 0.5  # share of a user's items that are of the user's kind
START, SECONDS = 1_600_000_000, 3 * 365 * 86_400
BLOCK = 65_536


@dataclass(frozen=True)
class Scale:
    """A share of the full size: 10 M interactions, 1 M users, 500 k items."""

    users: int
    items: int
    interactions: int

    @classmethod
    def of(cls, parts: int) -> Scale:
        """One of so many parts of the full size."""
        return cls(1_000_000 // parts, 500_000 // parts, 10_000_000 // parts)


def write(scale: Scale, folder: Path) -> DatasetConfig:
    """Write sources and vectors into a folder, where they are not there yet, and describe them."""
    config = DatasetConfig(
        name=f"scale-{scale.interactions}",
        interactions=InteractionSource(
            location=str(folder / "interactions.parquet"),
            columns={name: name for name in ("user_id", "item_id", "timestamp")},
            timestamp_unit="epoch_s",
        ),
        items=ItemSource(
            location=str(folder / "items.parquet"), columns={"item_id": "item_id", "title": "title"}
        ),
    )
    if not (folder / "vectors.npy").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        rng = np.random.default_rng(0)
        pq.write_table(interactions(scale, rng), folder / "interactions.parquet", compression="zstd")
        names = [f"i{item:07d}" for item in range(scale.items)]
        titles = [f"kind {item % KINDS} number {item}" for item in range(scale.items)]
        pq.write_table(pa.table({"item_id": names, "title": titles}), folder / "items.parquet")
        vectors(scale, folder / "vectors.partial.npy", rng)
        (folder / "vectors.partial.npy").rename(folder / "vectors.npy")
    return config


def interactions(scale: Scale, rng: np.random.Generator) -> pa.Table:
    """A log in the order of time."""
    lengths = rng.lognormal(0.0, SPREAD, scale.users)
    lengths = FLOOR + np.round(lengths * (scale.interactions / scale.users - FLOOR) / lengths.mean()).astype(
        int
    )
    users = np.repeat(np.arange(scale.users), lengths)
    times = rng.integers(0, SECONDS, len(users))
    items = drawn(scale, users, times, rng)
    order = np.argsort(times, kind="stable")
    return pa.table(
        {
            "user_id": _named("u", users[order]),
            "item_id": _named("i", items[order]),
            "timestamp": START + times[order],
        }
    )


def drawn(scale: Scale, users: np.ndarray, times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An item for each interaction: by popularity, which moves on, half of them of the user's kind."""
    chance = np.arange(1, scale.items + 1) ** -SKEW
    ranks = np.searchsorted(np.cumsum(chance / chance.sum()), rng.random(len(users))).clip(
        max=scale.items - 1
    )
    alike = ranks // KINDS * KINDS + users % KINDS  # about as popular, and of the user's kind
    liked = (rng.random(len(users)) < OF_KIND) & (alike < scale.items)
    moved = (times / SECONDS * FASHION * scale.items / KINDS).astype(np.int64) * KINDS
    return (np.where(liked, alike, ranks) + moved) % scale.items


def vectors(scale: Scale, path: Path, rng: np.random.Generator) -> None:
    """Unit vectors [items, DIM] float32 around the centre of each item's kind."""
    centres = rng.normal(size=(KINDS, DIM)).astype(np.float32)
    table = open_memmap(path, mode="w+", dtype=np.float32, shape=(scale.items, DIM))
    for start in range(0, scale.items, BLOCK):
        stop = min(start + BLOCK, scale.items)
        block = centres[np.arange(start, stop) % KINDS] + rng.normal(size=(stop - start, DIM)).astype(
            np.float32
        )
        table[start:stop] = block / np.linalg.norm(block, axis=1, keepdims=True)
    table.flush()


def _named(letter: str, numbers: np.ndarray) -> pa.DictionaryArray:
    """`u0000012` and so on: each name once, as a log's strings are stored."""
    found, places = np.unique(numbers, return_inverse=True)
    names = pa.array([f"{letter}{number:07d}" for number in found])
    return pa.DictionaryArray.from_arrays(pa.array(places.astype(np.int32)), names).dictionary_decode()
