"""A made-up shop, small enough to run a pipeline on within a test: customers keep to the tea they like."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

KINDS = ("black tea", "green tea", "herbal infusion", "coffee bean")
PLACES = ("Assam", "Kyoto", "Cape", "Yirgacheffe", "Ceylon", "Wuyi", "Provence", "Antigua", "Nilgiri", "Uji")
ITEMS, USERS = 40, 60
Row = Sequence[object]


def write_shop(folder: Path, extra: Sequence[Row] = ()) -> Path:
    """Write dataset.json, orders.csv and teas.csv; `extra` rows (customer, sku, time, stars) are appended."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "orders.csv", ("customer", "sku", "bought_at", "stars"), [*_orders(), *extra])
    _write(folder / "teas.csv", ("sku", "name", "kind"), _teas())
    columns = {"user_id": "customer", "item_id": "sku", "timestamp": "bought_at", "action": "stars"}
    config = {
        "name": "tiny-shop",
        "interactions": {"location": "orders.csv", "columns": columns, "timestamp_unit": "epoch_s"},
        "items": {
            "location": "teas.csv",
            "columns": {"item_id": "sku", "title": "name", "kind": "kind"},
        },
        "action_min": 1,
        "action_max": 5,
    }
    (folder / "dataset.json").write_text(json.dumps(config))
    return folder


def _teas() -> list[Row]:
    return [(f"t{at}", f"{PLACES[at // 4]} number {at}", KINDS[at % 4]) for at in range(ITEMS)]


def _orders() -> list[Row]:
    rng = np.random.default_rng(7)
    rows: list[Row] = []
    for user in range(USERS):
        likely = np.where(np.arange(ITEMS) % 4 == user % 4, 12.0, 1.0)
        bought = rng.choice(ITEMS, size=int(rng.integers(6, 11)), replace=False, p=likely / likely.sum())
        rows += [
            (f"c{user}", f"t{item}", 1_700_000_000 + 86_400 * day, int(rng.integers(1, 6)))
            for day, item in enumerate(bought)
        ]
    return rows


def _write(path: Path, header: Sequence[str], rows: Sequence[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)
