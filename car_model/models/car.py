"""CAR, "Act-With-Think" (arXiv 2506.23643): chunks of semantic IDs and the item's own ID, predicted at once.

A chunk is `(S1 .. SL, UID)`. *Progressive context fusion*: the input at slot k is its own embedding fused
with the embeddings of the think levels before it. A causal transformer reads the chunks; the hidden state
at a chunk's last slot predicts *all* tokens of the next chunk through independent heads.

Beyond the paper, and off by default, the act slot may also read the item's text itself: its coordinates on
the codebook's main axes, through one linear map. Codes say only which cluster a text is in; coordinates say
the rest, also of an item that has no trained UID row yet (docs/results.md). `uid_dropout` trains for those:
in every step a share of the items has no UID row, neither as input nor as target.

Two layouts: `full` keeps the L+1 slots as positions (the paper's); `collapsed` keeps only the last slot,
whose fused input already holds every level, and so reads L+1 times fewer positions.

Shape letters: B batch, T chunks, L levels, K codes, D width, N predicted positions, I items, A text axes.
Not published and settled here by ablation (docs/results.md): think weight, fusion, tying, sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from car_model.models.item_embedding import CodeSums, TextReader
from car_model.models.losses import Negatives, linear_cross_entropy, sampled_cross_entropy, smoothing
from car_model.models.packing import Packing
from car_model.models.transformer import PositionEncoding, Transformer, TransformerConfig, initialise

Layout = Literal["collapsed", "full"]
Fusion = Literal["sum", "gated", "none"]


@dataclass(frozen=True)
class CARConfig:
    """Everything that shapes the weights, and the weights of the loss."""

    n_items: int  # UIDs are 1..n_items; 0 pads
    n_levels: int
    codebook_size: int
    d_model: int = 64
    n_layers: int = 2
    n_heads: int = 2
    max_history: int = 50  # chunks read
    dropout: float = 0.2
    layout: Layout = "collapsed"
    fusion: Fusion = "sum"
    think_weight: float = 0.1  # alpha: weight of the mean SID cross-entropy; 0 switches thinking off
    tied: bool = True  # heads share the embeddings; the act head sees the fused item vectors
    text_dim: int = 0  # coordinates of its text that an item's act slot reads
    uid_dropout: float = 0.0  # share of items without their UID row in a training step
    position_encoding: PositionEncoding = "learned"
    label_smoothing: float = 0.0  # share of a target UID that is spread over all items

    @property
    def slots(self) -> int:
        """Positions a chunk takes in the transformer."""
        return self.n_levels + 1 if self.layout == "full" else 1

    def backbone(self) -> TransformerConfig:
        """Sizes of the transformer that reads these chunks."""
        return TransformerConfig(
            d_model=self.d_model,
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            max_positions=self.max_history * self.slots,
            dropout=self.dropout,
            position_encoding=self.position_encoding,
        )


def check_sids(sids: Tensor, n_items: int, n_levels: int, codebook_size: int) -> None:
    """Hold that a SID table [I + 1, L] fits a model.

    Raises:
        ValueError: it is of another size or holds codes out of range.
    """
    if tuple(sids.shape) != (n_items + 1, n_levels):
        raise ValueError(f"the SID table is {tuple(sids.shape)}, expected {(n_items + 1, n_levels)}.")
    if int(sids.max()) >= codebook_size or int(sids.min()) < 0:
        raise ValueError(f"the SID table holds codes outside 0..{codebook_size - 1}.")


class CAR(nn.Module):
    """The Act-With-Think model over a fixed table of SIDs.

    Args:
        config: sizes.
        sids: [I + 1, L] codes by UID, row 0 is padding and is never read as an item.
        text: [I + 1, at least config.text_dim] coordinates of the items' texts by UID, main axes first;
            needed if config.text_dim is not 0.
    """

    sids: Tensor
    negatives: Negatives | None = None  # set to train on a sample of the catalogue; no part of the weights

    def __init__(self, config: CARConfig, sids: Tensor, text: Tensor | None = None) -> None:
        super().__init__()
        check_sids(sids, config.n_items, config.n_levels, config.codebook_size)
        self.config = config
        self.register_buffer("sids", sids.long())
        self.read = (
            TextReader(text, config.n_items, config.text_dim, config.d_model) if config.text_dim else None
        )
        self.uid = nn.Embedding(config.n_items + 1, config.d_model, padding_idx=0)
        self.code = nn.Embedding(
            config.n_levels * config.codebook_size, config.d_model
        )  # level l, code c at l*K + c
        self.code_sums = CodeSums()
        self.transformer = Transformer(config.backbone())
        self.gate = nn.Linear(2 * config.d_model, config.d_model) if config.fusion == "gated" else None
        self.act_bias = nn.Parameter(torch.zeros(config.n_items + 1))
        self.think_bias = nn.Parameter(torch.zeros(config.n_levels * config.codebook_size))
        if not config.tied:
            self.act_head = nn.Linear(config.d_model, config.n_items + 1, bias=False)
            self.think_head = nn.Linear(config.d_model, config.n_levels * config.codebook_size, bias=False)
        for module in (self.uid, self.code, *([] if config.tied else [self.act_head, self.think_head])):
            initialise(module)
        with torch.no_grad():
            self.uid.weight[0].zero_()

    def embed(self, uids: Tensor, shown: Tensor | None = None) -> Tensor:
        """Fused chunk slots for uids [..., ] -> [..., slots, D] (progressive context fusion).

        Args:
            shown: [I + 1, 1] 1 where an item has its UID row, 0 where not; None: all have.
        """
        config = self.config
        codes = self.code(self._slots(uids))  # [..., L, D]
        act = self.uid(uids) if shown is None else self.uid(uids) * shown[uids]  # [..., D]
        act = act if self.read is None else act + self.read(uids)
        if config.layout == "collapsed" and config.fusion != "gated":  # only the last slot is read
            last = act if config.fusion == "none" else act + codes.sum(dim=-2)
            return last.unsqueeze(-2)
        own = torch.cat([codes, act.unsqueeze(-2)], dim=-2)  # [..., L+1, D]
        if config.fusion == "none":
            fused = own
        else:
            before = F.pad(codes.cumsum(dim=-2), (0, 0, 1, 0))  # slot k: sum of the think levels before it
            if self.gate is not None:
                before = before * torch.sigmoid(self.gate(torch.cat([own, before], dim=-1)))
            fused = own + before
        return fused if config.layout == "full" else fused[..., -1:, :]

    def _slots(self, uids: Tensor | slice = slice(None)) -> Tensor:
        """Rows of the code table that the chunks of uids [...] read: [..., L]; of all UIDs by default."""
        offsets = torch.arange(self.config.n_levels, device=self.sids.device) * self.config.codebook_size
        return self.sids[uids] + offsets

    def hidden(self, uids: Tensor) -> Tensor:
        """State after each chunk: uids [B, T], right-padded with 0 -> [B, T, D], 0 at the padding."""
        packing = Packing.of(uids != 0)
        return packing.unpack(self.packed_hidden(uids, packing))

    def packed_hidden(self, uids: Tensor, packing: Packing, shown: Tensor | None = None) -> Tensor:
        """State after each real chunk of uids [B, T], in the packing's order: [N, D]."""
        x = self.embed(packing.pack(uids), shown)  # [N, slots, D]
        states = self.transformer.packed(x.flatten(0, 1), packing.repeat_interleave(self.config.slots))
        return states.unflatten(0, (-1, self.config.slots))[:, -1]

    def act_logits(self, states: Tensor) -> Tensor:
        """UID logits for states [N, D] -> [N, I + 1]; column 0 (padding) is -inf."""
        weight, bias = self.act_weights()
        return states @ weight.T + bias

    def act_weights(self, shown: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The act head's rows [I + 1, D] and bias [I + 1]; tied, a row is the item's fused last slot."""
        bias = self.act_bias.index_fill(
            0, torch.zeros(1, dtype=torch.long, device=self.sids.device), -torch.inf
        )
        if not self.config.tied:
            return self.act_head.weight, bias
        return self.item_vectors(shown), bias

    def item_vectors(self, shown: Tensor | None = None) -> Tensor:
        """The fused last slot of every UID: [I + 1, D]; `shown` as for `embed`."""
        own = self.uid.weight if shown is None else self.uid.weight * shown
        own = own if self.read is None else own + self.read.every()
        if self.config.fusion == "none":
            return own
        before = self.code_sums(self.code.weight, self._slots())
        if self.gate is not None:
            before = before * torch.sigmoid(self.gate(torch.cat([own, before], dim=-1)))
        return own + before

    def think_logits(self, states: Tensor) -> Tensor:
        """SID logits for states [N, D] -> [N, L, K], one independent head a level."""
        weight, bias = self.think_weights()
        logits = states @ weight.T + bias
        return logits.view(-1, self.config.n_levels, self.config.codebook_size)

    def think_weights(self) -> tuple[Tensor, Tensor]:
        """The think heads' rows [L * K, D] and bias [L * K], one level after the other."""
        return self.code.weight if self.config.tied else self.think_head.weight, self.think_bias

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Training loss over the next chunks.

        Args:
            inputs: [B, T] UIDs, 0 padded on the right.
            targets: [B, T] the next UIDs, 0 where there is nothing to predict.

        Returns:
            `loss` = act + think_weight * think, smoothed where the configuration says so, and its parts `act`
            (UID cross-entropy) and `think` (mean SID cross-entropy over the levels).
        """
        packing = Packing.of(inputs != 0)
        wanted = packing.pack(targets)  # [N]
        keep = wanted != 0
        shown = self._shown()
        states, wanted = self.packed_hidden(inputs, packing, shown)[keep], wanted[keep]
        act, loss = self._act_loss(states, wanted, shown)
        if self.config.think_weight == 0:
            return {"loss": loss, "act": act.detach(), "think": torch.zeros((), device=act.device)}
        think = F.cross_entropy(self.think_logits(states).flatten(0, 1), self.sids[wanted].flatten())
        return {"loss": loss + self.config.think_weight * think, "act": act.detach(), "think": think.detach()}

    def _act_loss(self, states: Tensor, wanted: Tensor, shown: Tensor | None) -> tuple[Tensor, Tensor]:
        """UID cross-entropy of targets [N] after states [N, D], plain and smoothed.

        In training it is perhaps over a sample, and then never smoothed (`car_model.training.recipe`).
        """
        if self.negatives is None or not self.training:
            head, share = self.act_weights(shown), self.config.label_smoothing
            act = linear_cross_entropy(states, *head, wanted)
            return act, act + smoothing(states, *head, wanted, share) if share else act
        count, where = len(wanted), wanted.device
        uids = torch.cat([wanted, self.negatives.draw().to(where)])  # [N + S]
        rows = self.embed(uids, shown)[:, -1] if self.config.tied else self.act_head.weight[uids]
        own = (states * rows[:count]).sum(dim=1) + self.act_bias[wanted]
        chosen = self.negatives.choose(count).to(where)  # [C]
        others = states @ rows[chosen].T + self.act_bias[uids[chosen]]
        log_q = self.negatives.log_q(count).to(where)
        act = sampled_cross_entropy(own, others, wanted, uids[chosen], log_q)
        return act, act

    def _shown(self) -> Tensor | None:
        """Which items have their UID row in this step [I + 1, 1]; None: all, as ever outside training."""
        share = self.config.uid_dropout
        if not self.training or not share:
            return None
        return (torch.rand(self.config.n_items + 1, 1, device=self.sids.device) >= share).float()

    def last_state(self, uids: Tensor) -> Tensor:
        """State after the last real chunk of each history: [B, T] right-padded, none empty -> [B, D]."""
        last = (uids != 0).sum(dim=1) - 1
        if len(uids) == 1:  # one history has no padding to pack away: a served request's case
            real = uids[:, : int(last) + 1]
            return self.packed_hidden(real, Packing.dense(1, real.shape[1], uids.device))[-1:]
        return self.hidden(uids)[torch.arange(len(uids), device=uids.device), last]

    def score(self, uids: Tensor) -> Tensor:
        """Act scores (log-probabilities) of every UID after each history: [B, T] -> [B, I + 1]."""
        return self.act_logits(self.last_state(uids)).log_softmax(dim=-1)
