"""The rows of the accuracy tables: one model and what sets it apart, and each data set's tuned recipes.

Every row starts from a recipe of its data set and changes what it names. The recipes were chosen by the
trials on the results page. Without fusion, CAR is SASRec with a think loss: it starts from SASRec's recipe.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from car_model.compute import native_bf16

Kind = Literal["popularity", "sasrec", "car", "ar", "tiger"]


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        title: what the table says.
        settings: changes to the recipe (`car_model.training.recipe`), and `levels`, `codes`, `method` (SIDs).
        recipe: whose tuned recipe it starts from.
        likeness: whether the likeness of texts joins its ranking.
    """

    kind: Kind
    title: str
    settings: dict[str, Any] = field(default_factory=dict)
    recipe: str = "car"
    likeness: bool = False


PRECISION = "bfloat16" if native_bf16() else "float32"  # of products; what is native is fastest
SHARED: dict[str, Any] = {"precision": PRECISION, "threads": 1, "batch_size": 128, "dropout": 0.3}
AMAZON: dict[str, dict[str, Any]] = {
    "car": {**SHARED, "learning_rate": 2e-3, "epochs": 20, "patience": 20},
    "sasrec": {**SHARED, "learning_rate": 1e-3, "epochs": 30, "patience": 30, "batching": "random"},
    "ar": {**SHARED, "learning_rate": 2e-3, "epochs": 40, "patience": 40, "dropout": 0.1},
}
RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "amazon2014-Beauty": AMAZON,
    "amazon2014-Sports_and_Outdoors": {**AMAZON, "car": {**AMAZON["car"], "dropout": 0.4}},
    "amazon2014-Toys_and_Games": AMAZON,
}

WIDE: dict[str, Any] = {
    **{"d_model": 256, "n_layers": 4, "n_heads": 4, "dropout": 0.3, "learning_rate": 1e-3},
    **{"epochs": 100, "patience": 100, "batch_size": 256},
}

TURNED: dict[str, Any] = {"position_encoding": "rotary", "label_smoothing": 0.1}

ROWS: dict[str, Row] = {
    "popularity": Row("popularity", "popularity"),
    "sasrec": Row("sasrec", "SASRec, full cross-entropy", recipe="sasrec"),
    "tiger": Row("tiger", "TIGER-style: SIDs only, autoregressive", recipe="ar"),
    "ar": Row("ar", "AR: SIDs and UID, autoregressive", recipe="ar"),
    "tiger-wide": Row("tiger", "TIGER-style, width 256, 4 layers", WIDE, recipe="ar"),
    "ar-wide": Row("ar", "AR, width 256, 4 layers", WIDE, recipe="ar"),
    "car": Row("car", "CAR"),
    "sasrec-likeness": Row("sasrec", "SASRec and the nearest text", recipe="sasrec", likeness=True),
    "car-likeness": Row("car", "CAR and the nearest text", likeness=True),
    "sasrec-rotary": Row("sasrec", "SASRec, rotary positions, labels smoothed", TURNED, recipe="sasrec"),
    "car-rotary": Row("car", "CAR, rotary positions, labels smoothed", TURNED),
    "car-text": Row("car", "CAR, text fused", {"text_dim": 64}),
    "car-text-likeness": Row("car", "CAR, text fused, and the nearest text", {"text_dim": 64}, likeness=True),
    "car-no-fusion": Row("car", "CAR without fusion", {"fusion": "none"}, recipe="sasrec"),
    "car-no-think": Row("car", "CAR without think loss", {"think_weight": 0.0}),
    "car-1-level": Row("car", "CAR, 1 SID level", {"levels": 1}),
    "car-2-levels": Row("car", "CAR, 2 SID levels", {"levels": 2}),
    "car-3-levels": Row("car", "CAR, 3 SID levels", {"levels": 3}),
    "car-rqvae": Row("car", "CAR, SIDs from an RQ-VAE", {"method": "rqvae"}),
    "car-lsh": Row("car", "CAR, SIDs from LSH", {"method": "lsh"}),
    "car-full": Row("car", "CAR, full chunk: five positions an item", {"layout": "full"}),
    "car-full-no-fusion": Row("car", "CAR, full chunk, without fusion", {"layout": "full", "fusion": "none"}),
    "car-gated": Row("car", "CAR, gated fusion", {"fusion": "gated"}),
    "car-untied": Row("car", "CAR, heads not tied", {"tied": False}),
    "car-untied-no-think": Row(
        "car", "CAR, heads not tied, without think loss", {"tied": False, "think_weight": 0.0}
    ),
    "car-untied-think-1": Row(
        "car", "CAR, heads not tied, think weight 1", {"tied": False, "think_weight": 1.0}
    ),
    "car-untied-1-level": Row("car", "CAR, heads not tied, 1 SID level", {"tied": False, "levels": 1}),
    "car-full-untied": Row("car", "CAR, full chunk, heads not tied", {"layout": "full", "tied": False}),
    "car-full-untied-no-think": Row(
        "car",
        "CAR, full chunk, heads not tied, without think loss",
        {"layout": "full", "tied": False, "think_weight": 0.0},
    ),
    "car-full-untied-think-1": Row(
        "car",
        "CAR, full chunk, heads not tied, think weight 1",
        {"layout": "full", "tied": False, "think_weight": 1.0},
    ),
    "car-think-1": Row("car", "CAR, think weight 1", {"think_weight": 1.0}),
}


def settings_of(name: str, dataset: str) -> dict[str, Any]:
    """A row's settings on a data set: its tuned recipe or the defaults."""
    row = ROWS[name]
    return {**RECIPES.get(dataset, {}).get(row.recipe, {}), **row.settings}
