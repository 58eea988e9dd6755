"""Weights as safetensors beside a JSON of what they need; nothing here unpickles or runs code."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

from car_model.action_ranker.model import ActionRanker, RankerConfig
from car_model.models.baselines import SASRec, SASRecConfig
from car_model.models.car import CAR, CARConfig
from common.errors import UserError
from common.files import read_json_object

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
SCORE = "score.json"  # of the baseline
Model = TypeVar("Model", bound=nn.Module)


class CheckpointError(UserError, ValueError):
    """Weights are missing, damaged or of other sizes; the message names the file."""


def save_model(model: CAR | SASRec | ActionRanker, folder: Path) -> None:
    """Write model.safetensors and config.json. What is the catalogue's is not repeated here."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = _tensors(model)
    weights.pop("sids", None)
    save_file(weights, folder / WEIGHTS)
    config = {"kind": type(model).__name__, **asdict(model.config)}
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def save_baseline(model: SASRec, similarity_scale: float, folder: Path) -> None:
    """Write the baseline and the weight of text similarity in its score."""
    save_model(model, folder)
    (folder / SCORE).write_text(json.dumps({"similarity_scale": similarity_scale}) + "\n")


def weights_digest(model: nn.Module) -> str:
    """SHA-256 (hex) of a model's weights: names, shapes and bytes."""
    return hashlib.sha256(save(_tensors(model))).hexdigest()


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}


def load_car(folder: Path, sids: Tensor, text: Tensor | None = None) -> CAR:
    """CAR from a folder, over a SID table [I + 1, L] and coordinates of texts [I + 1, A]."""
    return _load(folder, CAR, CARConfig, sids, text)


def load_sasrec(folder: Path) -> SASRec:
    """SASRec from a folder."""
    return _load(folder, SASRec, SASRecConfig)


def load_baseline(folder: Path) -> tuple[SASRec, float]:
    """The baseline from a folder, and the weight of text similarity in its score."""
    scale = read_json_object(folder / SCORE, CheckpointError).get("similarity_scale")
    if not isinstance(scale, int | float) or isinstance(scale, bool) or not scale >= 0:
        raise CheckpointError(f"{folder / SCORE} has no proper 'similarity_scale'; train the baseline again.")
    return load_sasrec(folder), float(scale)


def load_ranker(folder: Path, sids: Tensor) -> ActionRanker:
    """The ranker by action from a folder, over a SID table [I + 1, L]."""
    return _load(folder, ActionRanker, RankerConfig, sids)


def _load(folder: Path, model_type: type[Model], config_type: type[Any], *tables: Tensor | None) -> Model:
    """A model from its config and weights, over the catalogue's tables: SIDs first, which are no weights."""
    config, kind = read_json_object(folder / CONFIG, CheckpointError), model_type.__name__
    if config.pop("kind", None) != kind:
        raise CheckpointError(f"{folder / CONFIG} does not describe a {kind}.")
    try:
        model = model_type(config_type(**config), *tables)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / CONFIG} describes no {kind} of this catalogue: {error}") from error
    sids = {"sids": tables[0].long()} if tables and tables[0] is not None else {}
    try:
        model.load_state_dict(load_file(folder / WEIGHTS) | sids)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder / WEIGHTS} does not fit its config.json: {error}") from error
    return model.eval()
