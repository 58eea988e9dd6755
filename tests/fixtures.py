"""A tiny real bundle: real text embedding aside, every part is what the pipeline makes, only small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from car_model.bundle import Bundle, popularity_priors
from car_model.codebook.labels import label_codes
from car_model.codebook.residual_kmeans import CodebookConfig, fit
from car_model.data.catalogue import Catalogue
from car_model.data.histories import Histories
from car_model.encoding.encoder import EncoderSpec
from car_model.models.car import CAR, CARConfig
from car_model.training.trainer import TrainConfig, train

GENRES = ("crime drama", "space opera", "family comedy", "western adventure")
ITEMS = 48


def tiny_texts(items: int = ITEMS) -> list[str]:
    """One text an item; the genre repeats every four items."""
    return [f"Film number {at}; {GENRES[at % 4]}; {1990 + at % 10}" for at in range(items)]


def tiny_vectors(items: int = ITEMS, dim: int = 16, seed: int = 0) -> np.ndarray:
    """Vectors [items, dim] that cluster by genre."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(4, dim))
    vectors = centres[np.arange(items) % 4] + 0.3 * rng.normal(size=(items, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def tiny_histories(items: int = ITEMS, users: int = 40, seed: int = 0) -> Histories:
    """Users who stay within a genre most of the time."""
    rng = np.random.default_rng(seed)
    sequences = []
    for user in range(users):
        likely = np.where(np.arange(items) % 4 == user % 4, 8.0, 1.0)
        sequences.append(
            1 + rng.choice(items, size=int(rng.integers(6, 14)), replace=False, p=likely / likely.sum())
        )
    return Histories(
        users=[f"u{at}" for at in range(users)],
        train=[seq[:-2] for seq in sequences],
        valid=np.array([seq[-2] for seq in sequences]),
        test=np.array([seq[-1] for seq in sequences]),
    )


def tiny_parts(seed: int = 0, epochs: int = 3, items: int = ITEMS) -> Bundle:
    """Fit, label and train a bundle of `items` items with ids i1, i2, ..."""
    vectors = tiny_vectors(items)
    codebook = fit(
        vectors, EncoderSpec(name="tiny"), "{title}", CodebookConfig(n_levels=3, codebook_size=4, seed=seed)
    )
    sids = codebook.encode(vectors)
    texts = tiny_texts(items)
    catalogue = Catalogue([f"i{at + 1}" for at in range(items)], [text.split(";")[0] for text in texts], sids)
    data = tiny_histories(items)
    torch.manual_seed(seed)
    config = CARConfig(
        n_items=items, n_levels=3, codebook_size=4, d_model=16, n_layers=1, n_heads=2, max_history=10
    )
    model = CAR(config, torch.from_numpy(catalogue.sid_table))
    train(model, data, TrainConfig(epochs=epochs, batch_size=16, seed=seed, threads=1))
    popular, share = popularity_priors(data.counts(items), catalogue, codebook_size=4)
    return Bundle(
        codebook=codebook,
        labels=label_codes(texts, sids, 4),
        catalogue=catalogue,
        model=model,
        popular=popular,
        code_share=share,
        think_scale=0.1,
        dataset_digest="0" * 64,
    )


def tiny_bundle(folder: Path, seed: int = 0, epochs: int = 3) -> Path:
    """Write a tiny bundle and return its folder."""
    tiny_parts(seed, epochs).save(folder)
    return folder
