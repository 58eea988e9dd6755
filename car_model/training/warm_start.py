"""Warm start: a new model begins with what its parent release has learned.

An item that both catalogues hold keeps its *fused* vector (UID row, code rows and what its text adds),
whatever became of its SID and its text: so the new model begins by answering as the parent does. Where the
codes keep their meaning (a codebook that was reused or refreshed) code rows and text map are the parent's,
and a UID row takes up what a changed SID or text would alter. Where they do not (a new fit), the code rows
are the means of what the items' old codes said, level by level, and the text map is the one that best says
of the new coordinates what the old one said. A new item has no UID row yet: it starts from its codes and its
text alone, which is also how it is scored without training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from car_model.bundle import Bundle
from car_model.codebook.codebook import Codebook
from car_model.data.catalogue import Catalogue
from car_model.metrics.codebook import churn
from car_model.models.car import CAR
from common.errors import UserError

ROWS = {"uid.weight", "act_bias", "act_head.weight"}  # one row a UID
CODES = {"code.weight", "think_bias", "think_head.weight"}  # one row a code
MOST = 0.5  # of the items may have another first code where codes are aligned
# What may differ between parent and child:
FREE = {"n_items", "dropout", "think_weight", "label_smoothing"}


class WarmStartError(UserError, ValueError):
    """The parent's weights do not fit the model; the message names the setting."""


@dataclass(frozen=True)
class Kept:
    """What a warm start took over."""

    items: int  # UIDs whose rows were kept
    new: int  # UIDs that start from their codes
    aligned: bool  # whether codes kept their meaning


def warm_start(
    model: CAR, catalogue: Catalogue, parent: CAR, parent_catalogue: Catalogue, aligned: bool
) -> Kept:
    """Copy a parent's weights into a new model, in place.

    Args:
        aligned: whether the codes mean what they meant for the parent (codebook reused or refreshed).

    Raises:
        WarmStartError: the models differ in more than their items, or codes are aligned and differ in number.
    """
    _check(model, parent, aligned)
    here = [uid for item, uid in catalogue.uids.items() if item in parent_catalogue.uids]
    there = [parent_catalogue.uids[catalogue.item_ids[uid - 1]] for uid in here]
    own, theirs = model.state_dict(), parent.state_dict()
    with torch.no_grad():
        for name, weight in own.items():
            if name in ROWS:
                weight.zero_()
                weight[here] = theirs[name][there]
                if name == "act_bias":
                    weight[_others(here, len(weight))] = theirs[name][there].mean() if there else 0.0
            elif name in CODES:
                weight.copy_(theirs[name]) if aligned else weight.zero_()
            elif name != "sids":
                weight.copy_(theirs[name])
        if here:
            _keep_vectors(model, torch.tensor(here), parent, torch.tensor(there), aligned)
    return Kept(len(here), catalogue.size - len(here), aligned)


def codes_aligned(codebook: Codebook, catalogue: Catalogue, parent: Bundle) -> bool:
    """Whether codes mean what they meant for the parent: its codebook, or one refreshed from it.

    A fit on the same items with another seed has the same axes, but gives most items another first code.
    """
    old = parent.codebook
    if codebook.version == old.version:
        return True
    same = np.array_equal(codebook.axes, old.axes) and np.array_equal(codebook.mean, old.mean)
    if not same or codebook.centroids.shape != old.centroids.shape:
        return False
    return churn(parent.catalogue, catalogue).by_level[0] < MOST


def _check(model: CAR, parent: CAR, aligned: bool) -> None:
    free = FREE if aligned else FREE | {"n_levels", "codebook_size"}
    for name, value in vars(model.config).items():
        if name not in free and value != getattr(parent.config, name):
            raise WarmStartError(
                f"a warm start needs a model of the parent's sizes: {name} is {value!r}, the parent's is "
                f"{getattr(parent.config, name)!r}; train with that, or start cold."
            )


def _keep_vectors(model: CAR, here: Tensor, parent: CAR, there: Tensor, aligned: bool) -> None:
    """Let kept items' UID rows make up for what codes and texts say otherwise than the parent's did."""
    if model.config.fusion == "sum":
        before = parent.code(parent.code_rows(there)).sum(dim=1)  # [n, D]
        if not aligned:
            _mean_codes(model, here, before)
        model.uid.weight[here] += before - model.code(model.code_rows(here)).sum(dim=1)
    if model.text_reader is not None and parent.text_reader is not None:
        before = parent.text_reader(there)
        if not aligned:
            read = model.text_reader.text[here] * model.text_reader.scale  # [n, A]
            model.text_reader.map.weight.copy_(torch.linalg.lstsq(read, before, driver="gelsd").solution.T)
        model.uid.weight[here] += before - model.text_reader(here)


def _mean_codes(model: CAR, uids: Tensor, said: Tensor) -> None:
    """Code rows as means, level by level, of what is left of `said` [n, D]."""
    rest = said.numpy().astype(np.float64)
    for level in range(model.config.n_levels):
        codes = model.sids[uids, level].numpy()
        sums = np.zeros((model.config.codebook_size, rest.shape[1]))
        np.add.at(sums, codes, rest)
        means = sums / np.maximum(np.bincount(codes, minlength=model.config.codebook_size), 1)[:, None]
        at = level * model.config.codebook_size
        model.code.weight[at : at + model.config.codebook_size] = torch.from_numpy(means).float()
        rest = rest - means[codes]


def _others(uids: list[int], size: int) -> list[int]:
    """Real UIDs below `size` that are not among those given."""
    return sorted(set(range(1, size)) - set(uids))
