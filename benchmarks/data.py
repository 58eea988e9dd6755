"""The real datasets as the benchmarks read them: ingested, tokenized, in either order of ties."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import pandas as pd

from benchmarks.models.quantisers import lsh_sids, rqvae_sids
from car_model.codebook.residual_kmeans import CodebookConfig, default_codebook_size, fit
from car_model.data.catalogue import Catalogue
from car_model.data.dataset import Dataset
from car_model.encoding.encoder import EncoderSpec, choose_precision, embed, load_encoder
from common.digests import json_digest
from ingestion.ingest import ingest
from ingestion.sources import resolve

CACHE = Path(".cache")
MOVIELENS = "movielens"
SHUFFLE_SEED = 0
Order = Literal["stored", "shuffled"]
ORDERS = ("stored", "shuffled")
Method = Literal["rkmeans", "rqvae", "lsh"]


def load_dataset(path: str, order: Order = "stored") -> Dataset:
    """Ingest `movielens`, or the folder of an Amazon 2014 set, as the pipeline does.

    Args:
        order: of interactions on the same day: as stored, or shuffled with a fixed seed before the split.
            The Amazon files store ties by product number, which a model can exploit.

    Raises:
        ValueError: MovieLens has no such ties.
    """
    if path == MOVIELENS and order == "shuffled":
        raise ValueError("movielens has no column that says what is tied; use the order as stored.")
    if order == "shuffled":
        path = str(shuffle_ties(Path(path), CACHE / "shuffled"))
    config = resolve(MOVIELENS if path == MOVIELENS else "amazon2014", path, CACHE / "sources")
    with TemporaryDirectory() as folder:
        ingest(config, Path(folder) / "dataset", CACHE / "sources")
        return Dataset.load(Path(folder) / "dataset")


def shuffle_ties(source: Path, target: Path, seed: int = SHUFFLE_SEED) -> Path:
    """A copy of an Amazon 2014 set whose same-day interactions are in random order; returns its folder.

    An interaction is tied to the one before it where `gap_seconds` is 0; `position` is numbered anew.
    """
    folder = target / source.resolve().name
    folder.mkdir(parents=True, exist_ok=True)
    frame = pd.read_csv(source / "interactions.tsv", sep="\t", dtype=str, keep_default_na=False, quoting=3)
    frame["position"] = frame["position"].astype(int)
    frame = frame.sort_values(["user_id", "position"], kind="stable", ignore_index=True)
    day = (frame["gap_seconds"] != "0").groupby(frame["user_id"]).cumsum()
    dice = np.random.default_rng(seed).random(len(frame))
    keyed = frame.assign(day=day, dice=dice).sort_values(["user_id", "day", "dice"], ignore_index=True)
    shuffled = keyed.drop(columns=["day", "dice"])
    shuffled["position"] = frame["position"]
    _write(folder / "interactions.tsv", shuffled.to_csv(sep="\t", index=False, quoting=3))
    _write(folder / "items.jsonl", (source / "items.jsonl").read_text(encoding="utf-8"))
    return folder


def _write(path: Path, text: str) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


@dataclass(frozen=True)
class Tokens:
    """Items with their SIDs by one method, and what made them."""

    catalogue: Catalogue
    codes: int
    digest: str


_MADE: dict[tuple, Tokens] = {}  # a process asks for the same SIDs once a seed


def text_vectors(dataset: Dataset) -> np.ndarray:
    """Vectors [N, dim] of the items' texts by the embedded encoder, cached."""
    encoder = choose_precision(load_encoder(EncoderSpec()), dataset.texts())
    return embed(encoder, dataset.texts(), CACHE / "vectors")


def tokens(dataset: Dataset, method: Method = "rkmeans", levels: int = 4, codes: int = 0) -> Tokens:
    """SIDs of a dataset's items; `codes` 0 follows the catalogue's size."""
    items, codes = dataset.items, codes or default_codebook_size(len(dataset.items))
    key = (dataset.digest, method, levels, codes)
    if key not in _MADE:
        vectors = text_vectors(dataset)
        codebook = fit(vectors, EncoderSpec(), "", CodebookConfig(n_levels=levels, codebook_size=codes))
        other: dict[str, Any] = {"lsh": lsh_sids, "rqvae": rqvae_sids}
        sids = other[method](vectors, levels, codes) if method in other else codebook.encode(vectors)
        ids, titles = (items[column].astype(str).tolist() for column in ("item_id", "title"))
        catalogue = Catalogue(ids, titles, sids, text=codebook.coordinates(vectors))
        _MADE[key] = Tokens(catalogue, codes, json_digest(sids.tolist()))
    return _MADE[key]
