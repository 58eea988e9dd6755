"""What CAR must beat: popularity, and SASRec trained with full-softmax cross-entropy.

Source of SASRec: Kang and McAuley 2018 (arXiv 1808.09781); of the loss: Klenitskiy and Vasilev 2023
(arXiv 2309.07602), who show that cross-entropy over all items is what makes SASRec a strong baseline.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from car_model.models.losses import label_smoothing_term, linear_cross_entropy, mask_padding
from car_model.models.packing import Packing
from car_model.models.transformer import ModelConfig, PositionEncoding, Transformer, initialise


@dataclass(frozen=True)
class SASRecConfig(ModelConfig):
    """Sizes of the baseline."""

    n_items: int  # UIDs are 1..n_items; 0 pads
    position_encoding: PositionEncoding = "learned"
    label_smoothing: float = 0.0


class SASRec(nn.Module):
    """Self-attention over item embeddings, tied output, softmax over the whole catalogue."""

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        self.config = config
        self.uid = nn.Embedding(config.n_items + 1, config.d_model, padding_idx=0)
        self.transformer = Transformer(config, config.max_history, config.position_encoding)
        self.act_bias = nn.Parameter(torch.zeros(config.n_items + 1))
        initialise(self.uid)
        with torch.no_grad():
            self.uid.weight[0].zero_()

    def act_logits(self, states: Tensor) -> Tensor:
        """Item logits for states [N, D] -> [N, I + 1]; column 0 (padding) is -inf."""
        return states @ self.uid.weight.T + mask_padding(self.act_bias)

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of the next item: inputs, targets [B, T], 0 is padding."""
        packing = Packing.from_mask(inputs != 0)
        targets = packing.pack(targets)  # [N]
        valid_mask = targets != 0
        states = self.transformer.packed(self.uid(packing.pack(inputs)), packing)[valid_mask]  # [N, D]
        targets = targets[valid_mask]
        weight, bias = self.uid.weight, mask_padding(self.act_bias)
        act = loss = linear_cross_entropy(states, weight, bias, targets)
        if share := self.config.label_smoothing:
            loss = act + label_smoothing_term(states, weight, bias, targets, share)
        return {"loss": loss, "act": act.detach()}

    def score(self, uids: Tensor) -> Tensor:
        """Log-probabilities of every UID after right-padded histories [B, T]: [B, I + 1], padding -inf."""
        last = (uids != 0).sum(dim=1) - 1
        states = self.transformer(self.uid(uids))[torch.arange(len(uids), device=uids.device), last]
        return self.act_logits(states).log_softmax(dim=-1)


class Popularity:
    """Scores every item by how often the training interactions hold it."""

    def __init__(self, counts: np.ndarray) -> None:
        self.counts = torch.as_tensor(counts, dtype=torch.float32)  # [I + 1]
        self.counts[0] = -1.0

    def score(self, uids: Tensor) -> Tensor:
        """The same counts for every history: [B, T] -> [B, I + 1]."""
        return self.counts.expand(len(uids), -1)
