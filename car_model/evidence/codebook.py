"""How good a codebook is on the catalogue that it encodes, and what changed against production's."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from car_model.evidence.base import Count, Digest, Evidence, EvidenceFile, Share


class Churn(Evidence):
    """What changed for the items that production and this catalogue both offer."""

    items: Count
    """Items that both offer."""
    by_level: tuple[Share, ...]
    """Share of them with another code, each level on its own (over the levels that both codebooks have)."""
    whole: Share | None
    """Share of them with another semantic ID; 1 if the number of levels changed, null without such items."""
    added: Count
    """Items that only this catalogue offers."""
    retired: Count
    """Items that only production offers."""


class CodebookChurn(Churn):
    """Churn against production's codebook."""

    unasked: Share | None
    """`whole` if the codebook was meant to stay (modes reuse, refresh); null if a new one was asked for."""


class Cooccurrence(Evidence):
    """Do items that follow one another in histories share the first codes? Lists over levels."""

    agreement: tuple[Share, ...]
    """Share of consecutive pairs of different items whose codes are equal up to the level."""
    lift: tuple[float, ...]
    """`agreement` over its value among random pairs; 1 if codes say nothing about behaviour."""


class CodebookHealth(EvidenceFile):
    """Written by tokenize; part `codebook` of the evaluation.

    SID stands for semantic ID: `n_levels` codes for each item.
    """

    step: ClassVar[str] = "tokenize"

    n_levels: int = Field(ge=1)
    """Codes in a semantic ID."""
    codebook_size: int = Field(ge=1)
    """Codes per level."""
    items: Count
    """Items with interactions, which the figures are about unless they say otherwise."""
    cold_items: Count
    """Items without interactions, encoded too."""
    texts_cut: Share = 0.0
    """Share of the items whose text is longer than the encoder's `max_tokens` and so cut off."""
    usage: tuple[Share, ...]
    """Share of the codes that an item carries, per level."""
    usage_min: Share
    """The smallest `usage`."""
    dead_codes: tuple[Count, ...]
    """Number of codes that no item carries, per level."""
    perplexity: tuple[float, ...]
    """Exponential of the code entropy, in codes, per level; `codebook_size` if use is even."""
    perplexity_min_share: Share
    """The smallest `perplexity` over `codebook_size`."""
    residual: tuple[float, ...]
    """Share of the text vectors' variance not explained after each level."""
    unexplained: float = Field(ge=0)
    """Quantisation error: the share of variance that whole SIDs leave unexplained."""
    unexplained_new: float | None = Field(ge=0)
    """`unexplained` of items that production did not have; null if there are none, and without production."""
    unexplained_cold: float | None = Field(ge=0)
    """`unexplained` of cold items; null if there are none."""
    collision_rate: Share
    """Share of items whose whole SID another item has too."""
    usage_counts: tuple[tuple[Count, ...], ...]
    """Items per code, most used first, for each level."""
    mode: Literal["fit", "reuse", "refresh"]
    """How the codebook was made."""
    parent: Digest | None
    """Version of production's codebook; null without production."""
    churn: CodebookChurn | None
    """Null without production."""
    cooccurrence: Cooccurrence
    """Whether codes follow behaviour."""
