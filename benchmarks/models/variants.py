"""The rows of the accuracy table: each a model and its changes to the tuned recipe of a data set.

The recipes were chosen by the trials in benchmarks/results/accuracy.md. Without fusion CAR is SASRec with a
think loss, so that row starts from SASRec's recipe.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from car_model.compute import native_bf16

Kind = Literal["popularity", "nearest-text", "sasrec", "car", "ar", "tiger"]
SID_SETTINGS = ("n_levels", "codebook_size", "method")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of the accuracy table.

    Attributes:
        title: the row's name in tables.
        settings: changes to the recipe (`car_model.training.recipe`) and to the SIDs (SID_SETTINGS).
        recipe: the model whose tuned recipe the row starts from.
        text_similarity: add the weighted similarity of texts to the score; validation chooses the weight.
    """

    kind: Kind
    title: str
    settings: dict[str, Any] = field(default_factory=dict)
    recipe: str = "car"
    text_similarity: bool = False


SHARED: dict[str, Any] = {
    "precision": "bfloat16" if native_bf16() else "float32",  # the native one is the fastest
    "threads": 1,
    "batch_size": 128,
    "dropout": 0.3,
}
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
ROTARY: dict[str, Any] = {"position_encoding": "rotary", "label_smoothing": 0.1}


def _car(title: str, *, recipe: str = "car", text_similarity: bool = False, **settings: Any) -> Variant:
    return Variant(kind="car", title=title, settings=settings, recipe=recipe, text_similarity=text_similarity)


VARIANTS: dict[str, Variant] = {
    "popularity": Variant(kind="popularity", title="Popularity"),
    "nearest-text": Variant(kind="nearest-text", title="Nearest text alone"),
    "sasrec": Variant(kind="sasrec", title="SASRec", recipe="sasrec"),
    "tiger": Variant(kind="tiger", title="TIGER-style (SIDs only), width 64", recipe="ar"),
    "ar": Variant(kind="ar", title="AR (SIDs and UID), width 64", recipe="ar"),
    "tiger-wide": Variant(kind="tiger", title="TIGER-style, width 256", settings=WIDE, recipe="ar"),
    "ar-wide": Variant(kind="ar", title="AR, width 256", settings=WIDE, recipe="ar"),
    "car": _car("CAR"),
    "sasrec-similarity": Variant(
        kind="sasrec", title="SASRec + text similarity", recipe="sasrec", text_similarity=True
    ),
    "car-similarity": _car("CAR + text similarity", text_similarity=True),
    "sasrec-rotary": Variant(
        kind="sasrec", title="SASRec + rotary positions, label smoothing", settings=ROTARY, recipe="sasrec"
    ),
    "car-rotary": _car("CAR + rotary positions, label smoothing", **ROTARY),
    "car-text": _car("CAR + text fusion", text_dim=64),
    "car-text-similarity": _car("CAR + text fusion, text similarity", text_similarity=True, text_dim=64),
    "car-no-fusion": _car("CAR without fusion", recipe="sasrec", fusion="none"),
    "car-no-think": _car("CAR without think loss", think_weight=0.0),
    "car-think-1": _car("CAR, think weight 1", think_weight=1.0),
    "car-1-level": _car("CAR, 1 SID level", n_levels=1),
    "car-2-levels": _car("CAR, 2 SID levels", n_levels=2),
    "car-3-levels": _car("CAR, 3 SID levels", n_levels=3),
    "car-rqvae": _car("CAR, SIDs from an RQ-VAE", method="rqvae"),
    "car-lsh": _car("CAR, SIDs from LSH", method="lsh"),
    "car-full": _car("CAR, full chunk (5 positions per item)", layout="full"),
    "car-full-no-fusion": _car("CAR, full chunk, without fusion", layout="full", fusion="none"),
    "car-untied": _car("CAR, untied heads", tied=False),
    "car-untied-no-think": _car("CAR, untied heads, without think loss", tied=False, think_weight=0.0),
    "car-untied-think-1": _car("CAR, untied heads, think weight 1", tied=False, think_weight=1.0),
    "car-untied-1-level": _car("CAR, untied heads, 1 SID level", tied=False, n_levels=1),
    "car-full-untied": _car("CAR, full chunk, untied heads", layout="full", tied=False),
    "car-full-untied-no-think": _car(
        "CAR, full chunk, untied heads, without think loss", layout="full", tied=False, think_weight=0.0
    ),
    "car-full-untied-think-1": _car(
        "CAR, full chunk, untied heads, think weight 1", layout="full", tied=False, think_weight=1.0
    ),
}
# Stored results of settings that CAR no longer has.
DROPPED = {"car-gated": "CAR, gated fusion (setting dropped)"}
TITLES = {**{name: variant.title for name, variant in VARIANTS.items()}, **DROPPED}


def settings_of(name: str, dataset: str) -> dict[str, Any]:
    """A row's settings on a data set: the tuned recipe (if there is one) and the row's changes."""
    variant = VARIANTS[name]
    return {**RECIPES.get(dataset, {}).get(variant.recipe, {}), **variant.settings}
