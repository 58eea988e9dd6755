"""One training loop for CAR and its baselines: the same data, budget, schedule and choice of the best epoch.

Resumable: the state is written after every epoch, all randomness of an epoch follows from (seed, epoch),
so a run that was killed and resumed ends with the very weights of one that was not. Under `torchrun` every
process calls `train` alike, and they train one model together (car_model/training/distributed.py).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from car_model.compute import limit_threads
from car_model.data.histories import Histories, batches, pad
from car_model.metrics.ranking import device_ranks, mask_histories, per_user
from car_model.training.checkpoint import load_training, save_training
from car_model.training.distributed import World, device, join
from common.digests import json_digest

SCORE_ROWS = 256
Precision = Literal["auto", "float32", "bfloat16"]
Batching = Literal["length", "random"]


class Trainable(Protocol):
    """What the loop asks of a model, which is an nn.Module besides.

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
    precision: Precision = (
        "auto"  # of products; weights stay float32. auto: bfloat16 on a GPU, float32 elsewhere
    )


@dataclass
class Curves:
    """What the report draws; lists of equal length, one entry an epoch."""

    epoch: list[int] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    act_loss: list[float] = field(default_factory=list)
    think_loss: list[float] = field(default_factory=list)
    valid_ndcg: list[float] = field(default_factory=list)

    def as_json(self) -> dict[str, list]:
        """With the metric's own name for a key."""
        named = asdict(self)
        named["valid_ndcg@10"] = named.pop("valid_ndcg")
        return named


def autocast(where: torch.device, precision: Precision) -> torch.autocast:
    """The mixed precision a forward pass runs under; weights, sums and the optimiser stay float32."""
    low = precision == "bfloat16" or (precision == "auto" and where.type == "cuda")
    return torch.autocast(where.type, dtype=torch.bfloat16, enabled=low)


def scored(data: Histories) -> list[int]:
    """The users validation is measured on: with a validation item and something before it."""
    return [at for at in range(len(data.users)) if data.valid[at] and len(data.train[at])]


def valid_ndcg(model: nn.Module, data: Histories, rows: int = SCORE_ROWS) -> float:
    """Mean NDCG@10 on the validation items, full ranking, history masked."""
    model.eval()
    where, asked = next(model.parameters()).device, cast(Trainable, model)
    chosen = scored(data)
    chosen.sort(key=lambda at: len(data.train[at]))  # like lengths share a batch: less padding
    ranks = []
    for start in range(0, len(chosen), rows):
        group = chosen[start : start + rows]
        prompts = [data.train[at] for at in group]
        with torch.inference_mode():
            scores = asked.score(pad(prompts, asked.config.max_history).to(where)).float()
        ranks.append(device_ranks(mask_histories(scores, prompts), data.valid[group]))
    return float(per_user(np.concatenate(ranks))["ndcg@10"].mean()) if ranks else 0.0


def train(
    model: nn.Module,
    data: Histories,
    config: TrainConfig,
    checkpoint: Path | None = None,
    name: str = "model",
    *,
    start: str = "",
) -> dict[str, list]:
    """Train in place to the best validation epoch; returns the curves.

    Args:
        model: any module that is Trainable.
        checkpoint: folder of the resumable state; a state of another configuration, data or start is ignored.
        name: what the progress bar says.
        start: digest of the weights given, where they are not what the seed makes of them.

    Raises:
        ValueError: no history is long enough to learn from, the loss stops being a number, or processes
            that train together do not have the same data, model and settings.
    """
    if not any(len(seq) > 1 for seq in data.train):
        raise ValueError("no user has two training interactions; there is nothing to learn from.")
    torch.manual_seed(config.seed)
    world = join()
    limit_threads(world.threads(config.threads))
    run = _Run(model.to(device()), data, config, checkpoint, world, start=start)
    with tqdm(
        total=config.epochs,
        initial=run.epoch,
        desc=f"train {name}",
        unit="epoch",
        mininterval=2,
        disable=not world.first,
    ) as bar:
        while run.epoch < config.epochs and run.waited < config.patience:
            run.one_epoch()
            loss, ndcg = run.curves.train_loss[-1], run.curves.valid_ndcg[-1]
            bar.set_postfix(loss=f"{loss:.3f}", ndcg10=f"{ndcg:.4f}", refresh=False)
            bar.update()
    model.load_state_dict(run.best)
    model.eval().cpu()
    return run.curves.as_json()


