"""Training state on disk: what a killed run resumes from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

STATE = "state.json"
FILES = ("model.safetensors", "optimizer.safetensors", "best.safetensors")


def save_training(
    folder: Path, model: nn.Module, best: dict[str, Tensor], optimizer: Optimizer, state: dict
) -> None:
    """Write a whole training state into `folder`, replacing the one before it only when complete."""
    partial, previous = (folder.with_name(f"{folder.name}.{suffix}") for suffix in ("partial", "before"))
    for leftover in (partial, previous):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    moments = {
        f"{index}.{name}": torch.as_tensor(value)
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }
    for file, tensors in zip(FILES, (model.state_dict(), moments, best), strict=True):
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial / file)
    (partial / STATE).write_text(json.dumps(state))
    if folder.exists():  # a folder can't be replaced in one go: it is moved away whole, then the new one in
        folder.rename(previous)
    partial.rename(folder)
    shutil.rmtree(previous, ignore_errors=True)


def load_training(
    folder: Path, model: nn.Module, optimizer: Optimizer, identity: str
) -> tuple[dict[str, Tensor], dict] | None:
    """Restore a training state in place; returns (best weights, state), or None if there is none.

    A state whose `identity` is another (other data, sizes or optimiser) is left alone, and so is a damaged
    one: training again costs time, a run that can never resume costs more.
    """
    previous = folder.with_name(f"{folder.name}.before")
    if previous.is_dir() and not folder.exists():  # killed between the two moves
        previous.rename(folder)
    try:
        state = json.loads((folder / STATE).read_text())
        weights, moments, best = (load_file(folder / file) for file in FILES)
    except (OSError, ValueError, SafetensorError):
        return None
    if state["identity"] != identity:
        return None
    model.load_state_dict(weights)
    state_by_parameter: dict[int, dict[str, Tensor]] = {}
    for key, tensor in moments.items():
        index, name = key.split(".", 1)
        state_by_parameter.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state_by_parameter})
    return best, state
