"""The real datasets as the benchmarks read them: ingested, tokenized, in either order of ties."""

from __future__ import annotations

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
from common.files import write_atomic
from ingestion.ingest import ingest
from ingestion.sources import resolve

CACHE = Path(".cache")
MOVIELENS = "movielens"
SHUFFLE_SEED = 0
Order = Literal["stored", "shuffled"]
ORDERS = ("stored", "shuffled")
Method = Literal["rkmeans", "rqvae", "lsh"]


def load_dataset(path: str, order: Order = "stored") -> Dataset:
    """Ingest `movielens`, or the folder of an Amazon 2014 data set, as the pipeline does.

    Args:
        path: `movielens` or the folder.
        order: order of interactions on the same day: as stored, or shuffled with a fixed seed before the
            split. The Amazon files store ties by product number, which a model can exploit.

    Raises:
        ValueError: MovieLens does not say what is tied.
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

    An interaction is tied to the previous one if `gap_seconds` is 0; `position` is numbered anew.
    """
    folder = target / source.resolve().name
    folder.mkdir(parents=True, exist_ok=True)
    frame = pd.read_csv(source / "interactions.tsv", sep="\t", dtype=str, keep_default_na=False, quoting=3)
    frame["position"] = frame["position"].astype(int)
    frame = frame.sort_values(["user_id", "position"], kind="stable", ignore_index=True)
    day = (frame["gap_seconds"] != "0").groupby(frame["user_id"]).cumsum()
    key = np.random.default_rng(seed).random(len(frame))
    keyed = frame.assign(day=day, key=key).sort_values(["user_id", "day", "key"], ignore_index=True)
    shuffled = keyed.drop(columns=["day", "key"])
    shuffled["position"] = frame["position"]
    write_atomic(folder / "interactions.tsv", shuffled.to_csv(sep="\t", index=False, quoting=3))
    write_atomic(folder / "items.jsonl", (source / "items.jsonl").read_text(encoding="utf-8"))
    return folder


@dataclass(frozen=True)
class Tokens:
    """Items with their SIDs."""

    catalogue: Catalogue
    codebook_size: int
    digest: str  # of the SIDs


_TOKENS: dict[tuple, Tokens] = {}  # a process needs the same SIDs once per seed


def text_vectors(dataset: Dataset) -> np.ndarray:
    """Vectors [N, dim] of the items' texts by the embedded encoder, cached."""
    encoder = choose_precision(load_encoder(EncoderSpec()), dataset.texts())
    return embed(encoder, dataset.texts(), CACHE / "vectors")


def tokens(dataset: Dataset, method: Method = "rkmeans", n_levels: int = 4, codebook_size: int = 0) -> Tokens:
    """SIDs of a data set's items; `codebook_size` 0 follows the catalogue's size."""
    items, codebook_size = dataset.items, codebook_size or default_codebook_size(len(dataset.items))
    key = (dataset.digest, method, n_levels, codebook_size)
    if key not in _TOKENS:
        vectors = text_vectors(dataset)
        codebook = fit(
            vectors, EncoderSpec(), "", CodebookConfig(n_levels=n_levels, codebook_size=codebook_size)
        )
        quantisers: dict[str, Any] = {"lsh": lsh_sids, "rqvae": rqvae_sids}
        if method in quantisers:
            sids = quantisers[method](vectors, n_levels, codebook_size)
        else:
            sids = codebook.encode(vectors)
        ids, titles = (items[column].astype(str).tolist() for column in ("item_id", "title"))
        catalogue = Catalogue(ids, titles, sids, text=codebook.coordinates(vectors))
        _TOKENS[key] = Tokens(catalogue, codebook_size, json_digest(sids.tolist()))
    return _TOKENS[key]
