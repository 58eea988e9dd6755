"""What CAR's parallel prediction is measured against: the same chunks, written one token at a time.

With the UID token this is CAR's autoregressive ablation (arXiv 2506.23643): a chunk is `(S1 .. SL, UID)`.
Without it, a TIGER-style model (arXiv 2305.05065): an item is its SID alone, and items that share one tie.
TIGER itself reads the history with an encoder and ends colliding SIDs with a suffix; here both models are
decoder-only on CAR's backbone, so that only the way of predicting differs.

Shape letters: B batch, T chunks, L levels, K codes, D width, N predicted chunks, I items; a chunk takes
`slots` positions, L + 1 with the UID token and L without.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from car_model.beam import beam_search
from car_model.cross_entropy import linear_cross_entropy
from car_model.model import check_sids
from car_model.packing import Packing
from car_model.transformer import Transformer, TransformerConfig, initialise
from car_model.trie import Trie

SCORE_ROWS = 64  # histories searched at once


@dataclass(frozen=True)
class ARConfig:
    """Everything that shapes the weights; the same names as CAR's so that all are tuned alike."""

    items: int  # UIDs are 1..items; 0 pads
    levels: int
    codes: int
    width: int = 64
    layers: int = 2
    heads: int = 2
    history: int = 50  # chunks read
    dropout: float = 0.2
    uid: bool = True  # False: TIGER-style
    beam: int = 20  # prefixes `score` keeps

    @property
    def slots(self) -> int:
        """Tokens of a chunk."""
        return self.levels + self.uid

    def backbone(self) -> TransformerConfig:
        """Sizes of the transformer: the history and the chunk after it."""
        positions = (self.history + 1) * self.slots
        return TransformerConfig(self.width, self.layers, self.heads, positions, self.dropout)


class AutoRegressive(nn.Module):
    """Next-token prediction over the tokens of chunks; heads are tied to the token embeddings.

    The SID table comes with the constructor and is no part of the weights, so that the trie made of it
    can't be another table's.

    Args:
        config: sizes.
        sids: [I + 1, L] codes by UID, row 0 is padding and is never read as an item.

    Raises:
        ValueError: the SID table is of another size or holds codes out of range.
    """

    sids: Tensor

    def __init__(self, config: ARConfig, sids: Tensor) -> None:
        super().__init__()
        check_sids(sids, config.items, config.levels, config.codes)
        self.config = config
        self.register_buffer("sids", sids.long(), persistent=False)
        self.trie = Trie(sids.long())
        self.code = nn.Embedding(config.levels * config.codes, config.width)  # level l, code c at l*K + c
        self.think_bias = nn.Parameter(torch.zeros(config.levels * config.codes))
        self.transformer = Transformer(config.backbone())
        initialise(self.code)
        if config.uid:
            self.uid = nn.Embedding(config.items + 1, config.width, padding_idx=0)
            self.act_bias = nn.Parameter(torch.zeros(config.items + 1))
            initialise(self.uid)
            with torch.no_grad():
                self.uid.weight[0].zero_()

    def embed(self, uids: Tensor) -> Tensor:
        """Token embeddings of chunks: uids [...] -> [..., slots, D]."""
        offsets = torch.arange(self.config.levels, device=uids.device) * self.config.codes
        codes = self.code(self.sids[uids] + offsets)
        return torch.cat([codes, self.uid(uids).unsqueeze(-2)], dim=-2) if self.config.uid else codes

    def embed_token(self, slot: int, tokens: Tensor) -> Tensor:
        """Embeddings of the tokens of one slot: codes of a level, or UIDs at slot L: [...] -> [..., D]."""
        table, offset = (self.code, slot * self.config.codes) if slot < self.config.levels else (self.uid, 0)
        return F.embedding(tokens + offset, table.weight)

    def head(self, slot: int) -> tuple[Tensor, Tensor]:
        """Rows [C, D] and bias [C] that predict a slot's token: K codes of a level, or I + 1 UIDs."""
        if slot == self.config.levels:
            nothing = torch.zeros(1, dtype=torch.long, device=self.sids.device)
            return self.uid.weight, self.act_bias.index_fill(0, nothing, -torch.inf)
        level = slice(slot * self.config.codes, (slot + 1) * self.config.codes)
        return self.code.weight[level], self.think_bias[level]

    def states(self, uids: Tensor) -> tuple[Tensor, Tensor]:
        """What predicts the tokens of every chunk but each history's first.

        Args:
            uids: [B, T + 1], right-padded with 0.

        Returns:
            states [N, slots, D] and the UIDs [N] they predict; entry [n, k] has read all chunks before the
            predicted one and its first k tokens.
        """
        packing, slots = Packing.of(uids != 0), self.config.slots
        read = packing.pack(uids)  # [M]
        states = self.transformer.packed(self.embed(read).flatten(0, 1), packing.widened(slots))
        later = packing.positions.repeat_interleave(slots) > 0  # tokens of any but a first chunk
        before = later.nonzero()[:, 0] - 1  # each is predicted where the token before it was read
        return states[before].unflatten(0, (-1, slots)), read[packing.positions > 0]

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Training loss over the tokens of the next chunks.

        Args:
            inputs: [B, T] UIDs, 0 padded on the right.
            targets: [B, T] the next UIDs (the inputs shifted by one), 0 where there is nothing to predict.

        Returns:
            `loss`, the mean cross-entropy of a token, and its parts: `act` of the UID and `think`, the mean
            over the levels; without a UID token `act` is the loss itself.
        """
        states, wanted = self.states(torch.cat([inputs[:, :1], targets], dim=1))  # [N, slots, D], [N]
        think = self._think(states, wanted)
        if not self.config.uid:
            return {"loss": think, "act": think.detach()}
        act = linear_cross_entropy(states[:, -1], *self.head(self.config.levels), wanted)
        whole = (self.config.levels * think + act) / self.config.slots
        return {"loss": whole, "act": act.detach(), "think": think.detach()}

    def _think(self, states: Tensor, wanted: Tensor) -> Tensor:
        """Mean cross-entropy of the codes of `wanted` [N] given states [N, slots, D]."""
        levels, codes = self.config.levels, self.config.codes
        rows = self.code.weight.view(levels, codes, -1).transpose(1, 2)  # [L, D, K]
        logits = states[:, :levels].transpose(0, 1) @ rows + self.think_bias.view(levels, 1, codes)
        return F.cross_entropy(logits.flatten(0, 1), self.sids[wanted].T.flatten())

    def score(self, uids: Tensor, width: int | None = None) -> Tensor:
        """Log-probabilities of the items a beam search finds: [B, T] -> [B, I + 1], -inf for all others.

        Histories are right-padded and none is empty. Their own items are left out, so that each beam is
        spent on an item that may be recommended. No dropout, even in training mode.
        """
        every = torch.full((len(uids), self.config.items + 1), -torch.inf, device=uids.device)
        lengths = (uids != 0).sum(dim=1)
        for rows in lengths.argsort().split(SCORE_ROWS):  # histories of like length, so little padding
            part = uids[rows, : int(lengths[rows].max())]
            found, scores = beam_search(self, part, width or self.config.beam, exclude=part)
            every[rows] = every[rows].scatter_(1, found, scores)
        return every
