"""Items without retraining: a bundle that can also recommend what its model has never seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from car_model.action_ranker.model import resize_to
from car_model.bundle import Bundle, popularity_priors, tables
from car_model.codebook.codebook import Codebook
from car_model.data.catalogue import Catalogue, CatalogueError
from car_model.data.dataset import Dataset
from car_model.models.car import CAR
from car_model.training.warm_start import warm_start
from common.errors import UserError


class OnboardingError(UserError, ValueError):
    """A release can't be reused without training; the message says why."""


def onboard(bundle: Bundle, item_ids: Sequence[str], titles: Sequence[str], vectors: np.ndarray) -> Bundle:
    """Append new items to a bundle: encoded with its codebook, scored through their SIDs.

    Every other item keeps its UID, its SID and, but for rounding, its score before normalisation. `vectors`
    [n, dim] are of the items' texts, by the codebook's encoder and template; CodebookError says if they are
    another's. Raises CatalogueError if an item is there already, or twice.
    """
    if duplicates := [item for item in item_ids if item in bundle.catalogue.uids]:
        raise CatalogueError(f"item {duplicates[0]!r} is in the catalogue already ({len(duplicates)} such).")
    text = None if bundle.catalogue.text is None else bundle.codebook.coordinates(vectors)
    sids = bundle.codebook.encode(vectors)
    return _with_catalogue(bundle, bundle.catalogue.append(item_ids, titles, sids, text))


def reuse_weights(bundle: Bundle, dataset: Dataset, codebook_folder: Path, catalogue: Catalogue) -> Bundle:
    """The bundle with today's catalogue and popularity, its weights as they were.

    Codebook and catalogue are from `tokenize` with mode `reuse`. Raises OnboardingError if the codebook is
    not the one that the weights were trained with.
    """
    codebook = Codebook.load(codebook_folder)
    if codebook.version != bundle.codebook.version:
        raise OnboardingError(
            f"without training the codebook must be the parent's ({bundle.codebook.version[:12]}), not "
            f"{codebook.version[:12]}: reuse it (codebook mode reuse), or train."
        )
    counts = dataset.histories(catalogue.uids).counts(catalogue.size)
    popular, share = popularity_priors(counts, catalogue, codebook.codebook_size)
    resized = _with_catalogue(bundle, catalogue)
    return replace(resized, popular=popular, code_share=share, dataset_digest=dataset.digest)


def _with_catalogue(bundle: Bundle, catalogue: Catalogue) -> Bundle:
    model = CAR(replace(bundle.model.config, n_items=catalogue.size), *tables(catalogue))
    warm_start(model, catalogue, bundle.model, bundle.catalogue, aligned=True)
    ranker = bundle.ranker
    if ranker:
        ranker = replace(ranker, model=resize_to(ranker.model, tables(catalogue)[0]))
    return replace(bundle, catalogue=catalogue, model=model.eval(), ranker=ranker)
