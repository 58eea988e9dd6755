"""Small models, codebooks and tables that several test modules need."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from car_model.codebook.codebook import Codebook
from car_model.data.dataset import Dataset, DatasetReport
from car_model.data.histories import Histories
from car_model.encoding.encoder import EncoderSpec
from car_model.models.baselines import SASRec, SASRecConfig
from car_model.models.car import CAR, CARConfig
from tests.fixtures import ITEMS, tiny_histories, tiny_texts

SPEC = EncoderSpec(name="tiny")
SIZES: dict[str, Any] = {
    "n_items": ITEMS,
    "n_levels": 3,
    "codebook_size": 4,
    "d_model": 16,
    "max_history": 10,
}  # of every tiny model of semantic IDs
LAYOUTS = ("collapsed", "full")
FUSIONS = ("sum", "none")
SHAPES: list[dict[str, Any]] = [  # every CAR there is
    {"layout": layout, "fusion": fusion, "tied": tied}
    for layout, fusion, tied in itertools.product(LAYOUTS, FUSIONS, (True, False))
] + [{"layout": layout, "position_encoding": "rotary"} for layout in LAYOUTS]


def tiny_sids(items: int = ITEMS, levels: int = 3, codes: int = 4, seed: int = 0) -> torch.Tensor:
    """A random SID table [items + 1, levels]."""
    made = torch.Generator().manual_seed(seed)
    table = torch.randint(0, codes, (items + 1, levels), generator=made)
    table[0] = 0
    return table


def tiny_car(seed: int = 0, sids: torch.Tensor | None = None, **changes: Any) -> CAR:
    """An untrained CAR over 48 items."""
    torch.manual_seed(seed)
    config = CARConfig(**SIZES, n_layers=2, n_heads=2, dropout=0.0)
    return CAR(replace(config, **changes), tiny_sids() if sids is None else sids)


def tiny_sasrec(seed: int = 0, **changes: Any) -> SASRec:
    """An untrained baseline over 48 items."""
    torch.manual_seed(seed)
    config = SASRecConfig(n_items=ITEMS, d_model=16, n_layers=2, n_heads=2, max_history=10, dropout=0.0)
    return SASRec(replace(config, **changes))


def lattice_codebook() -> Codebook:
    """Two levels on the plane whose distances are exact in binary, so that ties are real ties.

    Codes 0 to 3 of level 1 are (0,0), (2,0), (0,2), (2,0) again; of level 2 (0,0), (1,0), (0,1), (0,0) again.
    """
    first = [[0, 0], [2, 0], [0, 2], [2, 0]]
    second = [[0, 0], [1, 0], [0, 1], [0, 0]]
    centroids = np.array([first, second], dtype=np.float32)
    return Codebook(centroids, np.eye(2, dtype=np.float32), np.zeros(2, dtype=np.float32), SPEC, "{title}")


def interactions_of(data: Histories) -> pd.DataFrame:
    """Histories as the canonical table, ids i1, i2, ..."""
    rows = []
    for at, user in enumerate(data.users):
        held = [(data.valid[at], "valid"), (data.test[at], "test")]
        sequence = [(uid, "train") for uid in data.train[at]] + [(uid, split) for uid, split in held if uid]
        rows += [(user, f"i{uid}", position, split) for position, (uid, split) in enumerate(sequence)]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "position", "split"])


def tiny_dataset(data: Histories | None = None, items: int = ITEMS) -> Dataset:
    """The fixture's histories and texts as an ingested dataset."""
    texts = tiny_texts(items)
    columns = list(zip(*(text.split("; ") for text in texts), strict=True))
    table = pd.DataFrame({"item_id": [f"i{at + 1}" for at in range(items)], "title": columns[0]})
    table["genre"], table["year"] = columns[1], columns[2]
    report = DatasetReport(dataset_digest="0" * 64, text_columns=("title", "genre", "year"))
    return Dataset(interactions_of(data or tiny_histories(items)), table, report)
