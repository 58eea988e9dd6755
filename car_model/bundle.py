"""The bundle: codebook, catalogue, weights and their versions, in the folder that is served and released."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from car_model.action_ranker.rerank import Reranker
from car_model.codebook.codebook import ARRAYS, Codebook
from car_model.codebook.codebook import HEADER as CODEBOOK_HEADER
from car_model.codebook.labels import FILE as LABELS
from car_model.codebook.labels import CodeLabels
from car_model.data.catalogue import Catalogue
from car_model.data.histories import Repeats
from car_model.metrics.answer_drift import FILE as ANSWER_PROFILE
from car_model.metrics.answer_drift import AnswerProfile
from car_model.models.car import CAR
from car_model.weights import CONFIG, WEIGHTS, load_car, load_ranker, save_model
from common.digests import file_digest, files_digest, tree_files
from common.errors import UserError
from common.files import read_json_object

HEADER = "bundle.json"
CODEBOOK = "codebook"
CATALOGUE = "catalogue.parquet"
MODEL = "model"
POPULAR = "popular.json"
RANKER = "ranker"  # optional
FILES = (  # of every bundle; a ranker and an answer profile are optional
    HEADER,
    f"{CODEBOOK}/{CODEBOOK_HEADER}",
    *(f"{CODEBOOK}/{name}.npy" for name in ARRAYS),
    f"{CODEBOOK}/{LABELS}",
    CATALOGUE,
    f"{MODEL}/{WEIGHTS}",
    f"{MODEL}/{CONFIG}",
    POPULAR,
)
POPULAR_ITEMS = 200
Scale = Annotated[float, Field(ge=0, le=100.0, allow_inf_nan=False)]  # beyond any use, far from overflow


class BundleError(UserError):
    """The parts of a bundle are missing or do not belong together; the message names them."""


class BundleHeader(BaseModel):
    """bundle.json: the version of every part, and the settings of the score."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    format: Literal[1] = 1
    """Version of the bundle's format."""
    codebook: str
    """Version of the codebook."""
    catalogue: str
    """Digest of the catalogue's content."""
    encoder: dict[str, Any]
    """Identity of the text encoder, as in codebook.json."""
    model: str
    """Digest of the files in model/."""
    labels: str
    """Digest of the code labels' file."""
    popular: str
    """Digest of popular.json."""
    data: str
    """Digest of the dataset trained on."""
    think_scale: Scale
    """Weight of a SID level's log-probability in the score."""
    similarity_scale: Scale = 0.0
    """Weight of text similarity in the score."""
    ranker: str | None = None
    """Digest of the files in ranker/; left out without a ranker by action."""
    action_weight: Scale | None = None
    """Weight of log P(liked) when ranked by action; left out without a ranker."""
    answer_profile: str | None = None
    """Digest of answer_profile.json; left out if it was not measured."""
    ann_candidates: int | None = Field(None, ge=1)
    """Items that the ANN index proposes; left out if all are scored."""
    repeats: Literal["first", "last"] | None = None
    """Which of a history's events with the same item counts, as in training; left out if all do."""
    near_duplicate_cosine: float | None = Field(None, gt=0, le=1)
    """Cosine of texts from which an item is skipped as nearly another one; left out if none is."""

    @classmethod
    def read(cls, path: Path) -> BundleHeader:
        """Read bundle.json. Raises BundleError, which names the first wrong field."""
        content = read_json_object(path, BundleError, "assemble the bundle again")
        if content.get("format") != 1:
            raise BundleError(f"{path} has format {content.get('format')!r}, this code reads 1.")
        wrong = [name for name, value in content.items() if value is None]
        try:
            header = cls.model_validate(content)
            if header.ranker and header.action_weight is None:
                wrong.append("action_weight")
        except ValidationError as error:
            wrong.append(str(error.errors()[0]["loc"][0]))
        if wrong:
            raise BundleError(f"{path} has no proper {wrong[0]!r}; assemble the bundle again.")
        return header


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """Everything a Recommender needs."""

    codebook: Codebook
    labels: CodeLabels
    catalogue: Catalogue
    model: CAR
    popular: list[int]  # UIDs, most popular first
    code_share: np.ndarray  # [levels, codebook_size] share of the training interactions on each code
    think_scale: float  # weight of a SID level's log-probability in the score, chosen on validation
    dataset_digest: str  # of the dataset trained on
    similarity_scale: float = 0.0  # weight of text similarity in the score, chosen on validation
    ranker: Reranker | None = None  # ranks by action if a request asks for it; None without actions
    answer_profile: AnswerProfile | None = None  # of answers to holdout histories, if it was measured
    ann_candidates: int = 0  # items that the ANN index proposes and that are scored exactly; 0 scores all
    repeats: Repeats = "all"  # which events with the same item the histories of training hold
    near_duplicate_cosine: float = 0.0  # from which items are skipped as near-duplicates; 0 skips none

    def save(self, folder: Path) -> BundleHeader:
        """Write the bundle, its header last; returns the header."""
        folder.mkdir(parents=True, exist_ok=True)
        self.codebook.save(folder / CODEBOOK)
        self.labels.save(folder / CODEBOOK)
        self.catalogue.save(folder / CATALOGUE)
        save_model(self.model, folder / MODEL)
        item_ids = [self.catalogue.item_ids[uid - 1] for uid in self.popular]
        priors = {"items": item_ids, "code_share": self.code_share.round(8).tolist()}
        (folder / POPULAR).write_text(json.dumps(priors) + "\n")
        if self.ranker:
            save_model(self.ranker.model, folder / RANKER)
        if self.answer_profile:
            self.answer_profile.save(folder / ANSWER_PROFILE)
        header = BundleHeader(
            codebook=self.codebook.version,
            catalogue=self.catalogue.digest,
            encoder=asdict(self.codebook.encoder),
            model=files_digest(tree_files(folder / MODEL)),
            labels=file_digest(folder / CODEBOOK / LABELS),
            popular=file_digest(folder / POPULAR),
            data=self.dataset_digest,
            think_scale=self.think_scale,
            similarity_scale=self.similarity_scale,
            ranker=files_digest(tree_files(folder / RANKER)) if self.ranker else None,
            action_weight=self.ranker.weight if self.ranker else None,
            answer_profile=file_digest(folder / ANSWER_PROFILE) if self.answer_profile else None,
            ann_candidates=self.ann_candidates or None,
            repeats=None if self.repeats == "all" else self.repeats,
            near_duplicate_cosine=self.near_duplicate_cosine or None,
        )
        content = json.dumps(header.model_dump(exclude_none=True), indent=2, sort_keys=True)
        (folder / HEADER).write_text(content + "\n")
        return header

    @classmethod
    def load(cls, folder: Path) -> Bundle:
        """Read a bundle and check that its parts belong together. Raises UserError, which names the part."""
        header, codebook, catalogue = check_bundle(folder)
        popular = read_json_object(folder / POPULAR, BundleError)
        ranker = None
        if header.action_weight is not None:
            ranker = Reranker(load_ranker(folder / RANKER, tables(catalogue)[0]), header.action_weight)
        return cls(
            codebook=codebook,
            labels=CodeLabels.load(folder / CODEBOOK),
            catalogue=catalogue,
            model=load_car(folder / MODEL, *tables(catalogue)),
            popular=[catalogue.uids[item] for item in popular["items"]],
            code_share=np.array(popular["code_share"]),
            think_scale=header.think_scale,
            dataset_digest=header.data,
            similarity_scale=header.similarity_scale,
            ranker=ranker,
            answer_profile=AnswerProfile.load(folder / ANSWER_PROFILE) if header.answer_profile else None,
            ann_candidates=header.ann_candidates or 0,
            repeats=header.repeats or "all",
            near_duplicate_cosine=header.near_duplicate_cosine or 0.0,
        )


