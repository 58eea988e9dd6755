"""Data-parallel training: one process a device, each with its share of every batch.

`torchrun`, or anything else that sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, starts the processes;
nothing here launches or schedules any. All read the same data and draw the same batches from the same seed,
so batches never travel, gradients do. The batch size is that of all together: without dropout, two
processes train as one does, up to the order of float sums.

Gradients are summed by torch's DistributedDataParallel, which overlaps the sums with the backward pass (Li et
al. 2020, arXiv 2006.15704). It averages over processes, while the loss is a mean over targets, of which
processes have different numbers: a share is weighted by its targets. A process without a row in a small
batch computes the first row at weight 0, because all must take part in every sum.

A process that dies breaks its connections, and one that hangs exceeds TIMEOUT: either ends the others with
an error. The state is the first process's; the others are sent it, and need no folder in common.
"""

from __future__ import annotations

import atexit
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from car_model.data.histories import Histories

TIMEOUT = timedelta(minutes=10)  # longer than any epoch's validation or the writing of a state takes
Losses = dict[str, Tensor]


@dataclass(frozen=True)
class World:
    """The processes that train one model; alone, every method gives back what it was given."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes the state and shows the progress."""
        return self.rank == 0

    def threads(self, configured: int) -> int:
        """Threads of this process; if 0 is configured, the machine's processes divide half of the cores."""
        n_local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if configured or self.size == 1 or n_local == 1:
            return configured
        return max(1, len(os.sched_getaffinity(0)) // 2 // n_local)

    def losses(self, model: nn.Module, loss: Callable[..., Losses]) -> Callable[..., Losses]:
        """The model's `loss`, whose backward pass averages gradients; the first process's weights count."""
        if self.size == 1:
            return loss
        # A static graph: weights no loss reaches (an untrained head) keep no gradient, as in one process.
        return DistributedDataParallel(_Loss(model, loss), forward_sync_buffers=False, static_graph=True)

    def share(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, float]:
        """This process's rows of a batch [B, T], and what to multiply their mean loss by.

        The mean over processes of the weighted losses is the mean over all targets of the batch.
        """
        own_rows = slice(self.rank, None, self.size)
        own_inputs, own_targets = inputs[own_rows], targets[own_rows]
        if not len(own_inputs):
            return inputs[:1], targets[:1], 0.0
        weight = self.size * int((own_targets != 0).sum()) / int((targets != 0).sum())
        return own_inputs, own_targets, weight

    def users(self, data: Histories) -> Histories:
        """The users this process measures validation on."""
        rows = slice(self.rank, None, self.size)
        return Histories(data.users[rows], data.train[rows], data.valid[rows], data.test[rows])

    def mean(self, values: list[float], weight: float) -> list[float]:
        """Means over processes, each process's values counting `weight`; the same numbers everywhere."""
        if self.size == 1:
            return values
        own = torch.tensor([weight, *(weight * value for value in values)], dtype=torch.float64)
        parts = [torch.empty_like(own, device=device()) for _ in range(self.size)]
        dist.all_gather(parts, own.to(device()))
        total = torch.stack(parts).sum(dim=0).tolist()
        return [value / max(total[0], 1.0) for value in total[1:]]

    def agree(self, identity: str) -> None:
        """Raise ValueError in every process if one of them differs in model, settings or data."""
        differs = self._from_first(identity.encode()) != identity.encode()
        if self.mean([float(differs)], 1.0)[0]:
            raise ValueError("the processes differ in data, model or settings; give all of them the same.")

    @contextmanager
    def folder(self, folder: Path | None) -> Iterator[Path | None]:
        """The first process's folder of files, in the others a temporary copy; None if it has none."""
        if self.size == 1:
            yield folder
            return
        files = {path.name: _bytes(path.read_bytes()) for path in folder.iterdir()} if folder else {}
        packed = self._from_first(save(files) if files else b"")
        if self.first or not packed:
            yield folder if self.first else None
            return
        with tempfile.TemporaryDirectory() as copy:
            for name, content in load(packed).items():
                Path(copy, name).write_bytes(content.numpy().tobytes())
            yield Path(copy)

    def _from_first(self, content: bytes) -> bytes:
        """The first process's bytes, in every process; not pickled, as torch's own would be."""
        if self.size == 1:
            return content
        length = torch.tensor([len(content)], device=device())
        dist.broadcast(length, src=0)
        empty = torch.empty(int(length), dtype=torch.uint8, device=device())
        sent = _bytes(content).to(device()) if self.first else empty
        if len(sent):
            dist.broadcast(sent, src=0)
        return sent.cpu().numpy().tobytes()


class _Loss(nn.Module):
    """The loss as a forward pass, which is what DistributedDataParallel wraps."""

    def __init__(self, model: nn.Module, loss: Callable[..., Losses]) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, *tensors: Tensor) -> Losses:
        return self.loss(*tensors)


def join() -> World:
    """Join the processes the launcher started; without a launcher, a world of one.

    The group is joined once and left when the process ends: a launcher's store can't serve a second one.
    Raises ValueError if a machine has fewer GPUs than processes, or the launcher's variables are incomplete.
    """
    if not dist.is_initialized():
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return World()
        local_rank, n_gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if torch.cuda.is_available():
            if local_rank >= n_gpus:
                raise ValueError(f"process {local_rank + 1} of this machine has no GPU: there are {n_gpus}.")
            torch.cuda.set_device(local_rank)
        dist.init_process_group(timeout=TIMEOUT)
        atexit.register(dist.destroy_process_group)
    return World(dist.get_rank(), dist.get_world_size())


def device() -> torch.device:
    """A GPU if there is one; this process's own among several."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _bytes(content: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8).copy())
