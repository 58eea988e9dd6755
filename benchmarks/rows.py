"""The rows of the accuracy tables: one model and what sets it apart, and each data set's tuned recipe.

Every row starts from its data set's recipe (BASE) and changes what it names. How the recipes were chosen,
and how many trials each model got, stands on the results page.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["popularity", "sasrec", "car", "ar", "tiger"]


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        title: what the table says.
        settings: changes to the recipe (`car_model.recipe`), and `levels`, `codes`, `method` of the SIDs.
    """

    kind: Kind
    title: str
    settings: dict[str, Any] = field(default_factory=dict)


AMAZON: dict[str, Any] = {
    **{"dropout": 0.5, "learning_rate": 2e-3, "batch_size": 128, "epochs": 20, "patience": 20},
    **{"precision": "bfloat16", "threads": 1},
    "baseline": {"epochs": 30, "patience": 30, "batching": "random"},
}
BASE: dict[str, dict[str, Any]] = {
    "movielens-100k": {},
    "amazon2014-Beauty": AMAZON,
    "amazon2014-Sports_and_Outdoors": AMAZON,
    "amazon2014-Toys_and_Games": AMAZON,
}

ROWS: dict[str, Row] = {
    "popularity": Row("popularity", "popularity"),
    "sasrec": Row("sasrec", "SASRec, full cross-entropy"),
    "tiger": Row("tiger", "TIGER-style: SIDs only, autoregressive"),
    "ar": Row("ar", "AR: SIDs and UID, autoregressive"),
    "car": Row("car", "CAR"),
    "car-no-fusion": Row("car", "CAR without fusion", {"fusion": "none"}),
    "car-no-think": Row("car", "CAR without think loss", {"think_weight": 0.0}),
    "car-1-level": Row("car", "CAR, 1 SID level", {"levels": 1}),
    "car-2-levels": Row("car", "CAR, 2 SID levels", {"levels": 2}),
    "car-3-levels": Row("car", "CAR, 3 SID levels", {"levels": 3}),
    "car-lsh": Row("car", "CAR, SIDs from LSH", {"method": "lsh"}),
    "car-full": Row("car", "CAR, full chunk: five positions an item", {"layout": "full"}),
    "car-full-no-fusion": Row("car", "CAR, full chunk, without fusion", {"layout": "full", "fusion": "none"}),
    "car-gated": Row("car", "CAR, gated fusion", {"fusion": "gated"}),
    "car-untied": Row("car", "CAR, heads not tied", {"tied": False}),
    "car-think-1": Row("car", "CAR, think weight 1", {"think_weight": 1.0}),
}


def settings_of(name: str, dataset: str) -> dict[str, Any]:
    """A row's settings on a data set."""
    return {**BASE.get(dataset, {}), **ROWS[name].settings}
