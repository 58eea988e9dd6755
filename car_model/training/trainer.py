"""One training loop for CAR, its baselines and the action ranker: budget, schedule, choice of the best epoch.

Training is resumable: the state is written after every epoch, and all randomness of an epoch follows from
(seed, epoch), so a run that was killed and resumed ends with exactly the weights of one that was not. Under
`torchrun` every process calls `train` alike, and they train one model together (`training/distributed.py`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from car_model.compute import limit_threads
from car_model.data.histories import Histories, batches, pad
from car_model.evidence.training import TrainingCurves
from car_model.metrics.ranking import mask_histories, per_user, ranks_of
from car_model.training.checkpoint import load_training, save_training
from car_model.training.distributed import World, device, join
from common.digests import json_digest

SCORE_ROWS = 256
Precision = Literal["auto", "float32", "bfloat16"]
Batching = Literal["length", "random"]


class Trainable(Protocol):
    """What next-item training needs of a model, which is also an nn.Module.

    Attributes:
        config: a dataclass; its `max_history` is the number of items the model reads.
    """

    config: Any

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Mean `loss` over the targets, and its parts `act` and, where there is one, `think`: [B, T] each."""

    def score(self, uids: Tensor) -> Tensor:
        """Scores of every UID after right-padded histories: [B, T] -> [B, I + 1]."""


@dataclass(frozen=True)
class TrainConfig:
    """The budget and the optimiser; shared by every model that is compared."""

    epochs: int = 20
    batch_size: int = 64  # of all processes together
    batching: Batching = "length"  # windows of like length share a batch, or any do
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    warmup: float = 0.05  # share of all steps
    patience: int = 10  # epochs without a better validation NDCG@10 before stopping
    seed: int = 0
    threads: int = 0  # 0: half the cores
    precision: Precision = "auto"  # of products: bfloat16 on a GPU, float32 elsewhere; weights stay float32


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The mixed precision a forward pass runs under; weights, sums and the optimiser stay float32."""
    low = precision == "bfloat16" or (precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=low)


def scored(data: Histories) -> list[int]:
    """The users validation is measured on: with a validation item and something before it."""
    return [user for user in range(len(data.users)) if data.valid[user] and len(data.train[user])]


def valid_ndcg(model: nn.Module, data: Histories, rows: int = SCORE_ROWS) -> float:
    """Mean NDCG@10 on the validation items, full ranking, history masked."""
    model.eval()
    device, trainable = next(model.parameters()).device, cast(Trainable, model)
    users = scored(data)
    users.sort(key=lambda user: len(data.train[user]))  # like lengths share a batch: less padding
    ranks = []
    for start in range(0, len(users), rows):
        group = users[start : start + rows]
        prompts = [data.train[user] for user in group]
        with torch.inference_mode():
            scores = trainable.score(pad(prompts, trainable.config.max_history).to(device)).float()
        ranks.append(ranks_of(mask_histories(scores, prompts), data.valid[group]))
    return float(per_user(np.concatenate(ranks))["ndcg@10"].mean()) if ranks else 0.0


@dataclass(frozen=True)
class Share:
    """One process's share of a batch."""

    tensors: tuple[Tensor, ...]  # arguments of the model's `loss`
    targets: int  # how many targets they hold
    weight: float  # of their mean loss, such that every target of an epoch counts the same in any batch


class Objective(Protocol):
    """What the loop needs to know of a model and its data.

    Attributes:
        model: its `loss` gives a dict of `loss` and its parts.
        steps_per_epoch: number of batches.
        metric: name of what `validate` measures.
        higher_is_better: whether more of it is better.
        has_validation: whether there is anything to measure; otherwise the last epoch is kept.
        identity: JSON of what a resumable state must have been made from, besides the configuration.
    """

    model: nn.Module
    steps_per_epoch: int
    metric: str
    higher_is_better: bool
    has_validation: bool
    identity: list[Any]

    def shares(self, rng: np.random.Generator) -> Iterator[Share]:
        """One epoch of this process's shares."""

    def validate(self) -> float:
        """The metric on validation data, the same in every process."""