def tables(catalogue: Catalogue) -> tuple[Tensor, Tensor | None]:
    """What a model reads of a catalogue: SIDs [N + 1, L], and text coordinates [N + 1, A] if any."""
    text = catalogue.text_table
    return torch.from_numpy(catalogue.sid_table), None if text is None else torch.from_numpy(text)


def popularity_priors(
    counts: np.ndarray, catalogue: Catalogue, codebook_size: int
) -> tuple[list[int], np.ndarray]:
    """Most popular UIDs, and each code's share [levels, codebook_size] of training interactions by UID."""
    order = np.argsort(-counts, kind="stable")
    popular = [int(uid) for uid in order if uid > 0 and counts[uid] > 0][:POPULAR_ITEMS]
    weights = counts[1:]
    sums = [np.bincount(codes, weights=weights, minlength=codebook_size) for codes in catalogue.sids.T]
    return popular, np.stack(sums) / max(float(weights.sum()), 1.0)


def check_bundle(folder: Path) -> tuple[BundleHeader, Codebook, Catalogue]:
    """Check that a bundle is complete and that its parts are those that bundle.json names.

    The weights of the models are only hashed, not loaded. Raises UserError, which names the part.
    """
    for path in FILES:
        if not (folder / path).is_file():
            raise BundleError(f"The bundle {folder} has no {path}; assemble it again with the train step.")
    header = BundleHeader.read(folder / HEADER)
    codebook = Codebook.load(folder / CODEBOOK)
    catalogue = Catalogue.load(folder / CATALOGUE)
    digests, ranker = tree_files(folder), tree_files(folder / RANKER)
    versions = {
        "codebook": codebook.version,
        "catalogue": catalogue.digest,
        "model": files_digest(tree_files(folder / MODEL)),
        "labels": digests[f"{CODEBOOK}/{LABELS}"],
        "popular": digests[POPULAR],
        "ranker": files_digest(ranker) if ranker else None,
        "answer_profile": digests.get(ANSWER_PROFILE),
    }
    for part, version in versions.items():
        stated = getattr(header, part)
        if stated != version:
            actual, expected = (ascii(digest[:12]) if digest else "none" for digest in (version, stated))
            raise BundleError(
                f"{part} in {folder} is {actual}, its bundle.json says {expected}; "
                "parts of different releases were mixed, or a file is damaged."
            )
    if header.encoder != asdict(codebook.encoder):
        raise BundleError(f"{folder / HEADER} names another encoder than the codebook next to it.")
    if (header.similarity_scale or header.near_duplicate_cosine) and catalogue.text is None:
        raise BundleError(
            f"{folder / HEADER} ranks by text similarity, but the catalogue has no coordinates of texts."
        )
    return header, codebook, catalogue
