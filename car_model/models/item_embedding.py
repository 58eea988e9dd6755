"""Sum of every item's code rows, forward and backward without touching a row twice.

The gradient of an embedding's gather is a scatter; over a fixed table it is a gather as well, of the items
that carry each code. Both directions are then one `embedding_bag`: several times faster on a CPU than
indexing the table, and in a fixed order, so that two runs agree to the bit.

Shape letters: I items, L levels, C rows of the code table, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _CodeSums(torch.autograd.Function):
    """Bag of codes for every item; its transpose is the bag of items for every code."""

    @staticmethod
    def forward(ctx: Any, code: Tensor, slots: Tensor, items: Tensor, begins: Tensor) -> Tensor:
        ctx.save_for_backward(items, begins)
        return F.embedding_bag(slots, code, mode="sum")

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        items, begins = ctx.saved_tensors
        return F.embedding_bag(items, grads[0].contiguous(), begins, mode="sum"), None, None, None


class CodeSums(nn.Module):
    """Sums code rows by a table of slots, and remembers who carries which code while the table stays."""

    def __init__(self) -> None:
        super().__init__()
        self._slots = torch.zeros(0)
        self._carriers = (self._slots, self._slots)

    def forward(self, code: Tensor, slots: Tensor) -> Tensor:
        """The sum of the code rows of every item: code [C, D], slots [I, L] rows -> [I, D]."""
        if self._slots.device != slots.device or not torch.equal(self._slots, slots):
            with torch.inference_mode(False):  # a training step may be the next to read them
                self._slots, flat = slots.clone(), slots.flatten()
                items = flat.argsort(stable=True) // slots.shape[1]  # [I * L] grouped by their code row
                ends = flat.bincount(minlength=len(code)).cumsum(0)
                self._carriers = items, F.pad(ends, (1, 0))[:-1]  # [C] where each row's group begins
        return _CodeSums.apply(code, slots, *self._carriers)


START = 0.04  # spread of a text's part before training: twice that of a UID row


class TextReader(nn.Module):
    """Coordinates of items' texts, read through one linear map.

    `text` are coordinates by UID [I + 1, at least `axes`], main axes first; row 0 is padding. Raises
    ValueError if there are none, or too few.
    """

    text: Tensor
    scale: Tensor

    def __init__(self, text: Tensor | None, items: int, axes: int, width: int) -> None:
        super().__init__()
        shape = (0, 0) if text is None else tuple(text.shape)
        if text is None or shape[0] != items + 1 or shape[1] < axes:
            raise ValueError(
                f"the model reads {axes} coordinates of the texts of {items} items, the catalogue holds "
                f"{shape[1]} of {max(shape[0] - 1, 0)}: tokenize with a codebook that keeps as many axes, "
                "or set text_dim to 0."
            )
        text = text[:, :axes].float()
        self.register_buffer("text", text, persistent=False)  # the catalogue's, as the SIDs are
        spread = text[1:].square().mean().sqrt()
        self.register_buffer("scale", torch.where(spread > 0, 1 / spread, torch.ones(())))
        self.map = nn.Linear(axes, width, bias=False)
        nn.init.normal_(self.map.weight, std=START / axes**0.5)

    def forward(self, uids: Tensor | slice = slice(None)) -> Tensor:
        """What the texts of uids [...] add, of all UIDs by default: [..., D]; nothing for padding."""
        return self.map(self.text[uids] * self.scale)
