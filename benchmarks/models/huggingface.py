"""CAR on Hugging Face's GPT-2, the way it is usually written: what the training benchmark compares with."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2Model

from car_model.models.car import CAR
from car_model.models.transformer import Transformer

Padding = Literal["history", "longest"]
NOTHING = 0  # the target where there is nothing to predict


class HuggingFaceCAR(nn.Module):
    """A CAR whose transformer is `transformers.GPT2Model`, from the same weights, and whose heads are plain.

    Chunk embeddings and the heads' rows are CAR's own, so that what differs is the backbone, what is padded
    and how the loss is taken. GELU is exact and attention weights are not dropped, as in CAR.

    Args:
        padding: batches reach to the longest `history` the model reads, or to the batch's own `longest`.
        everywhere: logits at every position, padding too, and a cross-entropy that ignores what has no
            target, as language models' heads do; else at positions with a target only.
    """

    def __init__(self, car: CAR, padding: Padding, everywhere: bool) -> None:
        super().__init__()
        self.car, self.padding, self.everywhere = car, padding, everywhere
        self.config = car.config
        self.gpt2 = gpt2_of(car.transformer)
        del car.transformer  # its weights are GPT-2's now

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """CAR's loss: inputs and targets [B, T], 0 is padding."""
        if self.padding == "history":
            extra = (0, self.config.max_history - inputs.shape[1])
            inputs, targets = F.pad(inputs, extra), F.pad(targets, extra)
        states = self._states(inputs)  # [B, T, D]
        keep = torch.ones_like(targets, dtype=torch.bool) if self.everywhere else targets != NOTHING
        states, wanted = states[keep], targets[keep]
        act = F.cross_entropy(self.car.act_logits(states), wanted, ignore_index=NOTHING)
        codes = self.car.sids[wanted].masked_fill((wanted == NOTHING)[:, None], -100)  # [N, L]
        think = F.cross_entropy(self.car.think_logits(states).flatten(0, 1), codes.flatten())
        return {"loss": act + self.config.think_weight * think, "act": act.detach(), "think": think.detach()}

    def _states(self, uids: Tensor) -> Tensor:
        """State after each chunk: [B, T] -> [B, T, D]."""
        slots = self.config.slots
        embedded = self.car.embed(uids).flatten(1, 2)  # [B, T * slots, D]
        mask = (uids != 0).repeat_interleave(slots, dim=1)
        found = self.gpt2(inputs_embeds=embedded, attention_mask=mask, use_cache=False)
        return found.last_hidden_state[:, slots - 1 :: slots]


def gpt2_of(transformer: Transformer) -> GPT2Model:
    """Hugging Face's GPT-2 with the sizes and weights of ours."""
    sizes = transformer.config
    config = GPT2Config(
        vocab_size=1,  # it is given embeddings
        bos_token_id=None,
        eos_token_id=None,
        n_positions=transformer.max_positions,
        n_embd=sizes.d_model,
        n_layer=sizes.n_layers,
        n_head=sizes.n_heads,
        activation_function="gelu",
        resid_pdrop=sizes.dropout,
        embd_pdrop=sizes.dropout,
        attn_pdrop=0.0,
    )
    model = GPT2Model(config)
    model.load_state_dict(_renamed(transformer), strict=False)  # `wte` alone is left, and never read
    return model


def _renamed(transformer: Transformer) -> dict[str, Tensor]:
    """Our weights by GPT-2's names; its projections hold their matrices transposed."""
    names = {
        **{"norm_attention": "ln_1", "qkv": "attn.c_attn", "attention_out": "attn.c_proj"},
        **{"norm_mlp": "ln_2", "mlp_in": "mlp.c_fc", "mlp_out": "mlp.c_proj"},
    }
    found = {}
    for name, value in transformer.state_dict().items():
        where, _, last = name.rpartition(".")
        if where.startswith("blocks."):
            _, number, part = where.split(".")
            turned = value.T if value.dim() == 2 else value
            found[f"h.{number}.{names[part]}.{last}"] = turned.contiguous()
        else:
            found[{"position": "wpe", "norm": "ln_f"}[where] + f".{last}"] = value
    return found
