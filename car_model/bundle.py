"""The bundle: codebook, catalogue, weights and their versions; one folder, scored, served and released."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from car_model.action_ranker.rerank import Reranker
from car_model.codebook.codebook import ARRAYS, Codebook
from car_model.codebook.codebook import HEADER as CODEBOOK_HEADER
from car_model.codebook.labels import FILE as LABELS
from car_model.codebook.labels import CodeLabels
from car_model.data.catalogue import Catalogue
from car_model.metrics.answer_drift import FILE as PROFILE
from car_model.metrics.answer_drift import AnswerProfile
from car_model.models.car import CAR
from car_model.weights import CONFIG, WEIGHTS, load_car, load_ranker, save_model
from common.digests import file_digest, files_digest, tree_files
from common.errors import UserError

FORMAT = 1
HEADER = "bundle.json"
CODEBOOK = "codebook"
CATALOGUE = "catalogue.parquet"
MODEL = "model"
POPULAR = "popular.json"
RANKER = "ranker"  # where there is one
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
MAX_SCALE = 100.0  # of a weight in the score: beyond any sense, far from overflow


class BundleError(UserError):
    """The parts of a bundle are missing or do not belong together; the message names them."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """Everything a Recommender needs.

    Attributes:
        popular: UIDs, most popular first.
        code_share: [levels, codebook_size] share of the training interactions on each code.
        think_scale: weight of a SID level's log-probability in the score, chosen on validation.
        dataset_digest: of the dataset trained on.
        similarity_scale: weight of text similarity in the score, chosen on validation.
        ranker: ranks by action if a request asks for it; None if the data has no actions.
        answer_profile: what it answers to holdout histories; None if that was not measured.
        ann_candidates: how many items the ANN index proposes, which are then scored exactly; 0 scores all.
    """

    codebook: Codebook
    labels: CodeLabels
    catalogue: Catalogue
    model: CAR
    popular: list[int]
    code_share: np.ndarray
    think_scale: float
    dataset_digest: str
    similarity_scale: float = 0.0
    ranker: Reranker | None = None
    answer_profile: AnswerProfile | None = None
    ann_candidates: int = 0

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the bundle, its header last; returns the header."""
        folder.mkdir(parents=True, exist_ok=True)
        self.codebook.save(folder / CODEBOOK)
        self.labels.save(folder / CODEBOOK)
        self.catalogue.save(folder / CATALOGUE)
        save_model(self.model, folder / MODEL)
        ids = [self.catalogue.item_ids[uid - 1] for uid in self.popular]
        priors = {"items": ids, "code_share": self.code_share.round(8).tolist()}
        (folder / POPULAR).write_text(json.dumps(priors) + "\n")
        header = {
            "format": FORMAT,
            "codebook": self.codebook.version,
            "catalogue": self.catalogue.digest,
            "encoder": asdict(self.codebook.encoder),
            "model": files_digest(tree_files(folder / MODEL)),
            "labels": file_digest(folder / CODEBOOK / LABELS),
            "popular": file_digest(folder / POPULAR),
            "data": self.dataset_digest,
            "think_scale": self.think_scale,
            "similarity_scale": self.similarity_scale,
        }
        if self.ranker:  # without one, files and header say nothing of it
            save_model(self.ranker.model, folder / RANKER)
            header["ranker"] = files_digest(tree_files(folder / RANKER))
            header["action_weight"] = self.ranker.weight
        if self.ann_candidates:
            header["ann_candidates"] = self.ann_candidates
        if self.answer_profile:
            self.answer_profile.save(folder / PROFILE)
            header["answer_profile"] = file_digest(folder / PROFILE)
        (folder / HEADER).write_text(json.dumps(header, indent=2, sort_keys=True) + "\n")
        return header

    @classmethod
    def load(cls, folder: Path) -> Bundle:
        """Read a bundle and check that its parts belong together.

        Raises:
            BundleError, CodebookError, CatalogueError, CheckpointError, AnswerProfileError: naming the part.
        """
        header, codebook, catalogue = check_bundle(folder)
        if header.get("similarity_scale") and catalogue.text is None:
            raise BundleError(
                f"{folder / HEADER} ranks by text similarity, but the catalogue has no coordinates of them."
            )
        popular = _read(folder / POPULAR)
        return cls(
            codebook=codebook,
            labels=CodeLabels.load(folder / CODEBOOK),
            catalogue=catalogue,
            model=load_car(folder / MODEL, *tables(catalogue)),
            popular=[catalogue.uids[item] for item in popular["items"]],
            code_share=np.array(popular["code_share"]),
            think_scale=float(header["think_scale"]),
            dataset_digest=header["data"],
            similarity_scale=float(header.get("similarity_scale", 0.0)),
            ranker=_ranker(folder, header, catalogue),
            answer_profile=AnswerProfile.load(folder / PROFILE) if "answer_profile" in header else None,
            ann_candidates=header.get("ann_candidates", 0),
        )


