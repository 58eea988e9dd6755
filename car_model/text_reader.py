"""What an item's own text adds to its vector, beyond its codes: a linear map of fixed coordinates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

START = 0.04  # spread of a text's part before training: twice that of a UID row


class TextReader(nn.Module):
    """Coordinates of items' texts, read through one linear map.

    Args:
        text: [I + 1, at least `axes`] coordinates by UID, main axes first; row 0 is padding.
        items, axes, width: I, the coordinates read, and D.

    Raises:
        ValueError: there are no coordinates, or too few.
    """

    text: Tensor
    scale: Tensor

    def __init__(self, text: Tensor | None, items: int, axes: int, width: int) -> None:
        super().__init__()
        found = (0, 0) if text is None else tuple(text.shape)
        if text is None or found[0] != items + 1 or found[1] < axes:
            raise ValueError(
                f"the model reads {axes} coordinates of the texts of {items} items, the catalogue holds "
                f"{found[1]} of {max(found[0] - 1, 0)}: tokenize with a codebook that keeps as many axes, "
                "or set text to 0."
            )
        text = text[:, :axes].float()
        self.register_buffer("text", text, persistent=False)  # the catalogue's, as the SIDs are
        spread = text[1:].square().mean().sqrt()
        self.register_buffer("scale", torch.where(spread > 0, 1 / spread, torch.ones(())))
        self.map = nn.Linear(axes, width, bias=False)
        nn.init.normal_(self.map.weight, std=START / axes**0.5)

    def forward(self, uids: Tensor) -> Tensor:
        """What the texts of uids [...] add: [..., D]; nothing for padding."""
        return self.map(self.text[uids] * self.scale)

    def every(self) -> Tensor:
        """The same for every UID: [I + 1, D]."""
        return self.map(self.text * self.scale)
