"""Warm start: a new model begins with what its parent release has learned.

An item that both catalogues hold keeps its *fused* vector (UID row plus code rows plus what its text adds),
whatever became of its SID and its text, so the new model begins by answering as the parent does. If the codes
keep their meaning (a codebook that was reused or refreshed), code rows and text map are the parent's, and
the UID row makes up for a changed SID or text. If they do not (a new fit), the code rows are the means of
what the items' old codes added, level by level, and the text map is the least-squares fit of what the old one
added. A new item has no UID row yet: it starts from its codes and its text alone, as it is scored without
training.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from car_model.bundle import Bundle
from car_model.codebook.codebook import Codebook
from car_model.data.catalogue import Catalogue
from car_model.metrics.codebook import churn
from car_model.models.car import CAR
from common.errors import UserError

UID_ROWS = {"uid.weight", "act_bias", "act_head.weight"}  # one row per UID
CODE_ROWS = {"code.weight", "think_bias", "think_head.weight"}  # one row per code
MAX_CHURN = 0.5  # aligned codes give fewer items than this share another first code
MAY_DIFFER = {"n_items", "dropout", "think_weight", "label_smoothing"}  # between parent and child


class WarmStartError(UserError, ValueError):
    """The parent's weights do not fit the model; the message names the setting."""


def warm_start(
    model: CAR, catalogue: Catalogue, parent: CAR, parent_catalogue: Catalogue, aligned: bool
) -> int:
    """Copy a parent's weights into a new model, in place; returns how many items both catalogues hold.

    `aligned` says that codes mean what they meant for the parent (codebook reused or refreshed). Raises
    WarmStartError if the models differ in more than their items, or aligned codes in number.
    """
    may_differ = MAY_DIFFER if aligned else MAY_DIFFER | {"n_levels", "codebook_size"}
    for name, value in vars(model.config).items():
        parent_value = getattr(parent.config, name)
        if name not in may_differ and value != parent_value:
            raise WarmStartError(
                f"a warm start needs a model of the parent's sizes: {name} is {value!r}, the parent's is "
                f"{parent_value!r}; train with that, or start cold."
            )
    shared = [item for item in catalogue.uids if item in parent_catalogue.uids]
    uids = torch.tensor([catalogue.uids[item] for item in shared], dtype=torch.long)  # [n]
    parent_uids = torch.tensor([parent_catalogue.uids[item] for item in shared], dtype=torch.long)  # [n]
    parent_weights = parent.state_dict()
    with torch.no_grad():
        for name, weight in model.state_dict().items():
            if name in UID_ROWS:
                rows = parent_weights[name][parent_uids]
                weight.zero_()
                if name == "act_bias" and shared:
                    weight[1:] = rows.mean()  # new items start from the mean bias
                weight[uids] = rows
            elif name in CODE_ROWS:
                weight.copy_(parent_weights[name]) if aligned else weight.zero_()
            elif name != "sids":
                weight.copy_(parent_weights[name])
        if shared:
            _keep_vectors(model, uids, parent, parent_uids, aligned)
    return len(shared)


def codes_aligned(codebook: Codebook, catalogue: Catalogue, parent: Bundle) -> bool:
    """Whether codes mean what they meant for the parent: its codebook, or one refreshed from it.

    A fit on the same items with another seed has the same axes, but gives most items another first code.
    """
    old = parent.codebook
    if codebook.version == old.version:
        return True
    same_axes = np.array_equal(codebook.axes, old.axes) and np.array_equal(codebook.mean, old.mean)
    same_size = codebook.centroids.shape == old.centroids.shape
    return same_axes and same_size and churn(parent.catalogue, catalogue).by_level[0] < MAX_CHURN


def _keep_vectors(model: CAR, uids: Tensor, parent: CAR, parent_uids: Tensor, aligned: bool) -> None:
    """Let UID rows of shared items make up for what codes and texts add otherwise than the parent's."""
    if model.config.fusion == "sum":
        target = parent.code(parent.code_rows(parent_uids)).sum(dim=1)  # [n, D]
        if not aligned:
            _fit_code_rows(model, uids, target)
        model.uid.weight[uids] += target - model.code(model.code_rows(uids)).sum(dim=1)
    if model.text_reader is not None and parent.text_reader is not None:
        target = parent.text_reader(parent_uids)  # [n, D]
        if not aligned:
            coordinates = model.text_reader.text[uids] * model.text_reader.scale  # [n, A]
            solution = torch.linalg.lstsq(coordinates, target, driver="gelsd").solution  # [A, D]
            model.text_reader.map.weight.copy_(solution.T)
        model.uid.weight[uids] += target - model.text_reader(uids)


def _fit_code_rows(model: CAR, uids: Tensor, target: Tensor) -> None:
    """Code rows as means, level by level, of what the levels before leave of `target` [n, D]."""
    size, rest = model.config.codebook_size, target.numpy().astype(np.float64)
    for level in range(model.config.n_levels):
        codes = model.sids[uids, level].numpy()  # [n]
        sums = np.zeros((size, rest.shape[1]))
        np.add.at(sums, codes, rest)
        means = sums / np.maximum(np.bincount(codes, minlength=size), 1)[:, None]  # [K, D]
        model.code.weight[level * size : (level + 1) * size] = torch.from_numpy(means).float()
        rest = rest - means[codes]
