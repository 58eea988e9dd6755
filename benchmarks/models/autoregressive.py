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

from benchmarks.models.trie import Trie
from car_model.models.car import check_sids
from car_model.models.kv_cache import KVCache
from car_model.models.losses import linear_cross_entropy, mask_padding
from car_model.models.packing import Packing
from car_model.models.transformer import ModelConfig, Transformer, initialise

BLOCK_BYTES = 3 << 20  # of a block's logits: they stay in cache
SCORE_ROWS = 64  # histories searched at once


@torch.no_grad()
def beam_search(
    model: AutoRegressive, uids: Tensor, width: int, exclude: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The likeliest next items: UIDs and log-probabilities [B, W'], best first.

    With a UID token W' is at most `width`; without, every item of a SID that is reached is there and ties, in
    the order of UIDs. If fewer than W' items are reached, the rest is UID 0 with -inf.

    Args:
        uids: [B, T] histories, right-padded with 0, none empty.
        width: prefixes kept after each token.
        exclude: [B, X] UIDs (0 for none) that must not be reached.

    Raises:
        ValueError: the width is not positive, or a history is longer than the model's.
    """
    config, trie, last = model.config, model.trie, model.config.slots - 1
    if width < 1:
        raise ValueError(f"the beam's width is {width}; it must be at least 1.")
    if uids.shape[1] > config.max_history:
        raise ValueError(
            f"a history of {uids.shape[1]} items exceeds the {config.max_history} the model reads."
        )
    excluded = torch.zeros(len(uids), config.n_items + 1, dtype=torch.bool, device=uids.device)
    if exclude is not None:
        excluded.scatter_(1, exclude, True)
    x = model.embed(uids).flatten(1, 2)  # [B, T * slots, D]
    ends = (uids != 0).sum(dim=1) * config.slots - 1  # [B] the histories' last tokens, read first
    cache = KVCache(model.transformer, x, ends)
    x = x[torch.arange(len(x), device=x.device), ends].unsqueeze(1)  # [B, 1, D]
    nodes = torch.zeros(len(uids), 1, dtype=torch.long, device=uids.device)
    scores = torch.zeros(len(uids), 1, device=uids.device)
    for depth in range(config.slots):
        states = cache.extend(x.unsqueeze(2))[:, :, 0]  # [B, W, D]
        tokens, children, real = trie.children_of(depth, nodes)  # [B, W, M]
        gains = log_probabilities(states.flatten(0, 1), *model.head(depth), tokens.flatten(0, 1))
        if config.uid and depth == last:
            real = real & ~excluded.gather(1, tokens.flatten(1)).view(tokens.shape)
        total = (scores.unsqueeze(-1) + gains.view(real.shape)).masked_fill(~real, -torch.inf).flatten(1)
        scores, best = total.topk(min(width, total.shape[1], trie.sizes[depth + 1]))
        tokens, nodes = tokens.flatten(1).gather(1, best), children.flatten(1).gather(1, best)
        if depth < last:
            cache.select(best // real.shape[2])
            x = model.embed_token(depth, tokens)
    if not config.uid:  # all items of the SIDs
        items, _, real = trie.children_of(config.n_levels, nodes)  # [B, W, M]
        real = real & ~excluded.gather(1, items.flatten(1)).view(items.shape)
        scores = scores.unsqueeze(-1).masked_fill(~real, -torch.inf).flatten(1)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        scores, order = scores[:, : config.n_items], order[:, : config.n_items]
        tokens = items.flatten(1).gather(1, order)
    return tokens.masked_fill(scores.isneginf(), 0), scores


@torch.no_grad()
def log_probabilities(states: Tensor, weight: Tensor, bias: Tensor, classes: Tensor) -> Tensor:
    """Log-softmax of a linear head (weight [C, D], bias [C]) of states [N, D] at classes [N, M]: [N, M]."""
    size = max(1, BLOCK_BYTES // (4 * len(weight)))
    parts = []
    for rows, columns in zip(states.split(size), classes.split(size), strict=True):
        logits = F.linear(rows, weight, bias).float()  # [b, C]
        logits = logits.sub_(logits.amax(dim=1, keepdim=True))
        picked = logits.gather(1, columns)
        parts.append(picked - logits.exp_().sum(dim=1, keepdim=True).log())
    return torch.cat(parts)


@dataclass(frozen=True)
class ARConfig(ModelConfig):
    """Everything that shapes the weights, and how wide `score` searches."""

    n_items: int  # UIDs are 1..n_items; 0 pads
    n_levels: int
    codebook_size: int
    uid: bool = True  # False: TIGER-style
    beam: int = 20  # prefixes `score` keeps

    @property
    def slots(self) -> int:
        """Tokens of a chunk."""
        return self.n_levels + self.uid


class AutoRegressive(nn.Module):
    """Next-token prediction over the tokens of chunks; heads are tied to the token embeddings.

    The SID table [I + 1, L] is no part of the weights, so that the trie made of it can't be another table's.
    Its row 0 is padding and is never read as an item.
    """

    sids: Tensor

    def __init__(self, config: ARConfig, sids: Tensor) -> None:
        super().__init__()
        check_sids(sids, config.n_items, config.n_levels, config.codebook_size)
        self.config = config
        self.register_buffer("sids", sids.long(), persistent=False)
        self.trie = Trie(sids.long())
        n_codes = config.n_levels * config.codebook_size  # level l, code c is row l * K + c
        self.code = nn.Embedding(n_codes, config.d_model)
        self.think_bias = nn.Parameter(torch.zeros(n_codes))
        max_positions = (config.max_history + 1) * config.slots  # the history and the chunk after it
        self.transformer = Transformer(config, max_positions)
        initialise(self.code)
        if config.uid:
            self.uid = nn.Embedding(config.n_items + 1, config.d_model, padding_idx=0)
            self.act_bias = nn.Parameter(torch.zeros(config.n_items + 1))
            initialise(self.uid)
            with torch.no_grad():
                self.uid.weight[0].zero_()

    def embed(self, uids: Tensor) -> Tensor:
        """Token embeddings of chunks: uids [...] -> [..., slots, D]."""
        offsets = torch.arange(self.config.n_levels, device=uids.device) * self.config.codebook_size
        codes = self.code(self.sids[uids] + offsets)
        return torch.cat([codes, self.uid(uids).unsqueeze(-2)], dim=-2) if self.config.uid else codes

    def embed_token(self, slot: int, tokens: Tensor) -> Tensor:
        """Embeddings of the tokens of one slot: codes of a level, or UIDs at slot L: [...] -> [..., D]."""
        if slot == self.config.n_levels:
            return self.uid(tokens)
        return self.code(tokens + slot * self.config.codebook_size)

    def head(self, slot: int) -> tuple[Tensor, Tensor]:
        """Rows [C, D] and bias [C] that predict a slot's token: K codes of a level, or I + 1 UIDs."""
        if slot == self.config.n_levels:
            return self.uid.weight, mask_padding(self.act_bias)
        level = slice(slot * self.config.codebook_size, (slot + 1) * self.config.codebook_size)
        return self.code.weight[level], self.think_bias[level]

    def states(self, uids: Tensor) -> tuple[Tensor, Tensor]:
        """What predicts the tokens of every chunk but each history's first: uids [B, T + 1], right-padded.

        Returns states [N, slots, D] and the UIDs [N] they predict; entry [n, k] has read all chunks before
        the predicted one and its first k tokens.
        """
        packing, slots = Packing.from_mask(uids != 0), self.config.slots
        read = packing.pack(uids)  # [M]
        states = self.transformer.packed(self.embed(read).flatten(0, 1), packing.repeat_interleave(slots))
        predicted = packing.positions.repeat_interleave(slots) > 0  # tokens of any but a first chunk
        previous = predicted.nonzero()[:, 0] - 1  # each is predicted by the state of the token before it
        return states[previous].unflatten(0, (-1, slots)), read[packing.positions > 0]

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """`loss`, the mean cross-entropy of a token, and its parts, for the next chunks.

        `act` is the UID's and `think` the mean over the levels; without a UID token `act` is the loss itself.

        Args:
            inputs: [B, T] UIDs, 0 padded on the right; targets: [B, T] the inputs shifted by one.
        """
        states, predicted = self.states(torch.cat([inputs[:, :1], targets], dim=1))  # [N, slots, D], [N]
        levels, codes = self.config.n_levels, self.config.codebook_size
        rows = self.code.weight.view(levels, codes, -1).transpose(1, 2)  # [L, D, K]
        bias = self.think_bias.view(levels, 1, codes)
        logits = states[:, :levels].transpose(0, 1) @ rows + bias  # [L, N, K]
        think = F.cross_entropy(logits.flatten(0, 1), self.sids[predicted].T.flatten())
        if not self.config.uid:
            return {"loss": think, "act": think.detach()}
        act = linear_cross_entropy(states[:, -1], *self.head(levels), predicted)
        whole = (levels * think + act) / self.config.slots
        return {"loss": whole, "act": act.detach(), "think": think.detach()}

    def score(self, uids: Tensor, width: int | None = None) -> Tensor:
        """Log-probabilities of the items a beam search reaches: [B, T] -> [B, I + 1], -inf for all others.

        Items of the history are left out, so that each beam is spent on an item that may be recommended. No
        dropout, even in training mode.
        """
        scores = torch.full((len(uids), self.config.n_items + 1), -torch.inf, device=uids.device)
        lengths, training = (uids != 0).sum(dim=1), self.training
        self.eval()
        for rows in lengths.argsort().split(SCORE_ROWS):  # histories of like length, so little padding
            part = uids[rows, : int(lengths[rows].max())]
            items, values = beam_search(self, part, width or self.config.beam, exclude=part)
            scores[rows] = scores[rows].scatter_(1, items, values)
        self.train(training)
        return scores
