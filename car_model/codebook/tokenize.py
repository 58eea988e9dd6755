"""Item texts to semantic IDs: embed, fit or take over a codebook, encode, label codes, measure health."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from car_model.codebook.codebook import Codebook, CodebookError
from car_model.codebook.label_codes import label_codes
from car_model.codebook.labels import CodeLabels
from car_model.codebook.mode import Mode
from car_model.codebook.residual_kmeans import CodebookConfig, fit, refresh
from car_model.compute import limit_threads
from car_model.data.catalogue import Catalogue
from car_model.data.dataset import Dataset, template
from car_model.encoding.encoder import Encoder, EncoderSpec, embed, load, settle_precision
from car_model.evidence.codebook import CodebookChurn, CodebookHealth
from car_model.metrics.codebook import churn, codebook_health, cooccurrence, unexplained


@dataclass(frozen=True)
class Parent:
    """What a release hands on to the next one: codebook, labels and catalogue."""

    codebook: Codebook
    labels: CodeLabels
    catalogue: Catalogue

    @classmethod
    def load(cls, bundle: Path) -> Parent:
        """Read the parts from a bundle folder; raises as they do."""
        folder = bundle / "codebook"
        return cls(
            Codebook.load(folder), CodeLabels.load(folder), Catalogue.load(bundle / "catalogue.parquet")
        )


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
    mode: Mode = "fit",
    parent: Parent | None = None,
) -> Tokenized:
    """Encode a dataset's items by a codebook, which is fit for them or taken over from the parent release.

    Args:
        config: of a codebook to be fit; a parent's keeps its own sizes.
        cache: folder of text vectors kept between runs.
        mode: `fit` a new codebook; `reuse` the parent's as it is; `refresh` it: fit anew from its centroids,
            codes aligned, so that meanings stay. Without a parent all three fit.
        parent: the release whose lineage this continues: its UIDs stay, what is not offered any more is
            retired.

    Raises:
        EncoderError, CodebookError: the encoder can't be had or is not the parent's, or the catalogue is too
            small for the codes.
    """
    limit_threads()
    loaded = encoder_for(dataset, encoder, parent if mode != "fit" else None)
    vectors = embed(loaded, dataset.texts(), cache)
    return encode(dataset, vectors, loaded.spec, config, mode=mode, parent=parent)


def encoder_for(dataset: Dataset, encoder: EncoderSpec, taken: Parent | None) -> Encoder:
    """The encoder of a dataset's texts: under the exact identity that a codebook taken over was made with.

    Raises:
        EncoderError, CodebookError: it can't be had, or is not the one of the codebook.
    """
    if taken is None:
        return settle_precision(load(encoder), dataset.texts())
    return _same_encoder(load(encoder), template(dataset.text_columns), taken)


def encode(
    dataset: Dataset,
    vectors: np.ndarray,
    encoder: EncoderSpec,
    config: CodebookConfig,
    *,
    mode: Mode = "fit",
    parent: Parent | None = None,
) -> Tokenized:
    """The same from the vectors [N, dim] that the encoder made of the texts, in row order."""
    texts, taken = dataset.texts(), parent if mode != "fit" else None
    if taken is None:
        codebook = fit(vectors, encoder, template(dataset.text_columns), config)
    else:
        codebook = taken.codebook if mode == "reuse" else refresh(taken.codebook, vectors, config.seed)
    ids, titles = (dataset.items[column].astype(str).tolist() for column in ("item_id", "title"))
    sids, residual = codebook.residuals(vectors)
    catalogue = Catalogue(ids, titles, sids, text=codebook.coordinates(vectors))
    spread = codebook.spread(vectors)
    changes, unexplained_new = None, None
    if parent:
        new = np.array([item not in parent.catalogue.uids for item in ids], dtype=bool)
        unexplained_new = unexplained(residual[new], spread[new])
        catalogue = parent.catalogue.extend_lineage(catalogue, _handed_on(parent, codebook))
        all_changes = churn(parent.catalogue, catalogue)
        unasked = 0.0 if mode == "fit" else all_changes.whole  # a new codebook is meant to change SIDs
        changes = CodebookChurn(**all_changes.model_dump(), unasked=unasked)
    health = codebook_health(
        sids,
        residual,
        spread,
        codebook.codes,
        cooccurrence(dataset.histories(catalogue.uids).train, catalogue.sid_table),
        mode=mode if parent else "fit",
        parent=parent.codebook.version if parent else None,
        churn=changes,
        unexplained_new=unexplained_new,
    )
    same = parent is not None and parent.codebook.version == codebook.version
    found = label_codes(texts, sids, codebook.codes, ids)
    labels = parent.labels.extended(found) if parent and same else found
    return Tokenized(codebook, labels, catalogue, health)


def _same_encoder(loaded: Encoder, words: str, parent: Parent) -> Encoder:
    """The encoder under the parent's exact identity, if that is what was asked for."""
    theirs, asked = parent.codebook.encoder, loaded.spec
    for what, mine, other in (
        ("the encoder weights", asked.weights[:12], theirs.weights[:12]),
        ("max_tokens", asked.max_tokens, theirs.max_tokens),
        ("the normalisation", asked.normalisation, theirs.normalisation),
        ("the text template", words, parent.codebook.template),
    ):
        if mine != other:
            raise CodebookError(
                f"the parent's codebook was made with {what} {other!r}, this run has {mine!r}: "
                "its codes would mean nothing. Use the parent's, or fit a new codebook (mode fit)."
            )
    return replace(loaded, spec=theirs)


def _handed_on(parent: Parent, codebook: Codebook) -> tuple[np.ndarray, np.ndarray]:
    """SIDs [N, levels] and texts [N, A] of the parent's items under a new codebook, as far as it knows them.

    Of an encoder that is another one nothing is known: those items get what an average one has.
    """
    old, known = parent.codebook, parent.catalogue
    if codebook.version == old.version and known.text is not None:
        return known.sids, known.text
    if codebook.encoder == old.encoder:
        vectors = old.decode(known.sids) if known.text is None else old.rebuild(known.text)
    else:
        vectors = np.repeat(codebook.mean[None], known.size, axis=0)
    sids = known.sids if codebook.version == old.version else codebook.encode(vectors)
    return sids, codebook.coordinates(vectors)
