"""Ranking by action: how likely a user acts on each item, from the items and actions before it.

Three architectures of equal width and depth. Published are the ideas of AttnLFA and AttnMVP ("Beyond
Interleaving", arXiv 2603.10369), not their equations: **what stands here is a reconstruction**, and so are
its details (null slot, norms, head). Items are CAR's chunks: the UID's row plus the rows of its SIDs.

Let i_n be the n-th item's vector with its position, a_n the vector of the action on it, n = 1..T.

- `interleaved`, the baseline: a causal transformer reads i_1 a_1 i_2 a_2 ..; logits from its state at i_n.
- `lfa`, late fusion: a causal transformer reads items alone, h = Transformer(i). Past *actions* are pooled by
  how like items are: z_n = sum over j < n of softmax_j(W_q h_n . W_k h_j) W_v LN(a_j); logits: [h_n; z_n].
- `mvp`, mixed values: in every block queries and keys come from the item stream x, and values from both,
  V_j = W_v LN(x_j + a_j), j < n; x_n itself passes through the residual alone.

Where only j < n counts, keys and values are moved on by one position behind a learned *null slot*: what n = 1
attends to, and what is attended to where no past item fits. Past and present then line up as in plain causal
attention, so the fused kernel does it, without a mask. The action on item n never reaches what is predicted
for items 1..n.

Shape letters: B batch, T items, N packed items, D width, H heads, E = D / H, M tasks, C classes of a task.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from car_model.action_ranker.attention import MixedTransformer, PastActions
from car_model.models.car import check_sids
from car_model.models.packing import Packing
from car_model.models.transformer import Transformer, TransformerConfig, initialise

Architecture = Literal["interleaved", "lfa", "mvp"]
ARCHITECTURES: tuple[Architecture, ...] = ("interleaved", "lfa", "mvp")
UNKNOWN = 0  # class of an action that is not known; known ones are 1..C


@dataclass(frozen=True)
class Task:
    """What is predicted of an interaction: the class that its action falls into.

    Attributes:
        bounds: ascending; an action's class is how many of them it reaches. (4,) asks whether a rating
            is 4 or more, (2, 3, 4, 5) which of five it is.
        positive: the first class that counts as liked, from 0.
        weight: of its cross-entropy in the loss.
    """

    name: str
    bounds: tuple[float, ...]
    positive: int = 1
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.bounds or list(self.bounds) != sorted(set(self.bounds)):
            raise ValueError(f"the bounds of task {self.name!r} are {self.bounds}; they must ascend.")
        if not 1 <= self.positive < self.classes:
            raise ValueError(
                f"task {self.name!r} counts classes from {self.positive}; it has {self.classes}."
            )

    @property
    def classes(self) -> int:
        """C."""
        return len(self.bounds) + 1


@dataclass(frozen=True)
class RankerConfig:
    """Everything that shapes the weights, and the weights of the loss."""

    n_items: int  # UIDs are 1..n_items; 0 pads
    n_levels: int
    codebook_size: int
    tasks: tuple[Task, ...]
    architecture: Architecture = "mvp"
    d_model: int = 64
    n_layers: int = 2
    n_heads: int = 2
    max_history: int = 50  # items read, the one that is asked about among them
    dropout: float = 0.2
    hidden_actions: float = 0.0  # share of histories that a training step shows without their actions

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(
                f"there is no architecture {self.architecture!r}; there are: {', '.join(ARCHITECTURES)}."
            )
        if not self.tasks:
            raise ValueError("a ranker needs at least one task.")

    def backbone(self) -> TransformerConfig:
        """Sizes of the transformer; interleaved, an item takes two positions."""
        slots = 2 if self.architecture == "interleaved" else 1
        return TransformerConfig(
            d_model=self.d_model,
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            max_positions=self.max_history * slots,
            dropout=self.dropout,
        )


class ActionRanker(nn.Module):
    """Predicts the action on every item of a history from what came before.

    Args:
        config: sizes and architecture.
        sids: [I + 1, L] codes by UID; row 0 is padding.
    """

    sids: Tensor

    def __init__(self, config: RankerConfig, sids: Tensor) -> None:
        super().__init__()
        check_sids(sids, config.n_items, config.n_levels, config.codebook_size)
        self.config = config
        self.register_buffer("sids", sids.long())
        self.uid = nn.Embedding(config.n_items + 1, config.d_model, padding_idx=0)
        self.code = nn.Embedding(
            config.n_levels * config.codebook_size, config.d_model
        )  # level l, code c at l*K + c
        self.action = nn.ModuleList(
            nn.Embedding(task.classes + 1, config.d_model, padding_idx=UNKNOWN) for task in config.tasks
        )
        self.mixed = MixedTransformer(config.backbone()) if config.architecture == "mvp" else None
        self.transformer = None if config.architecture == "mvp" else Transformer(config.backbone())
        self.late = PastActions(config.d_model, config.n_heads) if config.architecture == "lfa" else None
        read = 2 * config.d_model if config.architecture == "lfa" else config.d_model
        self.head = nn.Sequential(
            nn.Linear(read, config.d_model),
            nn.GELU(),
            nn.Linear(config.d_model, sum(task.classes for task in config.tasks)),
        )
        for module in (self.uid, self.code, *self.action, *self.head):
            initialise(module)
        with torch.no_grad():
            for table in (self.uid, *self.action):
                cast(nn.Embedding, table).weight[0].zero_()

    def embed_items(self, uids: Tensor) -> Tensor:
        """The fused chunks of uids [N]: [N, D]."""
        offsets = torch.arange(self.config.n_levels, device=uids.device) * self.config.codebook_size
        return self.uid(uids) + F.embedding_bag(self.sids[uids] + offsets, self.code.weight, mode="sum")

    def embed_actions(self, actions: Tensor) -> Tensor:
        """The sum of the tasks' rows for actions [N, M]: [N, D]; nothing of what is unknown."""
        rows = [table(classes) for table, classes in zip(self.action, actions.unbind(-1), strict=True)]
        return cast(Tensor, sum(rows[1:], rows[0]))

    def packed_logits(self, items: Tensor, actions: Tensor, packing: Packing) -> Tensor:
        """Logits of all tasks' classes for packed items [N, D] with actions [N, D]: [N, sum C]."""
        if self.mixed is not None:
            return self.head(self.mixed(items, actions, packing))
        transformer = cast(Transformer, self.transformer)
        if self.late is not None:
            h = transformer.packed(items, packing)
            return self.head(torch.cat([h, self.late(h, actions, packing)], dim=-1))
        tokens = torch.stack([items, actions], dim=1).flatten(0, 1)  # i_1 a_1 i_2 a_2 ..
        return self.head(transformer.packed(tokens, packing.repeat_interleave(2))[::2])

    def logits(self, uids: Tensor, actions: Tensor) -> list[Tensor]:
        """Logits of every task at every item.

        Args:
            uids: [B, T], right-padded with 0; T must not exceed `max_history`.
            actions: [B, T, M] classes 1..C, 0 where unknown. What is predicted at an item is not read there.

        Returns:
            [B, T, C] a task, 0 at the padding.
        """
        packing = Packing.of(uids != 0)
        items, acted = self.embed_items(packing.pack(uids)), self.embed_actions(packing.pack(actions))
        return self.by_task(packing.unpack(self.packed_logits(items, acted, packing)))

    def by_task(self, logits: Tensor) -> list[Tensor]:
        """Logits [..., sum C] task by task."""
        return list(logits.split([task.classes for task in self.config.tasks], dim=-1))

    def loss(self, uids: Tensor, actions: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        """Training loss over the actions that are known and wanted.

        Args:
            uids: [B, T]; actions: [B, T, M], as for `logits`.
            wanted: [B, T] True at the items whose actions are to be learned.

        Returns:
            `loss`, the weighted sum of the tasks' mean cross-entropies, and each of these by the task's name.
        """
        packing = Packing.of(uids != 0)
        acted, keep = packing.pack(actions), packing.pack(wanted)
        logits = self.packed_logits(
            self.embed_items(packing.pack(uids)), self.embed_actions(self._shown(acted, packing)), packing
        )
        parts: dict[str, Tensor] = {}
        total = logits.new_zeros(())
        targets = torch.where(keep[:, None], acted, UNKNOWN)
        for task, scores, classes in zip(
            self.config.tasks, self.by_task(logits), targets.unbind(-1), strict=True
        ):
            found = F.cross_entropy(scores.float(), classes - 1, ignore_index=UNKNOWN - 1, reduction="sum")
            parts[task.name] = found / (classes != UNKNOWN).sum().clamp(min=1)
            total = total + task.weight * parts[task.name]
        return {"loss": total, **{name: value.detach() for name, value in parts.items()}}

    def _shown(self, actions: Tensor, packing: Packing) -> Tensor:
        """Past actions [N, M] as a training step shows them: of some histories none."""
        if not self.training or not self.config.hidden_actions:
            return actions
        history = (packing.positions == 0).cumsum(0) - 1  # [N], which one an item is of
        draws = torch.rand(len(actions), 1, device=actions.device)[history]
        return actions.where(draws >= self.config.hidden_actions, UNKNOWN)

    def probabilities(self, uids: Tensor, actions: Tensor, task: int = 0) -> Tensor:
        """P(the action counts as liked) at every item, uids [B, T], actions [B, T, M]: [B, T]."""
        return self.liked(self.logits(uids, actions)[task], task)

    def liked(self, logits: Tensor, task: int = 0) -> Tensor:
        """P(liked) from a task's logits [..., C], what its classes from `positive` on have: [...]."""
        exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return exact.softmax(dim=-1)[..., self.config.tasks[task].positive :].sum(dim=-1)


def resize_to(model: ActionRanker, sids: Tensor) -> ActionRanker:
    """The ranker over a catalogue with items appended, SIDs [I + 1, L]; new ones are their codes alone."""
    found = ActionRanker(replace(model.config, n_items=len(sids) - 1), sids)
    weights = model.state_dict() | {"sids": found.sids}
    weights["uid.weight"] = F.pad(weights["uid.weight"], (0, 0, 0, len(sids) - len(weights["uid.weight"])))
    found.load_state_dict(weights)
    return found.eval()
