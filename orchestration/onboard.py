"""Items without retraining: a release that also offers new items, whose parent is the one it was made from.

The new items are encoded with the release's codebook and scored through their SIDs; nothing else changes.
What must hold of that is checked here and stored as the new release's verdict. This module imports the model
library: the command line loads it only for this.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from car_model.bundle import Bundle
from car_model.data.dataset import columns_of, compose
from car_model.data.histories import pad
from car_model.encoding.encoder import embed, load
from car_model.metrics.codebook import collision_rate
from car_model.recommender.recommender import Recommender
from car_model.training.onboard import onboard
from registry.errors import ReleaseError
from registry.releases.fetch import fetch_evidence, fetch_release
from registry.releases.manifest import Manifest
from registry.releases.release import write_release
from registry.store.base import ObjectStore

SEPARATORS = {".csv": ",", ".tsv": "\t"}


def read_items(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Items as text columns, one row an item. Raises ReleaseError."""
    table = _read(path)
    for column in ("item_id", "title", *columns):
        if column not in table.columns:
            raise ReleaseError(f"{path} has no column {column!r}; there are: {', '.join(table.columns)}.")
    table = table.fillna("").astype(str)
    for column in ("item_id", "title"):
        empty = table.index[table[column].str.strip() == ""]
        if len(empty):
            raise ReleaseError(f"{path} has no {column} in row {empty[0] + 1}.")
    twice = table["item_id"][table["item_id"].duplicated()]
    if len(twice):
        raise ReleaseError(f"{path} holds item {twice.iloc[0]!r} twice.")
    return table


def _read(path: Path) -> pd.DataFrame:
    try:
        if path.suffix in SEPARATORS:
            return pd.read_csv(path, sep=SEPARATORS[path.suffix], dtype=str, keep_default_na=False)
        if path.suffix == ".jsonl":
            return pd.read_json(path, lines=True, dtype=False)
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ReleaseError(f"{path} cannot be read: {error}.") from error
    raise ReleaseError(f"{path} is neither .csv, .tsv, .jsonl nor .parquet.")


MAX_NEW_SHARE = 0.5  # of a catalogue: beyond it, train
MAX_COLLISIONS = 0.5  # as the gate's policy has it; a parent that was let through with more may keep it
ROUNDING = 1e-4  # of a logit: answers are rounded to that
MAX_ERROR = 1.0  # of the new items' vectors, in units of their spread: beyond it, their SIDs say nothing
MAX_GOLDEN = 64  # requests, however many onboardings follow each other

Requests = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Onboarded:
    """A new release and what was added to it."""

    manifest: Manifest
    added: int
    known: int  # items of the file that the catalogue had already


