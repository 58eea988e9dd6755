"""A dataset with actions beside the tiny bundle, and that bundle with a ranker that learned from them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch

from car_model.bundle import Bundle
from car_model.data.dataset import Dataset
from car_model.training.recipe import RankerRecipe
from car_model.training.train_ranker import fit_ranker
from tests.car_model.builders import tiny_dataset
from tests.fixtures import tiny_parts

QUICK = RankerRecipe(d_model=16, max_history=12, epochs=25, patience=25, learning_rate=1e-2, threads=1)


def rated(seed: int = 0, noise: bool = False) -> Dataset:
    """The tiny dataset, where two of four genres (UID modulo 4) get 5 stars and the others 1 or 2."""
    dataset, rng = tiny_dataset(), np.random.default_rng(seed)
    frame = dataset.interactions
    genre = frame["item_id"].str[1:].astype(int) % 4
    stars = np.where(genre < 2, 5.0, rng.integers(1, 3, len(frame)))
    if noise:
        stars = rng.permutation(stars)
    return replace(dataset, interactions=frame.assign(action=stars))


@cache
def liking() -> tuple[Bundle, dict[str, Any]]:
    """The tiny bundle with a ranker, and what its training told."""
    torch.manual_seed(0)
    return fit_ranker(rated(), tiny_parts(), QUICK)