class _Run:
    """The state of one training run between epochs."""

    def __init__(
        self,
        model: nn.Module,
        data: Histories,
        config: TrainConfig,
        checkpoint: Path | None,
        world: World,
        *,
        start: str,
    ) -> None:
        self.model, self.data, self.config, self.checkpoint = model, data, config, checkpoint
        self.world, self.asked = world, cast(Trainable, model)
        self.optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            betas=(0.9, 0.98),
            fused=True,
        )
        history = self.asked.config.max_history
        rows = sum(math.ceil((len(seq) - 1) / history) for seq in data.train if len(seq) > 1)
        self.steps_an_epoch = max(1, math.ceil(rows / config.batch_size))
        self.targets_a_batch = sum(len(seq) - 1 for seq in data.train if len(seq) > 1) / self.steps_an_epoch
        self.epoch, self.step, self.waited, self.top = 0, 0, 0, -1.0
        self.curves = Curves()
        self.best = self._weights()
        self.identity = self._digest(start)
        world.agree(self.identity)
        self._resume()
        self.losses = world.losses(model, self.asked.loss)  # after the weights are loaded

    def one_epoch(self) -> None:
        """Train one epoch, measure it on validation, keep the best weights, write the state."""
        rank = self.world.rank  # dropout differs between processes, batches do not
        torch.manual_seed(json_seed(self.config.seed, self.epoch, *([rank] if rank else [])))
        sums = self._train_batches(np.random.default_rng([self.config.seed, self.epoch]))
        score = self._validate()
        self.curves.epoch.append(self.epoch + 1)
        self.curves.train_loss.append(sums["loss"])
        self.curves.act_loss.append(sums["act"])
        self.curves.think_loss.append(sums.get("think", 0.0))
        self.curves.valid_ndcg.append(score)
        better = score > self.top or not self.data.valid.any()  # nothing to choose by: the last epoch stays
        self.waited = 0 if better else self.waited + 1
        if better:
            self.top, self.best = score, self._weights()
        self.epoch += 1
        self._save()

    def _train_batches(self, rng: np.random.Generator) -> dict[str, float]:
        self.model.train()
        where = next(self.model.parameters()).device
        sums: dict[str, float] = {}
        targets = 0
        size, by_length = self.config.batch_size, self.config.batching == "length"
        total = self.steps_an_epoch * self.config.epochs
        for batch in batches(self.data.train, self.asked.config.max_history, size, rng, by_length):
            inputs, wanted, weight = self.world.share(*batch)
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.learning_rate * schedule(self.step, total, self.config.warmup)
            with autocast(where, self.config.precision):
                losses = self.losses(inputs.to(where), wanted.to(where))
            # Every target counts the same, however many its batch holds: of like length, that varies much.
            weight *= int((batch[1] != 0).sum()) / self.targets_a_batch
            (losses["loss"] * weight).backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.step += 1
            count = int((wanted != 0).sum()) if weight else 0
            targets += count
            for part, value in losses.items():
                sums[part] = sums.get(part, 0.0) + float(value.detach()) * count
        own = [value / max(targets, 1) for value in sums.values()]
        means = dict(zip(sums, self.world.mean(own, targets), strict=True))
        if not math.isfinite(means["loss"]):
            raise ValueError(
                f"the loss is {means['loss']} in epoch {self.epoch + 1}; lower the learning rate."
            )
        return means

    def _validate(self) -> float:
        mine = self.world.users(self.data)
        return self.world.mean([valid_ndcg(self.model, mine)], len(scored(mine)))[0]

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}

    def _digest(self, start: str) -> str:
        """What a state must have been made from to be resumed."""
        sids, reader = getattr(self.model, "sids", None), getattr(self.model, "text_reader", None)
        table: Any = None if sids is None else sids.tolist()
        if reader is not None:
            table = [table, hashlib.sha256(reader.text.cpu().numpy().tobytes()).hexdigest()]
        sequences = [seq.tolist() for seq in self.data.train]
        settings = [asdict(self.config), asdict(self.asked.config)]
        begun = [start] if start else []
        return json_digest([*settings, table, sequences, self.data.valid.tolist(), *begun])

    def _resume(self) -> None:
        found = self._load(self.checkpoint) if self.world.first else None
        with self.world.folder(self.checkpoint if found else None) as folder:
            found = found if self.world.first else self._load(folder)
        if found is None:
            return
        self.best, state = found
        self.epoch, self.step, self.waited, self.top = (
            state[key] for key in ("epoch", "step", "waited", "top")
        )
        self.curves = Curves(**state["curves"])

    def _load(self, folder: Path | None) -> tuple[dict[str, Tensor], dict] | None:
        if folder is None:
            return None
        return load_training(folder, self.model, self.optimizer, self.identity)

    def _save(self) -> None:
        if self.checkpoint is None or not self.world.first:
            return
        state: dict[str, Any] = {"identity": self.identity, "curves": asdict(self.curves)}
        state.update(epoch=self.epoch, step=self.step, waited=self.waited, top=self.top)
        save_training(self.checkpoint, self.model, self.best, self.optimizer, state)


def schedule(step: int, total: int, warmup: float) -> float:
    """Factor of the learning rate: linear warm-up over a share of all steps, then a cosine to nothing."""
    rise = min(1.0, (step + 1) / max(1.0, warmup * total))
    return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))


def json_seed(*parts: int) -> int:
    """One seed from several numbers."""
    return int(json_digest(list(parts))[:15], 16)