def onboard_items(store: ObjectStore, release: str, items: Path, cache: Path | None = None) -> Onboarded:
    """Write a release that offers a file's items too; no channel moves.

    Args:
        release: full digest of the parent.
        items: a file of items (see `read_items`) with the columns that the codebook's texts are made of.
        cache: folder of text vectors kept between runs.

    Raises:
        ReleaseError: the file lacks a column, an id or a title, holds nothing new, or the result must not be
            released; the sentence says which.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        parent = fetch_release(store, release, folder / "parent")
        bundle = Bundle.load(folder / "parent")
        columns = columns_of(bundle.codebook.template)
        table = read_items(items, columns)
        new = table[~table["item_id"].isin(list(bundle.catalogue.uids))]
        if new.empty:
            raise ReleaseError(f"{items} holds nothing new: release {release[:12]} knows all its items.")
        grown, error = _grow(bundle, new, columns, cache)
        old = fetch_evidence(store, parent, "golden.json", folder / "old.json")
        requests = json.loads(old.read_text())["requests"]
        conditions = judge(parent, bundle, grown, requests, error)
        # A server that still has the parent's catalogue would know none of the history of the last request.
        asked = [*requests[: MAX_GOLDEN - 1], {"history": new["item_id"].tolist()[-3:], "k": 10}]
        evidence = _evidence(conditions, parent, grown, asked, folder)
        grown.save(folder / "bundle")
        made = write_release(store, folder / "bundle", evidence, parent=release, metrics=dict(parent.metrics))
    return Onboarded(made, len(new), len(table) - len(new))


def _grow(
    bundle: Bundle, new: pd.DataFrame, columns: Sequence[str], cache: Path | None
) -> tuple[Bundle, float]:
    """The bundle with the new items, and the share of their spread that their SIDs leave unexplained."""
    vectors = embed(load(bundle.codebook.encoder), compose(new, columns), cache)
    left = bundle.codebook.residuals(vectors)[1][:, -1]
    grown = onboard(bundle, new["item_id"].tolist(), new["title"].tolist(), vectors)
    return grown, float(left.sum() / bundle.codebook.spread(vectors).sum())


def _evidence(
    conditions: list[dict[str, Any]], parent: Manifest, grown: Bundle, requests: Requests, folder: Path
) -> dict[str, Path]:
    """Verdict and golden answers as files. Raises ReleaseError where a condition fails."""
    failed = [f"{one['name']}: {one['detail']}" for one in conditions if one["verdict"] == "fail"]
    if failed:
        raise ReleaseError(f"The items are not onboarded. {' '.join(failed)}")
    lineage = {"bootstrap": False, "policy": "onboarding", "champion": parent.release}
    recommender = Recommender(grown)
    answers = [recommender.answer(request) for request in requests]
    files: dict[str, Any] = {
        "verdict.json": {"blessed": True, **lineage, "conditions": conditions},
        "golden.json": {"requests": requests, "answers": answers},
    }
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value, indent=1))
    return {name: folder / name for name in files}


def judge(
    parent: Manifest, bundle: Bundle, grown: Bundle, requests: Requests, error: float
) -> list[dict[str, Any]]:
    """What must hold of an onboarding, in the gate's terms: each with value, bound, verdict and reason."""
    before, after = (collision_rate(one.catalogue.sids) for one in (bundle, grown))
    new = 1 - bundle.catalogue.size / grown.catalogue.size
    drift = _drift(bundle, grown, requests)
    blessed = 0.0 if parent.gate.blessed else 1.0
    return [
        _condition("parent is blessed", blessed, 0, "What the gate refused does not come in by a side door."),
        _condition(
            "known items score as before", drift, ROUNDING, "New items must not change what is known."
        ),
        _condition("most items are known", new, MAX_NEW_SHARE, "A model that knows the minority: train."),
        _condition(
            "semantic IDs tell items apart",
            after,
            max(MAX_COLLISIONS, before),
            "Where most items share a whole semantic ID, new ones can't be told apart.",
        ),
        _condition(
            "the codebook fits the new items",
            error,
            MAX_ERROR,
            "Vectors that the codes leave unexplained are of other things: refresh the codebook.",
        ),
    ]


def _drift(bundle: Bundle, grown: Bundle, requests: Requests) -> float:
    """Largest difference of a known item's act logit after the golden histories."""
    uids = bundle.catalogue.uids
    known = [[uids[item] for item in request["history"] if item in uids] for request in requests]
    histories = pad([np.array(one) for one in known if one], bundle.model.config.max_history)
    if not len(histories):
        return 0.0
    with torch.inference_mode():
        before, after = (
            one.model.eval().act_logits(one.model.last_state(histories))[:, 1 : len(uids) + 1]
            for one in (bundle, grown)
        )
    return float((before - after).abs().max())


def _condition(name: str, value: float, bound: float, why: str) -> dict[str, Any]:
    holds = value <= bound
    return {
        "name": name,
        "metric": f"onboarding.{name.replace(' ', '_')}",
        "value": round(value, 6),
        "bound": f"<= {bound:g}",
        "severity": "block",
        "verdict": "pass" if holds else "fail",
        "why": why,
        "detail": f"it is {value:.4g}, {'as required' if holds else 'but must be'} (<= {bound:g}).",
    }
