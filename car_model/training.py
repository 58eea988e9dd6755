"""One training loop for CAR and its baselines: the same data, budget, schedule and choice of the best epoch.

Resumable: the state is written after every epoch, all randomness of an epoch follows from (seed, epoch),
so a run that was killed and resumed ends with the very weights of one that was not.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from car_model.baselines import SASRec
from car_model.checkpoint import load_training, save_training
from car_model.digests import json_digest
from car_model.metrics import per_user, ranks_of
from car_model.model import CAR
from car_model.sequences import Histories, batches, pad
from car_model.threads import limit_threads

SCORE_ROWS = 256
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class TrainConfig:
    """The budget and the optimiser; shared by every model that is compared."""

    epochs: int = 20
    batch_size: int = 64
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


def device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(where: torch.device, precision: Precision) -> torch.autocast:
    """The mixed precision a forward pass runs under; weights, sums and the optimiser stay float32."""
    low = precision == "bfloat16" or (precision == "auto" and where.type == "cuda")
    return torch.autocast(where.type, dtype=torch.bfloat16, enabled=low)


def valid_ndcg(model: CAR | SASRec, data: Histories, rows: int = SCORE_ROWS) -> float:
    """Mean NDCG@10 on the validation items, full ranking, history masked."""
    model.eval()
    where = next(model.parameters()).device
    chosen = [at for at in range(len(data.users)) if data.valid[at] and len(data.train[at])]
    chosen.sort(key=lambda at: len(data.train[at]))  # like lengths share a batch: less padding
    ranks = []
    for start in range(0, len(chosen), rows):
        group = chosen[start : start + rows]
        prompts = [data.train[at] for at in group]
        with torch.inference_mode():
            scores = model.score(pad(prompts, model.config.history).to(where)).float().cpu().numpy()
        for row, prompt in zip(scores, prompts, strict=True):
            row[prompt] = -np.inf
        ranks.append(ranks_of(scores, data.valid[group]))
    return float(per_user(np.concatenate(ranks))["ndcg@10"].mean()) if ranks else 0.0


def train(
    model: CAR | SASRec,
    data: Histories,
    config: TrainConfig,
    checkpoint: Path | None = None,
    name: str = "model",
) -> dict[str, list]:
    """Train in place to the best validation epoch; returns the curves.

    Args:
        checkpoint: folder of the resumable state; a state of another configuration or data is ignored.
        name: what the progress bar says.

    Raises:
        ValueError: no history is long enough to learn from, or the loss stops being a number.
    """
    if not any(len(seq) > 1 for seq in data.train):
        raise ValueError("no user has two training interactions; there is nothing to learn from.")
    torch.manual_seed(config.seed)
    limit_threads(config.threads)
    run = _Run(model.to(device()), data, config, checkpoint)
    with tqdm(
        total=config.epochs, initial=run.epoch, desc=f"train {name}", unit="epoch", mininterval=2
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
        self, model: CAR | SASRec, data: Histories, config: TrainConfig, checkpoint: Path | None
    ) -> None:
        self.model, self.data, self.config, self.checkpoint = model, data, config, checkpoint
        self.optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            betas=(0.9, 0.98),
            fused=True,
        )
        rows = sum(math.ceil((len(seq) - 1) / model.config.history) for seq in data.train if len(seq) > 1)
        self.steps_an_epoch = max(1, math.ceil(rows / config.batch_size))
        self.epoch, self.step, self.waited, self.top = 0, 0, 0, -1.0
        self.curves = Curves()
        self.best = self._weights()
        sids = model.sids.tolist() if isinstance(model, CAR) else None
        sequences = [seq.tolist() for seq in data.train]
        self.identity = json_digest(
            [asdict(config), asdict(model.config), sids, sequences, data.valid.tolist()]
        )
        self._resume()

    def one_epoch(self) -> None:
        """Train one epoch, measure it on validation, keep the best weights, write the state."""
        torch.manual_seed(json_seed(self.config.seed, self.epoch))
        sums = self._train_batches(np.random.default_rng([self.config.seed, self.epoch]))
        score = valid_ndcg(self.model, self.data)
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
        for inputs, wanted in batches(
            self.data.train, self.model.config.history, self.config.batch_size, rng
        ):
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.learning_rate * self._schedule()
            with autocast(where, self.config.precision):
                losses = self.model.loss(inputs.to(where), wanted.to(where))
            losses["loss"].backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.step += 1
            count = int((wanted != 0).sum())
            targets += count
            for part, value in losses.items():
                sums[part] = sums.get(part, 0.0) + float(value.detach()) * count
        if not math.isfinite(sums["loss"]):
            raise ValueError(
                f"the loss is {sums['loss']} in epoch {self.epoch + 1}; lower the learning rate."
            )
        return {part: value / targets for part, value in sums.items()}

    def _schedule(self) -> float:
        """Linear warm-up, then a cosine down to nothing over the whole budget."""
        total = self.steps_an_epoch * self.config.epochs
        rise = min(1.0, (self.step + 1) / max(1.0, self.config.warmup * total))
        return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, self.step / total)))

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}

    def _resume(self) -> None:
        if self.checkpoint is None:
            return
        found = load_training(self.checkpoint, self.model, self.optimizer, self.identity)
        if found is None:
            return
        self.best, state = found
        self.epoch, self.step, self.waited, self.top = (
            state[key] for key in ("epoch", "step", "waited", "top")
        )
        self.curves = Curves(**state["curves"])

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        state: dict[str, Any] = {"identity": self.identity, "curves": asdict(self.curves)}
        state.update(epoch=self.epoch, step=self.step, waited=self.waited, top=self.top)
        save_training(self.checkpoint, self.model, self.best, self.optimizer, state)


def json_seed(*parts: int) -> int:
    """One seed from several numbers."""
    return int(json_digest(list(parts))[:15], 16)
