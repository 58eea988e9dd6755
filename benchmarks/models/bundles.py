"""Trained bundles for benchmarks that ask a `Recommender`."""

from __future__ import annotations

import numpy as np
import torch

from car_model.bundle import Bundle, popularity_priors, tables
from car_model.codebook.labels import CodeLabels
from car_model.codebook.residual_kmeans import CodebookConfig, fit
from car_model.data.catalogue import Catalogue
from car_model.data.dataset import Dataset
from car_model.encoding.encoder import EncoderSpec
from car_model.models.car import CAR
from car_model.recommender.text_similarity import TextSimilarity
from car_model.training.recipe import Recipe
from car_model.training.train_car import choose_scales
from car_model.training.trainer import train


def trained_bundle(
    dataset: Dataset, vectors: dict[str, np.ndarray], recipe: Recipe
) -> tuple[Bundle, list[float]]:
    """A bundle without labels, its score's weights chosen on validation, and its validation NDCG@10 by epoch.

    Args:
        dataset: what to train on.
        vectors: text vectors [dim] by item id.
    """
    ids = dataset.items["item_id"].astype(str).tolist()
    table = np.stack([vectors[item] for item in ids])
    codebook = fit(table, EncoderSpec(), "", CodebookConfig())
    catalogue = Catalogue(ids, ids, codebook.encode(table), text=codebook.coordinates(table))
    data = dataset.histories(catalogue.uids)
    torch.manual_seed(recipe.seed)
    model = CAR(recipe.car(catalogue.size, codebook.n_levels, codebook.codebook_size), *tables(catalogue))
    curves = train(model, data, recipe, None, "CAR")
    labels = CodeLabels([[""] * codebook.codebook_size for _ in range(codebook.n_levels)])
    popular, code_share = popularity_priors(data.counts(catalogue.size), catalogue, codebook.codebook_size)
    similarity = TextSimilarity.of_catalogue(catalogue, model.config.max_history)
    think_scale, similarity_scale = choose_scales(model.eval(), data, similarity)
    bundle = Bundle(
        codebook=codebook,
        labels=labels,
        catalogue=catalogue,
        model=model,
        popular=popular,
        code_share=code_share,
        think_scale=think_scale,
        similarity_scale=similarity_scale,
        dataset_digest="",
    )
    return bundle, [round(value, 5) for value in curves.valid_ndcg]
