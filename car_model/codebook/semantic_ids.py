"""Item texts to semantic IDs (SIDs): embed, fit or reuse a codebook, encode, label codes, measure health."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from car_model.codebook.codebook import Codebook, CodebookError
from car_model.codebook.labels import CodeLabels, item_categories, label_codes
from car_model.codebook.mode import CodebookMode
from car_model.codebook.residual_kmeans import CodebookConfig, fit, refresh
from car_model.compute import limit_threads
from car_model.data.catalogue import Catalogue
from car_model.data.dataset import Dataset, text_template
from car_model.encoding.encoder import (
    Encoder,
    EncoderSpec,
    check_texts,
    choose_precision,
    embed,
    load_encoder,
    share_cut,
)
from car_model.evidence.codebook import CodebookChurn, CodebookHealth
from car_model.metrics.codebook import churn, codebook_health, cooccurrence, unexplained


@dataclass(frozen=True)
class Parent:
    """What a release passes on to the next one in its lineage: codebook, labels and catalogue."""

    codebook: Codebook
    labels: CodeLabels
    catalogue: Catalogue

    @classmethod
    def load(cls, bundle: Path) -> Parent:
        """Read the parts from a bundle folder. Raises CodebookError and CatalogueError."""
        folder, catalogue = bundle / "codebook", Catalogue.load(bundle / "catalogue.parquet")
        return cls(Codebook.load(folder), CodeLabels.load(folder), catalogue)


@dataclass(frozen=True)
class Tokenized:
    """A codebook, its labels, the catalogue it encodes, and its health."""

    codebook: Codebook
    labels: CodeLabels
    catalogue: Catalogue
    health: CodebookHealth

    def save(self, codebook: Path, catalogue: Path) -> None:
        """Write the codebook folder and the catalogue file."""
        self.codebook.save(codebook)
        self.labels.save(codebook)
        self.catalogue.save(catalogue)


def tokenize(
    dataset: Dataset,
    encoder: EncoderSpec,
    config: CodebookConfig,
    cache: Path | None = None,
    *,
    mode: CodebookMode = "fit",
    parent: Parent | None = None,
) -> Tokenized:
    """Encode a dataset's items with a codebook that is fit for them or taken over from the parent release.

    Args:
        config: of a codebook to be fit; a parent's codebook keeps its own sizes.
        cache: folder of text vectors kept between runs.
        mode: `fit` a new codebook; `reuse` the parent's as it is; `refresh` it: fit anew from its centroids,
            codes aligned, so that their meanings stay. Without a parent all three fit.
        parent: the previous release of the lineage: its UIDs stay, and its items that are no longer offered
            are retired.

    Raises EncoderError and CodebookError as `encoder_for` and `fit` do.
    """
    limit_threads()
    loaded = encoder_for(dataset, encoder, parent if mode != "fit" else None)
    vectors = embed(loaded, dataset.texts(), cache)
    tokens = tokenize_vectors(dataset, vectors, loaded.spec, config, mode=mode, parent=parent)
    cut = round(share_cut(loaded, dataset.texts()), 6)
    return replace(tokens, health=tokens.health.model_copy(update={"texts_cut": cut}))


def encoder_for(dataset: Dataset, encoder: EncoderSpec, parent: Parent | None) -> Encoder:
    """Load the encoder of a dataset's texts, under its exact identity.

    Raises EncoderError if it can't be loaded, and CodebookError if it is not that of the parent's codebook,
    if one is taken over.
    """
    loaded = load_encoder(encoder)
    check_texts(loaded, dataset.texts())
    if parent is None:
        return choose_precision(loaded, list(compress(dataset.texts(), dataset.warm)))
    expected, actual = parent.codebook.encoder, loaded.spec
    for part, value, parent_value in (
        ("the encoder weights", actual.weights[:12], expected.weights[:12]),
        ("max_tokens", actual.max_tokens, expected.max_tokens),
        ("the normalisation", actual.normalisation, expected.normalisation),
        ("the text template", text_template(dataset.text_columns), parent.codebook.template),
    ):
        if value != parent_value:
            raise CodebookError(
                f"the parent's codebook was made with {part} {parent_value!r}, this run has {value!r}: "
                "its codes would mean nothing. Use the parent's, or fit a new codebook (mode fit)."
            )
    return replace(loaded, spec=expected)


def tokenize_vectors(
    dataset: Dataset,
    vectors: np.ndarray,
    encoder: EncoderSpec,
    config: CodebookConfig,
    *,
    mode: CodebookMode = "fit",
    parent: Parent | None = None,
) -> Tokenized:
    """The second half of `tokenize`, from the encoder's vectors [N, dim] of the texts, in row order.

    The codebook, its labels and its health are those of warm items. Cold ones are only encoded, so that
    however many there are changes nothing for the others.
    """
    warm = dataset.warm
    warm_vectors = vectors if warm.all() else vectors[warm]
    if parent is None or mode == "fit":
        codebook = fit(warm_vectors, encoder, text_template(dataset.text_columns), config)
    elif mode == "reuse":
        codebook = parent.codebook
    else:
        codebook = refresh(parent.codebook, warm_vectors, config.seed)
    item_ids, titles = (dataset.items[column].astype(str).tolist() for column in ("item_id", "title"))
    sids, errors = codebook.residuals(vectors)
    catalogue = Catalogue(item_ids, titles, sids, text=codebook.coordinates(vectors))
    columns = [dataset.items[column] for column in dataset.text_columns if column != "title"]
    categories = item_categories([column.fillna("").astype(str).tolist() for column in columns], warm)
    labels = label_codes(titles, sids, codebook.codebook_size, item_ids, categories=categories, warm=warm)
    spread = codebook.spread(vectors)
    lineage: dict[str, Any] = {
        "cold_items": int((~warm).sum()),
        "unexplained_cold": None if warm.all() else unexplained(errors[~warm], spread[~warm]),
    }
    if parent:
        new = np.array([item not in parent.catalogue.uids for item in item_ids], dtype=bool)
        catalogue = parent.catalogue.extend_lineage(catalogue, recode(parent, codebook))
        all_changes = churn(parent.catalogue, catalogue)
        unasked = None if mode == "fit" else all_changes.whole  # a new codebook is meant to change SIDs
        lineage |= {
            "mode": mode,
            "parent": parent.codebook.version,
            "churn": CodebookChurn(**all_changes.model_dump(), unasked=unasked),
            "unexplained_new": unexplained(errors[new], spread[new]) if new.any() else None,
        }
        if parent.codebook.version == codebook.version:
            labels = parent.labels.with_items_of(labels)
    pairs = cooccurrence(dataset.histories(catalogue.uids).train, catalogue.sid_table)
    health = codebook_health(sids[warm], errors[warm], spread[warm], codebook.codebook_size, pairs)
    return Tokenized(codebook, labels, catalogue, health.model_copy(update=lineage))


def recode(parent: Parent, codebook: Codebook) -> tuple[np.ndarray, np.ndarray]:
    """SIDs [N, levels] and text coordinates [N, A] of the parent's items under a new codebook.

    They follow from the old coordinates, or from the old SIDs if there are none. If the encoder is another
    one, nothing is known of the items, and each gets the SID of the mean vector.
    """
    old, items = parent.codebook, parent.catalogue
    if codebook.version == old.version and items.text is not None:
        return items.sids, items.text
    if codebook.encoder == old.encoder:
        vectors = old.decode(items.sids) if items.text is None else old.rebuild(items.text)
    else:
        vectors = np.repeat(codebook.mean[None], items.size, axis=0)
    sids = items.sids if codebook.version == old.version else codebook.encode(vectors)
    return sids, codebook.coordinates(vectors)
