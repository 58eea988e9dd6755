"""One training loop for CAR, its baselines and the action ranker: budget, schedule, choice of the best epoch.

Training is resumable: the state is written after every epoch, and all randomness of an epoch follows from
(seed, epoch), so a run that was killed and resumed ends with exactly the weights of one that was not. Under
`torchrun` every process calls `train` alike, and they train one model together (`training/distributed.py`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from tqdm import tqdm

from car_model.compute import limit_threads
from car_model.data.histories import Histories, batches, pad
from car_model.evidence.training import TrainingCurves
from car_model.metrics.ranking import mask_histories, per_user, ranks_of
from car_model.training.checkpoint import load_training, save_training
from car_model.training.distributed import World, device, join
from common.digests import json_digest

STATE = ("identity", "epoch", "step", "waited", "top", "curves")  # of a TrainingRun, written after epochs
Precision = Literal["auto", "float32", "bfloat16"]
Batching = Literal["length", "random"]


class Trainable(Protocol):
    """What next-item training needs of a model, which is also an nn.Module."""

    config: Any  # a dataclass; its `max_history` is the number of items the model reads

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Mean `loss` over the targets, and its parts `act` and, if there is one, `think`: [B, T] each."""

    def score(self, uids: Tensor) -> Tensor:
        """Scores of every UID after right-padded histories: [B, T] -> [B, I + 1]."""


class TrainConfig(BaseModel):
    """The budget and the optimiser: what recipes of all models have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    epochs: int = Field(default=20, ge=1)
    """Passes over the training data, at most."""
    batch_size: int = Field(default=64, ge=1)
    """Histories per training step, of all processes together."""
    batching: Batching = "length"
    """Batches of histories of similar length, or at random."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Peak learning rate of AdamW."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Weight decay of AdamW."""
    warmup: float = Field(default=0.05, ge=0, le=1)
    """Share of the steps in which the learning rate rises; it falls to zero afterwards."""
    patience: int = Field(default=10, ge=1)
    """Epochs without a better validation metric before training stops."""
    seed: int = 0
    """Seed of weights, batches and dropout."""
    threads: int = Field(default=0, ge=0)
    """CPU threads of torch; 0 takes half of the cores."""
    precision: Precision = "auto"
    """Arithmetic of training; `auto` is bfloat16 on a GPU and float32 on a CPU."""


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The mixed precision a forward pass runs under; weights, sums and the optimiser stay float32."""
    low = precision == "bfloat16" or (precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=low)


def scored(data: Histories) -> list[int]:
    """The users validation is measured on: with a validation item and something before it."""
    return [user for user in range(len(data.users)) if data.valid[user] and len(data.train[user])]