class NextItemObjective:
    """Next-item prediction by any Trainable: CAR, SASRec and the autoregressive ablation."""

    metric, higher_is_better = "valid_ndcg@10", True

    def __init__(
        self, model: nn.Module, data: Histories, config: TrainConfig, world: World, start: str
    ) -> None:
        self.model, self.data, self.config, self.world = model, data, config, world
        self.trainable = cast(Trainable, model)
        self.has_validation = bool(data.valid.any())
        history = self.trainable.config.max_history
        rows = sum(math.ceil((len(seq) - 1) / history) for seq in data.train if len(seq) > 1)
        self.steps_per_epoch = max(1, math.ceil(rows / config.batch_size))
        targets = sum(len(seq) - 1 for seq in data.train if len(seq) > 1)
        self.targets_per_batch = targets / self.steps_per_epoch
        sids, reader = getattr(model, "sids", None), getattr(model, "text_reader", None)
        table: Any = None if sids is None else sids.tolist()
        if reader is not None:
            table = [table, hashlib.sha256(reader.text.cpu().numpy().tobytes()).hexdigest()]
        sequences = [seq.tolist() for seq in data.train]
        self.identity = [asdict(self.trainable.config), table, sequences, data.valid.tolist()]
        self.identity += [start] if start else []

    def shares(self, rng: np.random.Generator) -> Iterator[Share]:
        """One epoch of this process's shares."""
        size, by_length = self.config.batch_size, self.config.batching == "length"
        for batch in batches(self.data.train, self.trainable.config.max_history, size, rng, by_length):
            inputs, targets, weight = self.world.share(*batch)
            weight *= int((batch[1] != 0).sum()) / self.targets_per_batch
            yield Share((inputs, targets), int((targets != 0).sum()) if weight else 0, weight)

    def validate(self) -> float:
        """NDCG@10 on validation items; every process measures its own users."""
        users = self.world.users(self.data)
        return self.world.mean([valid_ndcg(self.model, users)], len(scored(users)))[0]


def train(
    model: nn.Module,
    data: Histories,
    config: TrainConfig,
    checkpoint: Path | None = None,
    name: str = "model",
    *,
    start: str = "",
) -> TrainingCurves:
    """Train in place to the best validation epoch; returns the curves.

    Args:
        model: any module that is Trainable.
        checkpoint: folder of the resumable state; a state of another configuration, data or start is ignored.
        name: shown by the progress bar.
        start: digest of the model's weights if they are not what the seed makes of them.

    Raises:
        ValueError: no history is long enough to learn from, the loss stops being a number, or processes that
            train together do not have the same data, model and settings.
    """
    if not any(len(seq) > 1 for seq in data.train):
        raise ValueError("no user has two training interactions; there is nothing to learn from.")
    world = join()
    objective = NextItemObjective(model, data, config, world, start)
    curves = run_training(objective, config, checkpoint, name, world)
    curves.setdefault("think_loss", [0.0] * len(curves["epoch"]))
    return TrainingCurves.model_validate({curve: tuple(values) for curve, values in curves.items()})


def run_training(
    objective: Objective, config: TrainConfig, checkpoint: Path | None, name: str, world: World
) -> dict[str, list[Any]]:
    """Train the objective's model in place to its best validation epoch; returns one list per curve."""
    torch.manual_seed(config.seed)
    limit_threads(world.threads(config.threads))
    objective.model.to(device())
    run = TrainingRun(objective, config, checkpoint, world)
    with tqdm(
        total=config.epochs,
        initial=run.epoch,
        desc=f"train {name}",
        unit="epoch",
        mininterval=2,
        disable=not world.first,
    ) as bar:
        while run.epoch < config.epochs and run.waited < config.patience:
            run.run_epoch()
            last = {curve: f"{run.curves[curve][-1]:.4f}" for curve in ("train_loss", objective.metric)}
            bar.set_postfix(last, refresh=False)
            bar.update()
    objective.model.load_state_dict(run.best)
    objective.model.eval().cpu()
    return run.curves


