"""Bundles for benchmarks: trained on what a moment knew, without labels, cold or from a parent."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from car_model.bundle import Bundle, popularity_priors, tables
from car_model.codebook.codebook import Codebook
from car_model.codebook.labels import CodeLabels
from car_model.codebook.residual_kmeans import CodebookConfig, fit, refresh
from car_model.data.catalogue import Catalogue
from car_model.data.dataset import Dataset
from car_model.data.histories import Histories
from car_model.encoding.encoder import EncoderSpec
from car_model.models.car import CAR
from car_model.recommender.text_similarity import TextSimilarity
from car_model.training.recipe import Recipe
from car_model.training.train_car import choose_scales
from car_model.training.trainer import train, valid_ndcg
from car_model.training.warm_start import codes_aligned, warm_start


def fitted(
    dataset: Dataset,
    parent: Bundle | None,
    vectors: dict[str, np.ndarray],
    recipe: Recipe,
    *,
    warm: bool = True,
    train_it: bool = True,
) -> tuple[Bundle, Any]:
    """A trained bundle and its validation curve; untrained, the NDCG@10 it starts from."""
    ids = dataset.items["item_id"].astype(str).tolist()
    table = np.stack([vectors[item] for item in ids])
    book = refresh(parent.codebook, table) if parent else fit(table, EncoderSpec(), "", CodebookConfig())
    catalogue = Catalogue(ids, ids, book.encode(table), text=book.coordinates(table))
    catalogue = parent.catalogue.extend_lineage(catalogue) if parent else catalogue
    torch.manual_seed(recipe.seed)
    model = CAR(recipe.car(catalogue.size, book.n_levels, book.codebook_size), *tables(catalogue))
    if parent and warm:
        aligned = codes_aligned(book, catalogue, parent)
        warm_start(model, catalogue, parent.model, parent.catalogue, aligned)
    data = dataset.histories(catalogue.uids)
    result: Any = valid_ndcg(model, data)
    if train_it:
        result = train(model, data, recipe.train_config(), None, "warm" if parent and warm else "cold")
        result = [round(value, 5) for value in result["valid_ndcg@10"]]
    return assembled(book, catalogue, model, data), result


def assembled(book: Codebook, catalogue: Catalogue, model: CAR, data: Histories) -> Bundle:
    """A bundle without labels, the weights in its score chosen on validation."""
    labels = CodeLabels([[""] * book.codebook_size for _ in range(book.n_levels)])
    popular = popularity_priors(data.counts(catalogue.size), catalogue, book.codebook_size)
    think, like = choose_scales(
        model.eval(), data, TextSimilarity.of_catalogue(catalogue, model.config.max_history)
    )
    return Bundle(
        codebook=book,
        labels=labels,
        catalogue=catalogue,
        model=model,
        popular=popular[0],
        code_share=popular[1],
        think_scale=think,
        similarity_scale=like,
        dataset_digest="",
    )
