"""CAR with one lever more each, for `benchmarks.levers`; every one is CAR again at its neutral setting."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from car_model.models.car import CAR, CARConfig
from car_model.models.packing import Packing


def from_texts(config: CARConfig, sids: Tensor, text: Tensor) -> CAR:
    """UID rows start at the items' coordinates of text, as far spread as they start otherwise."""
    model = CAR(config, sids, text)
    axes = min(config.d_model, text.shape[1])
    with torch.no_grad():
        spread = model.uid.weight[1:].std()
        model.uid.weight[1:, :axes] = text[1:, :axes] / text[1:, :axes].std() * spread
    return model


class Attending(CAR):
    """The act slot takes its codes' rows by attention, not all alike."""

    def __init__(self, config: CARConfig, sids: Tensor, text: Tensor | None = None) -> None:
        super().__init__(config, sids, text)
        self.ask = nn.Linear(config.d_model, config.d_model, bias=False)

    def embed(self, uids: Tensor, shown: Tensor | None = None) -> Tensor:
        """Fused chunk slots, collapsed: [..., 1, D]."""
        return self._fused(self.uid(uids), self.code(self._slots(uids))).unsqueeze(-2)

    def item_vectors(self, shown: Tensor | None = None) -> Tensor:
        """The fused last slot of every UID [I + 1, D]."""
        return self._fused(self.uid.weight, self.code(self._slots()))

    def _fused(self, own: Tensor, codes: Tensor) -> Tensor:
        """Rows [..., D] and codes [..., L, D] -> [..., D]; with equal weights it is the sum."""
        asked = (codes @ self.ask(own).unsqueeze(-1)).squeeze(-1)  # [..., L]
        weights = self.config.n_levels * torch.softmax(asked, dim=-1)
        return own + (weights.unsqueeze(-1) * codes).sum(dim=-2)


class Weighted(CAR):
    """The act slot learns how much every level's row counts; at first all count 1."""

    def __init__(self, config: CARConfig, sids: Tensor, text: Tensor | None = None) -> None:
        super().__init__(config, sids, text)
        self.level = nn.Parameter(torch.ones(config.n_levels))

    def embed(self, uids: Tensor, shown: Tensor | None = None) -> Tensor:
        """Fused chunk slots, collapsed: [..., 1, D]."""
        return self._fused(self.uid(uids), self.code(self._slots(uids))).unsqueeze(-2)

    def item_vectors(self, shown: Tensor | None = None) -> Tensor:
        """The fused last slot of every UID [I + 1, D]."""
        return self._fused(self.uid.weight, self.code(self._slots()))

    def _fused(self, own: Tensor, codes: Tensor) -> Tensor:
        return own + (self.level.unsqueeze(-1) * codes).sum(dim=-2)  # [..., D] and [..., L, D] -> [..., D]


class CoarseFirst(CAR):
    """A level's think loss counts half of that of the level before it; their sum is as heavy as ever."""

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """As CAR's, with weights by level."""
        packing = Packing.of(inputs != 0)
        wanted = packing.pack(targets)
        keep = wanted != 0
        states, wanted = self.packed_hidden(inputs, packing)[keep], wanted[keep]
        act, _ = self._act_loss(states, wanted, None)
        each = F.cross_entropy(self.think_logits(states).transpose(1, 2), self.sids[wanted], reduction="none")
        think = (each.mean(dim=0) * self.shares()).sum()  # [N, L] -> [L] -> one
        return {"loss": act + self.config.think_weight * think, "act": act.detach(), "think": think.detach()}

    def shares(self) -> Tensor:
        """What every level counts [L]; they sum to 1."""
        halves = 0.5 ** torch.arange(self.config.n_levels, device=self.sids.device)
        return halves / halves.sum()