def valid_ndcg(model: nn.Module, data: Histories, rows: int = 256) -> float:
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


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What the loop needs to know of a model and its data."""

    model: nn.Module  # its `loss` gives a dict of `loss` and its parts
    shares: Callable[[np.random.Generator], Iterator[Share]]  # one epoch of this process's shares
    steps_per_epoch: int  # batches
    validate: Callable[[], float]  # the metric on validation data, the same in every process
    metric: str  # what `validate` measures
    higher_is_better: bool
    has_validation: bool  # otherwise the last epoch is kept
    identity: list[Any]  # JSON of what a resumable state is made from, besides the configuration


def train(
    model: nn.Module,
    data: Histories,
    config: TrainConfig,
    checkpoint: Path | None = None,
    name: str = "model",
    *,
    start: str = "",
) -> TrainingCurves:
    """Train a model for next-item prediction, in place to the best validation epoch; returns the curves.

    Args:
        model: any module that is Trainable: CAR, SASRec and the autoregressive ablation.
        checkpoint: folder of the resumable state; a state of another configuration, data or start is ignored.
        name: shown by the progress bar.
        start: digest of the model's weights if they are not what the seed makes of them.

    Raises:
        ValueError: no history is long enough to learn from, the loss stops being a number, or processes that
            train together do not have the same data, model and settings.
    """
    lengths = [len(uids) - 1 for uids in data.train if len(uids) > 1]  # targets of each history
    if not lengths:
        raise ValueError("no user has two training interactions; there is nothing to learn from.")
    world, sizes = join(), cast(Trainable, model).config
    steps = max(1, math.ceil(sum(math.ceil(n / sizes.max_history) for n in lengths) / config.batch_size))
    sids, reader = getattr(model, "sids", None), getattr(model, "text_reader", None)
    table: Any = None if sids is None else sids.tolist()
    if reader is not None:
        table = [table, hashlib.sha256(reader.text.cpu().numpy().tobytes()).hexdigest()]
    sequences = [uids.tolist() for uids in data.train]

    def shares(rng: np.random.Generator) -> Iterator[Share]:
        by_length, targets_per_batch = config.batching == "length", sum(lengths) / steps
        for batch in batches(data.train, sizes.max_history, config.batch_size, rng, by_length):
            inputs, targets, weight = world.share(*batch)
            weight *= int((batch[1] != 0).sum()) / targets_per_batch
            yield Share((inputs, targets), int((targets != 0).sum()) if weight else 0, weight)

    def validate() -> float:
        users = world.users(data)
        return world.mean([valid_ndcg(model, users)], len(scored(users)))[0]

    objective = Objective(
        model=model,
        shares=shares,
        steps_per_epoch=steps,
        validate=validate,
        metric="valid_ndcg@10",
        higher_is_better=True,
        has_validation=bool(data.valid.any()),
        identity=[asdict(sizes), table, sequences, data.valid.tolist(), *([start] if start else [])],
    )
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
    style: Any = {"desc": f"train {name}", "unit": "epoch", "mininterval": 2, "disable": not world.first}
    with tqdm(total=config.epochs, initial=run.epoch, **style) as bar:
        while run.epoch < config.epochs and run.waited < config.patience:
            run.run_epoch()
            last = {curve: f"{run.curves[curve][-1]:.4f}" for curve in ("train_loss", objective.metric)}
            bar.set_postfix(last, refresh=False)
            bar.update()
    objective.model.load_state_dict(run.best)
    objective.model.eval().cpu()
    return run.curves


class TrainingRun:
    """The state of one training run between epochs."""

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
        self.epoch, self.step = 0, 0  # finished ones
        self.waited, self.top = 0, -math.inf  # epochs since the best one, and its metric
        self.curves: dict[str, list[Any]] = {"epoch": []}  # one entry per epoch
        self.best = self._weights()
        budget = config.model_dump(include=set(TrainConfig.model_fields))
        self.identity = json_digest([budget, *objective.identity])
        world.agree(self.identity)
        self._resume()
        self.losses = world.losses(self.model, self.model.loss)  # type: ignore[arg-type]  # weights are loaded

    def run_epoch(self) -> None:
        """Train one epoch, measure it on validation, keep the best weights, write the state."""
        seeds = [self.config.seed, self.epoch]
        if self.world.rank:  # dropout differs between processes, batches do not
            seeds.append(self.world.rank)
        torch.manual_seed(int(json_digest(seeds)[:15], 16))
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
            state = {name: getattr(self, name) for name in STATE}
            save_training(self.checkpoint, self.model, self.best, self.optimizer, state)

    def _train_batches(self, rng: np.random.Generator) -> dict[str, float]:
        """Train one epoch; returns the mean loss per target and its parts."""
        self.model.train()
        config, device = self.config, next(self.model.parameters()).device
        sums: dict[str, float] = {}
        targets, total_steps = 0, self.objective.steps_per_epoch * config.epochs
        for share in self.objective.shares(rng):
            factor = schedule(self.step, total_steps, config.warmup)
            for group in self.optimizer.param_groups:
                group["lr"] = config.learning_rate * factor
            with autocast(device, config.precision):
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
        for name in STATE:
            setattr(self, name, state[name])


def schedule(step: int, total: int, warmup: float) -> float:
    """Factor of the learning rate: linear warm-up over a share of all steps, then a cosine to nothing."""
    rise = min(1.0, (step + 1) / max(1.0, warmup * total))
    return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))
