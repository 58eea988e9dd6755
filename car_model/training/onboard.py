"""Items without retraining: a bundle that can also recommend what its model has never seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from car_model.action_ranker.model import ActionRanker
from car_model.bundle import Bundle, popularity_priors, tables
from car_model.codebook.codebook import Codebook
from car_model.data.catalogue import Catalogue, CatalogueError
from car_model.data.dataset import Dataset
from car_model.models.baselines import SASRec
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


def without_cold(catalogue: Catalogue, dataset: Dataset) -> Catalogue:
    """The catalogue that models are trained over: without items on offer that have no interactions.

    As classes of the softmax they would only be pushed down, and there may be many of them. What is trained
    so does not depend on them; afterwards they are added as new items are.
    """
    cold = catalogue.offered - set(dataset.interactions["item_id"])
    return catalogue.without(cold) if cold else catalogue


def extend_car(model: CAR, trained: Catalogue, catalogue: Catalogue) -> CAR:
    """A model trained over part of a catalogue, over all of it; the rest is scored by its SIDs and texts."""
    if trained is catalogue:
        return model
    extended = CAR(replace(model.config, n_items=catalogue.size), *tables(catalogue))
    warm_start(extended, catalogue, model, trained, aligned=True)
    return extended.eval()


def extend_sasrec(model: SASRec, trained: Catalogue, catalogue: Catalogue) -> SASRec:
    """The baseline over a whole catalogue: of the rest it knows nothing, which gets an average score."""
    if trained is catalogue:
        return model
    extended, uids = SASRec(replace(model.config, n_items=catalogue.size)), _uids(trained, catalogue)
    weights = model.state_dict()
    rows, bias = torch.zeros_like(extended.uid.weight), torch.zeros_like(extended.act_bias)
    rows[uids], bias[1:] = weights["uid.weight"], weights["act_bias"][1:].mean()
    bias[uids] = weights["act_bias"]
    extended.load_state_dict({**weights, "uid.weight": rows, "act_bias": bias})
    return extended.eval()


def extend_ranker(model: ActionRanker, trained: Catalogue, catalogue: Catalogue) -> ActionRanker:
    """An action ranker over a whole catalogue; the rest has no UID row and is judged by its SIDs."""
    if trained is catalogue:
        return model
    sids = tables(catalogue)[0]
    extended, weights = ActionRanker(replace(model.config, n_items=catalogue.size), sids), model.state_dict()
    rows = torch.zeros_like(extended.uid.weight)
    rows[_uids(trained, catalogue)] = weights["uid.weight"]
    extended.load_state_dict({**weights, "sids": extended.sids, "uid.weight": rows})
    return extended.eval()


def _uids(trained: Catalogue, catalogue: Catalogue) -> torch.Tensor:
    """UIDs in the catalogue of what it was trained on, padding first: [n + 1]."""
    return torch.tensor([0, *(catalogue.uids[item] for item in trained.item_ids)])


def _with_catalogue(bundle: Bundle, catalogue: Catalogue) -> Bundle:
    ranker = bundle.ranker
    if ranker:
        ranker = replace(ranker, model=extend_ranker(ranker.model, bundle.catalogue, catalogue))
    model = extend_car(bundle.model, bundle.catalogue, catalogue)
    return replace(bundle, catalogue=catalogue, model=model, ranker=ranker)