class TrainingRun:
    """The state of one training run between epochs.

    Attributes:
        epoch, step: finished ones; waited: epochs since the best one; top: the best one's metric.
        best: its weights; curves: one list per curve, one entry per epoch.
    """

    def __init__(
        self, objective: Objective, config: TrainConfig, checkpoint: Path | None, world: World
    ) -> None:
        self.objective, self.config, self.checkpoint, self.world = objective, config, checkpoint, world
        self.model = objective.model
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            betas=(0.9, 0.98),
            fused=True,
        )
        self.epoch, self.step, self.waited, self.top = 0, 0, 0, -math.inf
        self.curves: dict[str, list[Any]] = {"epoch": []}
        self.best = self._weights()
        self.identity = json_digest([asdict(config), *objective.identity])
        world.agree(self.identity)
        self._resume()
        self.losses = world.losses(self.model, self.model.loss)  # type: ignore[arg-type]  # weights are loaded

    def run_epoch(self) -> None:
        """Train one epoch, measure it on validation, keep the best weights, write the state."""
        rank = self.world.rank  # dropout differs between processes, batches do not
        torch.manual_seed(json_seed(self.config.seed, self.epoch, *([rank] if rank else [])))
        losses = self._train_batches(np.random.default_rng([self.config.seed, self.epoch]))
        metric = self.objective.validate()
        self.curves["epoch"].append(self.epoch + 1)
        for part, value in losses.items():
            self.curves.setdefault("train_loss" if part == "loss" else f"{part}_loss", []).append(value)
        self.curves.setdefault(self.objective.metric, []).append(metric)
        score = metric if self.objective.higher_is_better else -metric
        better = score > self.top or not self.objective.has_validation  # nothing to choose by: the last stays
        self.waited = 0 if better else self.waited + 1
        if better:
            self.top, self.best = score, self._weights()
        self.epoch += 1
        if self.checkpoint is not None and self.world.first:
            state = {
                "identity": self.identity,
                "curves": self.curves,
                **{"epoch": self.epoch, "step": self.step, "waited": self.waited, "top": self.top},
            }
            save_training(self.checkpoint, self.model, self.best, self.optimizer, state)

    def _train_batches(self, rng: np.random.Generator) -> dict[str, float]:
        """Train one epoch; returns the mean loss per target and its parts."""
        self.model.train()
        device = next(self.model.parameters()).device
        sums: dict[str, float] = {}
        targets, total_steps = 0, self.objective.steps_per_epoch * self.config.epochs
        for share in self.objective.shares(rng):
            for group in self.optimizer.param_groups:
                factor = schedule(self.step, total_steps, self.config.warmup)
                group["lr"] = self.config.learning_rate * factor
            with autocast(device, self.config.precision):
                losses = self.losses(*(tensor.to(device) for tensor in share.tensors))
            (losses["loss"] * share.weight).backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.step += 1
            targets += share.targets
            for part, value in losses.items():
                sums[part] = sums.get(part, 0.0) + float(value.detach()) * share.targets
        own_means = [value / max(targets, 1) for value in sums.values()]
        means = dict(zip(sums, self.world.mean(own_means, targets), strict=True))
        if not math.isfinite(means["loss"]):
            raise ValueError(
                f"the loss is {means['loss']} in epoch {self.epoch + 1}; lower the learning rate."
            )
        return means

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}

    def _resume(self) -> None:
        """Continue the first process's state, if there is one of the same identity."""

        def load(folder: Path | None) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
            return load_training(folder, self.model, self.optimizer, self.identity) if folder else None

        loaded = load(self.checkpoint) if self.world.first else None
        with self.world.folder(self.checkpoint if loaded else None) as folder:
            loaded = loaded if self.world.first else load(folder)
        if loaded is None:
            return
        self.best, state = loaded
        self.epoch, self.step, self.waited = state["epoch"], state["step"], state["waited"]
        self.top, self.curves = state["top"], state["curves"]


def schedule(step: int, total: int, warmup: float) -> float:
    """Factor of the learning rate: linear warm-up over a share of all steps, then a cosine to nothing."""
    rise = min(1.0, (step + 1) / max(1.0, warmup * total))
    return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))


def json_seed(*parts: int) -> int:
    """One seed from several numbers."""
    return int(json_digest(list(parts))[:15], 16)
