"""Item texts to semantic IDs: embed, fit a codebook, encode the catalogue, label codes, measure health."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from car_model.catalogue import Catalogue
from car_model.codebook import Codebook
from car_model.dataset import Dataset
from car_model.encoder import EncoderSpec, embed, load, settle_precision
from car_model.health import codebook_health
from car_model.labelling import label_codes
from car_model.labels import CodeLabels
from car_model.quantise import CodebookConfig, fit
from car_model.text import template
from car_model.threads import limit_threads


@dataclass(frozen=True)
class Tokenized:
    """A codebook, its labels, the catalogue it encodes, and its health."""

    codebook: Codebook
    labels: CodeLabels
    catalogue: Catalogue
    health: dict[str, Any]

    def save(self, codebook: Path, catalogue: Path) -> None:
        """Write the codebook folder and the catalogue file."""
        self.codebook.save(codebook)
        self.labels.save(codebook)
        self.catalogue.save(catalogue)


def tokenize(
    dataset: Dataset, encoder: EncoderSpec, config: CodebookConfig, cache: Path | None = None
) -> Tokenized:
    """Fit a codebook on a dataset's items and encode them.

    Args:
        cache: folder of text vectors kept between runs.

    Raises:
        EncoderError, CodebookError: the encoder can't be had, or the catalogue is too small for the codes.
    """
    limit_threads()
    texts = dataset.texts()
    loaded = settle_precision(load(encoder), texts)
    vectors = embed(loaded, texts, cache)
    codebook = fit(vectors, loaded.spec, template(dataset.text_columns), config)
    sids, residual = codebook.residuals(vectors)
    items = dataset.items
    catalogue = Catalogue(items["item_id"].astype(str).tolist(), items["title"].astype(str).tolist(), sids)
    health = codebook_health(sids, residual, codebook.spread(vectors), codebook.codes)
    return Tokenized(codebook, label_codes(texts, sids, codebook.codes), catalogue, health)
