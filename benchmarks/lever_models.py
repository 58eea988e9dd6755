"""CAR with one lever more each, for `benchmarks.levers`; every one is CAR again at its neutral setting."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from car_model.cross_entropy import linear_cross_entropy
from car_model.model import CAR, CARConfig
from car_model.packing import Packing
from car_model.transformer import Block, attention

SMOOTHING = 0.1


class Smoothed(CAR):
    """A tenth of every target is spread over all items."""

    def _act_loss(self, states: Tensor, wanted: Tensor, shown: Tensor | None) -> Tensor:
        weight, bias = self.act_weights(shown)
        plain = linear_cross_entropy(states, weight, bias, wanted)
        if not self.training:
            return plain
        own = (states * weight[wanted]).sum(dim=1) + bias[wanted]  # [N]
        usual = states @ weight[1:].mean(dim=0) + bias[1:].mean()  # [N] mean logit of all items
        return plain + SMOOTHING * (own - usual).mean()


def from_texts(config: CARConfig, sids: Tensor, text: Tensor) -> CAR:
    """UID rows start at the items' coordinates of text, as far spread as they start otherwise."""
    model = CAR(config, sids, text)
    axes = min(config.width, text.shape[1])
    with torch.no_grad():
        spread = model.uid.weight[1:].std()
        model.uid.weight[1:, :axes] = text[1:, :axes] / text[1:, :axes].std() * spread
    return model


class Attending(CAR):
    """The act slot takes its codes' rows by attention, not all alike."""

    def __init__(self, config: CARConfig, sids: Tensor, text: Tensor | None = None) -> None:
        super().__init__(config, sids, text)
        self.ask = nn.Linear(config.width, config.width, bias=False)

    def embed(self, uids: Tensor, shown: Tensor | None = None) -> Tensor:
        """Fused chunk slots, collapsed: [..., 1, D]."""
        return self._fused(self.uid(uids), self.code(self._slots(uids))).unsqueeze(-2)

    def item_vectors(self, shown: Tensor | None = None) -> Tensor:
        """The fused last slot of every UID [I + 1, D]."""
        return self._fused(self.uid.weight, self.code(self._slots()))

    def _fused(self, own: Tensor, codes: Tensor) -> Tensor:
        """Rows [..., D] and codes [..., L, D] -> [..., D]; with equal weights it is the sum."""
        asked = (codes @ self.ask(own).unsqueeze(-1)).squeeze(-1)  # [..., L]
        weights = self.config.levels * torch.softmax(asked, dim=-1)
        return own + (weights.unsqueeze(-1) * codes).sum(dim=-2)


class Weighted(CAR):
    """The act slot learns how much every level's row counts; at first all count 1."""

    def __init__(self, config: CARConfig, sids: Tensor, text: Tensor | None = None) -> None:
        super().__init__(config, sids, text)
        self.level = nn.Parameter(torch.ones(config.levels))

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
        act = self._act_loss(states, wanted, None)
        each = F.cross_entropy(self.think_logits(states).transpose(1, 2), self.sids[wanted], reduction="none")
        think = (each.mean(dim=0) * self.shares()).sum()  # [N, L] -> [L] -> one
        return {"loss": act + self.config.think_weight * think, "act": act.detach(), "think": think.detach()}

    def shares(self) -> Tensor:
        """What every level counts [L]; they sum to 1."""
        halves = 0.5 ** torch.arange(self.config.levels, device=self.sids.device)
        return halves / halves.sum()


class RotaryBlock(Block):
    """Queries and keys are turned by their position (RoPE, Su et al. 2021, arXiv 2104.09864)."""

    def _attend(self, x: Tensor, packing: Packing) -> Tensor:
        parts = [piece.unflatten(-1, (3, self.heads, -1)) for piece in packing.pieces(self.qkv(x))]
        return packing.joined(
            [
                attention(
                    torch.stack([turned(qkv[:, :, 0]), turned(qkv[:, :, 1]), qkv[:, :, 2]], dim=2)
                ).flatten(2)
                for qkv in parts
            ]
        )


def turned(x: Tensor) -> Tensor:
    """Rotate pairs of features by position: [R, P, H, E] -> the same, E even."""
    half = x.shape[-1] // 2
    rates = 10_000 ** (-torch.arange(half, device=x.device) / half)  # [E/2]
    angles = (torch.arange(x.shape[1], device=x.device).unsqueeze(-1) * rates).unsqueeze(1)  # [P, 1, E/2]
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def rotary(config: CARConfig, sids: Tensor, text: Tensor | None = None) -> CAR:
    """CAR with rotary instead of learned positions."""
    return _turning(CAR(config, sids, text))


def smoothed_rotary(config: CARConfig, sids: Tensor, text: Tensor | None = None) -> CAR:
    """Both levers."""
    return _turning(Smoothed(config, sids, text))


def _turning(model: CAR) -> CAR:
    stack = model.transformer
    blocks = nn.ModuleList(RotaryBlock(stack.config) for _ in stack.blocks)
    blocks.load_state_dict(stack.blocks.state_dict())  # starts where CAR starts
    stack.blocks = blocks
    stack.position.weight.requires_grad = False
    with torch.no_grad():
        stack.position.weight.zero_()
    return model