def tables(catalogue: Catalogue) -> tuple[Tensor, Tensor | None]:
    """What a model reads of a catalogue: SIDs [N + 1, L], and coordinates of texts [N + 1, A] if any."""
    text = catalogue.text_table
    return torch.from_numpy(catalogue.sid_table), None if text is None else torch.from_numpy(text)


def _ranker(folder: Path, header: dict[str, Any], catalogue: Catalogue) -> Reranker | None:
    if "ranker" not in header:
        return None
    model = load_ranker(folder / RANKER, tables(catalogue)[0])
    return Reranker(model, float(header["action_weight"]))


def popularity_priors(
    counts: np.ndarray, catalogue: Catalogue, codebook_size: int
) -> tuple[list[int], np.ndarray]:
    """Most popular UIDs, and each code's share of the training interactions [levels, codebook_size].

    Args:
        counts: training interactions by UID, [N + 1].
    """
    order = np.lexsort((np.arange(len(counts)), -counts))
    popular = [int(uid) for uid in order if uid > 0 and counts[uid] > 0][:POPULAR_ITEMS]
    weights = counts[1:]
    share = np.stack(
        [np.bincount(level, weights=weights, minlength=codebook_size) for level in catalogue.sids.T]
    )
    return popular, share / max(float(weights.sum()), 1.0)


def check_bundle(folder: Path) -> tuple[dict[str, Any], Codebook, Catalogue]:
    """Check that a bundle is complete and that its parts are those that bundle.json names.

    The weights of the models are only hashed, not loaded.

    Returns:
        The content of bundle.json, and the two parts that had to be loaded.

    Raises:
        BundleError, CodebookError, CatalogueError: naming the part.
    """
    for path in FILES:
        if not (folder / path).is_file():
            raise BundleError(f"The bundle {folder} has no {path}; assemble it again with the train step.")
    header = _header(folder / HEADER)
    codebook = Codebook.load(folder / CODEBOOK)
    catalogue = Catalogue.load(folder / CATALOGUE)
    versions = {
        "codebook": codebook.version,
        "catalogue": catalogue.digest,
        "model": files_digest(tree_files(folder / MODEL)),
        "labels": _digest(folder / CODEBOOK / LABELS),
        "popular": _digest(folder / POPULAR),
    }
    if "ranker" in header or (folder / RANKER).exists():
        versions["ranker"] = files_digest(tree_files(folder / RANKER))
    if "answer_profile" in header or (folder / PROFILE).exists():
        versions["answer_profile"] = _digest(folder / PROFILE)
    for part, version in versions.items():
        if (stated := header.get(part, "")) != version:
            raise BundleError(
                f"{part} in {folder} is {version[:12]}, its bundle.json says {stated[:12]!a}; "
                "parts of different releases were mixed, or a file is damaged."
            )
    if header.get("encoder") != asdict(codebook.encoder):
        raise BundleError(f"{folder / HEADER} names another encoder than the codebook beside it.")
    return header, codebook, catalogue


def _header(path: Path) -> dict[str, Any]:
    """bundle.json, every field there and of its kind."""
    header = _read(path)
    if header.get("format") != FORMAT:
        raise BundleError(f"{path} has format {header.get('format')!r}, this code reads {FORMAT}.")
    texts = ("codebook", "catalogue", "model", "labels", "popular", "data")
    wrong = [name for name in texts if not isinstance(header.get(name), str)]
    scales = {
        "think_scale": header.get("think_scale"),
        "similarity_scale": header.get("similarity_scale", 0.0),
    }
    if "ranker" in header:
        wrong += [] if isinstance(header["ranker"], str) else ["ranker"]
        scales["action_weight"] = header.get("action_weight")
    wrong += [] if isinstance(header.get("answer_profile", ""), str) else ["answer_profile"]
    candidates = header.get("ann_candidates", 0)
    wrong += [] if isinstance(candidates, int) and candidates >= 0 else ["ann_candidates"]
    for name, scale in scales.items():
        if not isinstance(scale, int | float) or not 0 <= scale <= MAX_SCALE:
            wrong.append(name)
    if wrong:
        raise BundleError(f"{path} has no proper {wrong[0]!r}; assemble the bundle again.")
    return header


def _digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} can't be read: {error}") from error
    if not isinstance(found, dict):
        raise BundleError(f"{path} is no JSON object; assemble the bundle again.")
    return found
