"""Ranking by action: how likely a user likes each item, given the items and actions before it.

Three architectures of equal width and depth. "Beyond Interleaving" (arXiv 2603.10369) publishes the ideas of
AttnLFA and AttnMVP but not their equations: **this is a reconstruction**, and so are its details (null slot,
norms, head). An item is what it is for CAR: the UID's row plus the rows of its SID's codes.

Let i_n be the n-th item's vector with its position, a_n the vector of the action on it, n = 1..T.

- `interleaved`, the baseline: a causal transformer reads i_1 a_1 i_2 a_2 ..; logits from its state at i_n.
- `lfa`, late fusion: a causal transformer reads items alone, h = Transformer(i). Past *actions* are pooled by
  how like items are: z_n = sum over j < n of softmax_j(W_q h_n . W_k h_j) W_v LN(a_j); logits: [h_n; z_n].
- `mvp`, mixed values: in every block queries and keys come from the item stream x, and values from both,
  V_j = W_v LN(x_j + a_j), j < n; x_n itself passes through the residual alone.

Where only j < n counts, keys and values are shifted one position behind a learned *null slot*
(`action_ranker/attention.py`). The action on item n never reaches what is predicted for items 1..n.

Shape letters: B batch, T items, N packed items, P items of one history, C candidates, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from car_model.action_ranker.attention import (
    MixedTransformer,
    PastActions,
    candidate_attention,
    past_attention,
)
from car_model.models.car import check_sids
from car_model.models.kv_cache import KVCache
from car_model.models.packing import Packing
from car_model.models.transformer import ModelConfig, Transformer, initialise

Architecture = Literal["interleaved", "lfa", "mvp"]
ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)
UNKNOWN, DISLIKED, LIKED = 0, 1, 2  # classes of an action


@dataclass(frozen=True)
class RankerConfig(ModelConfig):
    """Everything that shapes the weights, and what counts as liked."""

    n_items: int  # UIDs are 1..n_items; 0 pads
    n_levels: int
    codebook_size: int
    liked: float  # the least action that counts as liked, such as 4 stars
    architecture: Architecture = "mvp"
    hidden_actions: float = 0.0  # share of histories that a training step shows without their actions

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            names = ", ".join(ARCHITECTURES)
            raise ValueError(f"there is no architecture {self.architecture!r}; there are: {names}.")


class ActionRanker(nn.Module):
    """Predicts whether the user likes each item of a history, from what came before.

    `sids` are [I + 1, L] codes by UID; row 0 is padding.
    """

    sids: Tensor

    def __init__(self, config: RankerConfig, sids: Tensor) -> None:
        super().__init__()
        check_sids(sids, config.n_items, config.n_levels, config.codebook_size)
        self.config = config
        self.register_buffer("sids", sids.long())
        self.uid = nn.Embedding(config.n_items + 1, config.d_model, padding_idx=0)
        self.code = nn.Embedding(config.n_levels * config.codebook_size, config.d_model)
        self.action = nn.Embedding(3, config.d_model, padding_idx=UNKNOWN)
        mixed, late = config.architecture == "mvp", config.architecture == "lfa"
        slots = 1 if mixed or late else 2  # positions that an item takes
        self.mixed = MixedTransformer(config, config.max_history) if mixed else None
        self.transformer = None if mixed else Transformer(config, slots * config.max_history)
        self.late = PastActions(config.d_model, config.n_heads) if late else None
        self.head = nn.Sequential(
            nn.Linear(2 * config.d_model if late else config.d_model, config.d_model),
            nn.GELU(),
            nn.Linear(config.d_model, 2),
        )
        for module in (self.uid, self.code, self.action, *self.head):
            initialise(module)
        with torch.no_grad():
            self.uid.weight[0].zero_()
            self.action.weight[UNKNOWN].zero_()

    def embed_items(self, uids: Tensor) -> Tensor:
        """Item vectors of uids [N]: [N, D]."""
        offsets = torch.arange(self.config.n_levels, device=uids.device) * self.config.codebook_size
        return self.uid(uids) + F.embedding_bag(self.sids[uids] + offsets, self.code.weight, mode="sum")

    def packed_logits(self, items: Tensor, actions: Tensor, packing: Packing) -> Tensor:
        """Logits of disliked and liked for packed items [N, D] with action vectors [N, D]: [N, 2]."""
        if self.mixed is not None:
            return self.head(self.mixed.mix(items, actions, packing))
        transformer = cast(Transformer, self.transformer)
        if self.late is not None:
            h = transformer.packed(items, packing)
            pooled = self.late(h, actions, past_attention(packing, [self.late.null]))
            return self.head(torch.cat([h, pooled], dim=-1))
        tokens = torch.stack([items, actions], dim=1).flatten(0, 1)  # i_1 a_1 i_2 a_2 ..
        return self.head(transformer.packed(tokens, packing.repeat_interleave(2))[::2])

    def logits(self, uids: Tensor, actions: Tensor) -> Tensor:
        """Logits of disliked and liked at every item [B, T, 2], 0 at the padding.

        Args:
            uids: [B, T], right-padded with 0; T must not exceed `max_history`.
            actions: [B, T] classes, 0 if unknown. The action that is predicted at an item is not read there.
        """
        packing = Packing.from_mask(uids != 0)
        items, action_vectors = self.embed_items(packing.pack(uids)), self.action(packing.pack(actions))
        return packing.unpack(self.packed_logits(items, action_vectors, packing))

    def loss(self, uids: Tensor, actions: Tensor, target_mask: Tensor) -> dict[str, Tensor]:
        """Mean cross-entropy of the known actions [B, T] at which `target_mask` [B, T] is True."""
        packing = Packing.from_mask(uids != 0)
        classes, valid_mask = packing.pack(actions), packing.pack(target_mask)  # [N]
        visible = classes
        if self.training and self.config.hidden_actions:  # of some histories no action is shown
            history = (packing.positions == 0).cumsum(0) - 1  # [N] index of the history an item is in
            draws = torch.rand(len(classes), device=classes.device)[history]
            visible = classes.where(draws >= self.config.hidden_actions, UNKNOWN)
        logits = self.packed_logits(self.embed_items(packing.pack(uids)), self.action(visible), packing)
        targets = torch.where(valid_mask, classes, UNKNOWN)
        total = F.cross_entropy(logits.float(), targets - 1, ignore_index=UNKNOWN - 1, reduction="sum")
        return {"loss": total / (targets != UNKNOWN).sum().clamp(min=1)}

    def probabilities(self, uids: Tensor, actions: Tensor) -> Tensor:
        """P(liked) at every item: uids, actions [B, T] -> [B, T]."""
        return like_probability(self.logits(uids, actions))

    def candidate_logits(self, uids: Tensor, actions: Tensor, candidates: Tensor) -> Tensor:
        """Logits of disliked and liked for candidates, each as the next item of one history: [C, 2].

        The history is read once for all candidates. In evaluation mode only.

        Args:
            uids: [P] at least one, fewer than `max_history`; actions: [P] classes; candidates: [C] UIDs.
        """
        dtype = self.action.weight.dtype
        items, candidate_items = (self.embed_items(x).to(dtype) for x in (uids, candidates))
        action_vectors = self.action(actions)
        if self.mixed is not None:
            return self.head(self.mixed.candidate_states(items, action_vectors, candidate_items))
        transformer, tokens = cast(Transformer, self.transformer), items
        if self.late is None:
            tokens = torch.stack([items, action_vectors], dim=1).flatten(0, 1)
        cache = KVCache(transformer, tokens[None], torch.tensor([len(tokens)], device=tokens.device))
        h = cache.extend(candidate_items[None, :, None])[0, :, 0]  # [C, D] each alone after the history
        if self.late is None:
            return self.head(h)
        _, keys, values = self.late.project(transformer(items[None])[0], action_vectors)
        attention = candidate_attention([self.late.null.before(keys, values)])
        return self.head(torch.cat([h, self.late(h, torch.zeros_like(h), attention)], dim=-1))


def like_probability(logits: Tensor) -> Tensor:
    """P(liked) from logits of disliked and liked [..., 2]: [...], in float32 at least."""
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return exact.softmax(dim=-1)[..., LIKED - 1]
