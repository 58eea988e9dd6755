"""Weights as safetensors beside a JSON of what they need; nothing here unpickles or runs code."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from car_model.baselines import SASRec, SASRecConfig
from car_model.model import CAR, CARConfig
from car_model.ranking import ActionRanker, RankerConfig, Task

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
STATE = "state.json"
Model = TypeVar("Model", bound=nn.Module)


class CheckpointError(ValueError):
    """Weights are missing, damaged or of other sizes; the message names the file."""


def save_model(model: CAR | SASRec | ActionRanker, folder: Path) -> None:
    """Write model.safetensors and config.json. What is the catalogue's is not repeated here."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if name != "sids"
    }
    save_file(weights, folder / WEIGHTS)
    config = {"kind": type(model).__name__, **asdict(model.config)}
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def weights_digest(model: nn.Module) -> str:
    """SHA-256 (hex) of a model's weights: names, shapes and bytes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    return hashlib.sha256(save(tensors)).hexdigest()


def load_car(folder: Path, sids: Tensor, text: Tensor | None = None) -> CAR:
    """CAR from a folder, over a SID table [I + 1, L] and coordinates of texts [I + 1, A]."""
    config = _config(folder, "CAR")
    return _filled(CAR(CARConfig(**config), sids, text), folder, {"sids": sids.long()})


def load_sasrec(folder: Path) -> SASRec:
    """The baseline from a folder."""
    return _filled(SASRec(SASRecConfig(**_config(folder, "SASRec"))), folder, {})


def load_ranker(folder: Path, sids: Tensor) -> ActionRanker:
    """The ranker by action from a folder, over a SID table [I + 1, L]."""
    config = _config(folder, "ActionRanker")
    try:
        tasks = tuple(Task(**{**task, "bounds": tuple(task["bounds"])}) for task in config.pop("tasks"))
        model = ActionRanker(RankerConfig(**config, tasks=tasks), sids)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / CONFIG} describes no ranker of this catalogue: {error}") from error
    return _filled(model, folder, {"sids": sids.long()})


def _config(folder: Path, kind: str) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / CONFIG} can't be read: {error}") from error
    if config.pop("kind", None) != kind:
        raise CheckpointError(f"{folder / CONFIG} does not describe a {kind}.")
    return config


def _filled(model: Model, folder: Path, extra: dict[str, Tensor]) -> Model:
    try:
        weights = load_file(folder / WEIGHTS)
        model.load_state_dict({**weights, **extra})
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder / WEIGHTS} does not fit its config.json: {error}") from error
    return model.eval()


def save_training(
    folder: Path, model: nn.Module, best: dict[str, Tensor], optimizer: Optimizer, state: dict
) -> None:
    """Write a whole training state into `folder`, replacing the one before it only when complete."""
    partial, before = _beside(folder)
    for leftover in (partial, before):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, partial / WEIGHTS)
    save_file({name: tensor.contiguous() for name, tensor in best.items()}, partial / "best.safetensors")
    moments = optimizer.state_dict()["state"]
    flat = {
        f"{at}.{name}": torch.as_tensor(value)
        for at, slots in moments.items()
        for name, value in slots.items()
    }
    save_file(flat, partial / "optimizer.safetensors")
    (partial / STATE).write_text(json.dumps(state))
    if folder.exists():  # a folder can't be replaced in one go: it is moved away whole, then the new one in
        folder.rename(before)
    partial.rename(folder)
    shutil.rmtree(before, ignore_errors=True)


def _beside(folder: Path) -> tuple[Path, Path]:
    """Where the next state is written, and where the one before waits while they change places."""
    return folder.with_name(f"{folder.name}.partial"), folder.with_name(f"{folder.name}.before")


def load_training(
    folder: Path, model: nn.Module, optimizer: Optimizer, identity: str
) -> tuple[dict[str, Tensor], dict] | None:
    """Restore a training state in place; returns (best weights, state), or None where there is none.

    A state whose `identity` is another (other data, sizes or optimiser) is left alone, and so is a damaged
    one: training again costs time, a run that can never resume costs more.
    """
    before = _beside(folder)[1]
    if before.is_dir() and not folder.exists():  # killed between the two moves
        before.rename(folder)
    try:
        state = json.loads((folder / STATE).read_text())
        weights, moments, best = (
            load_file(folder / name) for name in (WEIGHTS, "optimizer.safetensors", "best.safetensors")
        )
    except (OSError, ValueError, SafetensorError):
        return None
    if state["identity"] != identity:
        return None
    model.load_state_dict(weights)
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in moments.items():
        at, slot = name.split(".", 1)
        slots.setdefault(int(at), {})[slot] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})
    return best, state
