"""CAR, "Act-With-Think" (arXiv 2506.23643): chunks of semantic IDs and the item's own ID, predicted at once.

A chunk is `(S1 .. SL, UID)`: the codes of the item's semantic ID (SID), coarse to fine, then the item itself.
*Progressive context fusion*: the input at slot k is its own embedding plus the embeddings of the levels
before it. A causal transformer reads the chunks; the hidden state at the last slot of a chunk predicts *all*
tokens of the next chunk with independent heads.

Two layouts: `full` keeps the L + 1 slots as positions, as in the paper; `collapsed` keeps only the last slot,
whose fused input holds every level already, and so reads L + 1 times fewer positions.

Beyond the paper, and off by default, the act slot may also read the item's text itself: its coordinates on
the codebook's main axes, through one linear map. Codes say only which cluster a text is in; coordinates say
the rest, also of an item that has no trained UID row yet (docs/results.md).

Shape letters: B batch, T chunks, L levels, K codes, D width, N packed chunks, I items, A text axes, S sampled
negatives. Not published and chosen by ablation (docs/results.md): think weight, fusion, tying, sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from car_model.models.item_embedding import CodeSums, TextReader
from car_model.models.losses import (
    Negatives,
    label_smoothing_term,
    linear_cross_entropy,
    mask_padding,
    sampled_cross_entropy,
)
from car_model.models.packing import Packing
from car_model.models.transformer import ModelConfig, PositionEncoding, Transformer, initialise

Layout = Literal["collapsed", "full"]
Fusion = Literal["sum", "none"]


@dataclass(frozen=True)
class CARConfig(ModelConfig):
    """Everything that shapes the weights, and the weights of the loss."""

    n_items: int  # UIDs are 1..n_items; 0 pads
    n_levels: int
    codebook_size: int
    layout: Layout = "collapsed"
    fusion: Fusion = "sum"
    think_weight: float = 0.1  # alpha: weight of the mean SID cross-entropy; 0 switches thinking off
    tied: bool = True  # heads share the embeddings; the act head sees the fused item vectors
    text_dim: int = 0  # coordinates of its text that an item's act slot reads
    position_encoding: PositionEncoding = "learned"
    label_smoothing: float = 0.0  # share of a target UID that is spread over all items

    @property
    def slots(self) -> int:
        """Positions a chunk takes in the transformer."""
        return self.n_levels + 1 if self.layout == "full" else 1


def check_sids(sids: Tensor, n_items: int, n_levels: int, codebook_size: int) -> None:
    """Raise ValueError if a SID table [I + 1, L] is of another size or holds codes out of range."""
    if tuple(sids.shape) != (n_items + 1, n_levels):
        raise ValueError(f"the SID table is {tuple(sids.shape)}, expected {(n_items + 1, n_levels)}.")
    if int(sids.max()) >= codebook_size or int(sids.min()) < 0:
        raise ValueError(f"the SID table holds codes outside 0..{codebook_size - 1}.")


class CAR(nn.Module):
    """The Act-With-Think model over a fixed table of SIDs.

    Args:
        sids: [I + 1, L] codes by UID; row 0 is padding and is never read as an item.
        text: [I + 1, at least text_dim] coordinates of the items' texts by UID, main axes first.
    """

    sids: Tensor
    negatives: Negatives | None = None  # set to train on a sample of the catalogue; not part of the weights

    def __init__(self, config: CARConfig, sids: Tensor, text: Tensor | None = None) -> None:
        super().__init__()
        check_sids(sids, config.n_items, config.n_levels, config.codebook_size)
        self.config, width = config, config.d_model
        n_codes = config.n_levels * config.codebook_size  # level l, code c is row l * K + c
        self.register_buffer("sids", sids.long())
        axes = config.text_dim
        self.text_reader = TextReader(text, config.n_items, axes, width) if axes else None
        self.uid = nn.Embedding(config.n_items + 1, width, padding_idx=0)
        self.code = nn.Embedding(n_codes, width)
        self.code_sums = CodeSums()
        self.transformer = Transformer(config, config.max_history * config.slots, config.position_encoding)
        self.act_bias = nn.Parameter(torch.zeros(config.n_items + 1))
        self.think_bias = nn.Parameter(torch.zeros(n_codes))
        embeddings: list[nn.Module] = [self.uid, self.code]
        if not config.tied:
            self.act_head = nn.Linear(width, config.n_items + 1, bias=False)
            self.think_head = nn.Linear(width, n_codes, bias=False)
            embeddings += [self.act_head, self.think_head]
        for module in embeddings:
            initialise(module)
        with torch.no_grad():
            self.uid.weight[0].zero_()

    def code_rows(self, uids: Tensor | slice = slice(None)) -> Tensor:
        """Rows of the code table that the chunks of uids [...] read: [..., L]; of all UIDs by default."""
        offsets = torch.arange(self.config.n_levels, device=self.sids.device) * self.config.codebook_size
        return self.sids[uids] + offsets

    def embed(self, uids: Tensor) -> Tensor:
        """Fused inputs of chunks: uids [...] -> [..., slots, D] (progressive context fusion)."""
        codes = self.code(self.code_rows(uids))  # [..., L, D]
        act = self.uid(uids)  # [..., D]
        if self.text_reader is not None:
            act = act + self.text_reader(uids)
        if self.config.layout == "collapsed":  # only the last slot is read
            fused = act if self.config.fusion == "none" else act + codes.sum(dim=-2)
            return fused.unsqueeze(-2)
        slots = torch.cat([codes, act.unsqueeze(-2)], dim=-2)  # [..., L + 1, D]
        if self.config.fusion == "none":
            return slots
        return slots + F.pad(codes.cumsum(dim=-2), (0, 0, 1, 0))  # slot k: the sum of the levels before it

    def hidden(self, uids: Tensor) -> Tensor:
        """State after each chunk: uids [B, T], right-padded with 0 -> [B, T, D], 0 at the padding."""
        packing = Packing.from_mask(uids != 0)
        return packing.unpack(self.packed_hidden(uids, packing))

    def packed_hidden(self, uids: Tensor, packing: Packing) -> Tensor:
        """State after each real chunk of uids [B, T], in the packing's order: [N, D]."""
        x = self.embed(packing.pack(uids))  # [N, slots, D]
        states = self.transformer.packed(x.flatten(0, 1), packing.repeat_interleave(self.config.slots))
        return states.unflatten(0, (-1, self.config.slots))[:, -1]

    def last_state(self, uids: Tensor) -> Tensor:
        """State after the last real chunk of each history: [B, T] right-padded, none empty -> [B, D]."""
        last = (uids != 0).sum(dim=1) - 1
        if len(uids) == 1:  # one history has no padding to pack away: a served request's case
            real = uids[:, : int(last) + 1]
            return self.packed_hidden(real, Packing.dense(1, real.shape[1], uids.device))[-1:]
        return self.hidden(uids)[torch.arange(len(uids), device=uids.device), last]

    def item_vectors(self) -> Tensor:
        """The fused last slot of every UID: [I + 1, D]."""
        vectors = self.uid.weight
        if self.text_reader is not None:
            vectors = vectors + self.text_reader()
        if self.config.fusion == "none":
            return vectors
        return vectors + self.code_sums(self.code.weight, self.code_rows())

    def act_weights(self) -> tuple[Tensor, Tensor]:
        """The act head's rows [I + 1, D] and bias [I + 1]; if tied, a row is the item's fused last slot."""
        rows = self.item_vectors() if self.config.tied else self.act_head.weight
        return rows, mask_padding(self.act_bias)

    def act_logits(self, states: Tensor) -> Tensor:
        """UID logits for states [N, D] -> [N, I + 1]; column 0 (padding) is -inf."""
        weight, bias = self.act_weights()
        return states @ weight.T + bias

    def think_weights(self) -> tuple[Tensor, Tensor]:
        """The think heads' rows [L * K, D] and bias [L * K], one level after the other."""
        return self.code.weight if self.config.tied else self.think_head.weight, self.think_bias

    def think_logits(self, states: Tensor) -> Tensor:
        """SID logits for states [N, D] -> [N, L, K], one independent head per level."""
        weight, bias = self.think_weights()
        return (states @ weight.T + bias).view(-1, self.config.n_levels, self.config.codebook_size)

    def score(self, uids: Tensor) -> Tensor:
        """Log-probabilities of every UID after each history: [B, T] -> [B, I + 1]."""
        return self.act_logits(self.last_state(uids)).log_softmax(dim=-1)

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """`loss` = act + think_weight * think, with label smoothing if configured, and its parts.

        `act` is the UID's cross-entropy, `think` the mean of the SID's over the levels.

        Args:
            inputs: [B, T] UIDs, 0 padded on the right; targets: [B, T] the next UIDs, 0 if there is none.
        """
        packing = Packing.from_mask(inputs != 0)
        targets = packing.pack(targets)  # [N]
        valid_mask = targets != 0
        states = self.packed_hidden(inputs, packing)[valid_mask]  # [N, D], now of valid targets
        targets = targets[valid_mask]
        if self.negatives is not None and self.training:
            act = loss = self.sampled_act_loss(states, targets, self.negatives)
        else:
            weight, bias = self.act_weights()
            act = loss = linear_cross_entropy(states, weight, bias, targets)
            if share := self.config.label_smoothing:
                loss = act + label_smoothing_term(states, weight, bias, targets, share)
        think = torch.zeros((), device=act.device)
        if self.config.think_weight:
            think = F.cross_entropy(self.think_logits(states).flatten(0, 1), self.sids[targets].flatten())
            loss = loss + self.config.think_weight * think
        return {"loss": loss, "act": act.detach(), "think": think.detach()}

    def sampled_act_loss(self, states: Tensor, targets: Tensor, negatives: Negatives) -> Tensor:
        """UID cross-entropy of targets [N] after states [N, D] over a sample of the catalogue."""
        count, device = len(targets), targets.device
        uids = torch.cat([targets, negatives.draw().to(device)])  # [N + S]
        rows = self.embed(uids)[:, -1] if self.config.tied else self.act_head.weight[uids]  # [N + S, D]
        target_logits = (states * rows[:count]).sum(dim=1) + self.act_bias[targets]  # [N]
        indices = negatives.choose(count).to(device)  # [C] indices into uids
        negative_logits = states @ rows[indices].T + self.act_bias[uids[indices]]  # [N, C]
        log_q = negatives.log_q(count).to(device)
        return sampled_cross_entropy(target_logits, negative_logits, targets, uids[indices], log_q)
