"""Onboard new items without retraining: write a release that offers them too, with the old one as parent.

The new items are encoded with the release's codebook and scored through their semantic IDs (SIDs); nothing
else changes. The conditions that an onboarding must meet are checked here and stored as the new release's
verdict. This module imports the model library, so the command line loads it only for this command.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import ValidationError

from car_model.bundle import Bundle
from car_model.data.dataset import compose_texts, template_columns
from car_model.data.histories import pad
from car_model.encoding.encoder import embed, load_encoder
from car_model.evidence.evaluation import GoldenRequests
from car_model.evidence.verdict import ConditionResult, Verdict
from car_model.metrics.codebook import collision_rate
from car_model.recommender.recommender import Recommender
from car_model.training.onboard import onboard
from common.errors import UserError, first_problem, shorten
from ingestion.config import ItemSource, parse_config
from ingestion.reader import locate, read_table
from ingestion.sources import local_file
from registry.errors import ReleaseError
from registry.releases.bundle_files import release_digest
from registry.releases.fetch import FetchedRelease
from registry.releases.gate import ONBOARDING, Gate, read_gate
from registry.releases.manifest import Manifest
from registry.releases.recipe import RECIPE
from registry.releases.release import write_release
from registry.store.base import ObjectStore

MAX_NEW_SHARE = 0.5  # of the catalogue; if more items are new, train
MAX_COLLISIONS = 0.5  # as in the gate's default policy; a parent that was released with more may keep it
MAX_LOGIT_CHANGE = 1e-4  # answers are rounded to that
MAX_UNEXPLAINED = 1.0  # share of the new items' variance; above it the SIDs say less than the mean would
MAX_GOLDEN = 64  # requests, however often items are onboarded
PROFILE = "data_profile.json"  # what the next run's validation compares its data with

Requests = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Onboarded:
    """A new release."""

    manifest: Manifest
    n_new: int  # items added
    n_known: int  # items of the file that the catalogue had already


def onboard_items(
    store: ObjectStore,
    release: str,
    items: Path,
    cache: Path | None = None,
    config: Path | None = None,
    *,
    likely_config: Path | None = None,
) -> Onboarded:
    """Write a release that also offers the items of a file; no channel moves.

    Args:
        release: full digest of the parent.
        items: a file of items (see `read_items`) with the columns that the codebook's texts are made of.
        cache: folder of text vectors that survives runs.
        config: a dataset.json that says how to read the file; see `read_items`.
        likely_config: the dataset.json of the data that the release was trained on; without `config` it says
            how to read the file, unless the file has the names of columns that they have here.

    Raises:
        ReleaseError: the file lacks a column, an id or a title, or holds no new item, or a condition fails.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        parent = FetchedRelease.read(store, release)
        before = Bundle.load(parent.fetch_bundle(folder / "parent"))
        columns = template_columns(before.codebook.template)
        table = read_items(items, columns, config or choose_config(items, columns, likely_config))
        new = table[~table["item_id"].isin(list(before.catalogue.uids))]
        if new.empty:
            raise ReleaseError(f"{items} holds no new item: release {release[:12]} has all of them.")
        vectors = embed(load_encoder(before.codebook.encoder), compose_texts(new, columns), cache)
        after = onboard(before, new["item_id"].tolist(), new["title"].tolist(), vectors)
        residual = before.codebook.residuals(vectors)[1][:, -1]
        unexplained = float(residual.sum() / before.codebook.spread(vectors).sum())
        golden = GoldenRequests.read(parent.fetch_evidence("golden.json", folder / "parent-golden.json"))
        gate = read_gate(store, parent.manifest)
        conditions = check_onboarding(gate, before, after, golden.requests, unexplained)
        if failed := [result for result in conditions if result.verdict == "fail"]:
            reasons = " ".join(f"{result.name}: {result.detail}" for result in failed)
            raise ReleaseError(f"The items are not onboarded. {reasons}")
        # The last request has new items only: a server with the parent's catalogue answers it differently.
        requests = (*golden.requests[: MAX_GOLDEN - 1], {"history": new["item_id"].tolist()[-3:], "k": 10})
        recommender = Recommender(after)
        answers = tuple(recommender.recommend(request) for request in requests)
        GoldenRequests(requests=requests, answers=answers).write(folder / "golden.json")
        after.save(folder / "bundle")
        verdict = Verdict(
            blessed=True,
            bootstrap=not gate.compared,
            policy=ONBOARDING,
            release=release_digest(folder / "bundle"),
            holdout=None,
            champion=release,
            conditions=conditions,
        )
        verdict.write(folder / "verdict.json")
        evidence = {name: folder / name for name in ("verdict.json", "golden.json")}
        for name in {PROFILE, RECIPE} & parent.manifest.evidence.keys():  # of the child's training, too
            evidence[name] = parent.fetch_evidence(name, folder / name)
        manifest = write_release(store, folder / "bundle", evidence, parent=release)
    return Onboarded(manifest, n_new=len(new), n_known=len(table) - len(new))


def read_items(path: Path, columns: Sequence[str], config: Path | None = None) -> pd.DataFrame:
    """Read a file of items as ingestion does: one item a row, all columns text.

    It needs the columns `item_id` and `title`, and those in `columns`.

    Args:
        config: a dataset.json whose `items` say how to read the file. Default: its columns have the names
            that they have here, and its suffix gives the format.

    Raises:
        UserError: the file is unreadable, or a column, an id or a title is missing or an id is repeated.
    """
    names = {name: name for name in ("item_id", "title", *columns)}
    settings: dict[str, Any] = {"columns": names}
    if config:
        settings = parse_config(config.read_bytes(), str(config)).items.model_dump(exclude={"format"})
        if missing := [name for name in names if name not in settings["columns"]]:
            raise ReleaseError(f"{config} maps no column to '{missing[0]}', which the release needs.")
    try:
        source = ItemSource.model_validate(settings | {"location": str(path)})
    except ValidationError as error:
        raise ReleaseError(first_problem(error)) from error
    table = read_table(source, local_file(source, Path())).to_pandas().fillna("")
    for column in ("item_id", "title"):
        empty = table.index[table[column] == ""]
        if len(empty):
            where = locate(source, path, empty[0])
            raise ReleaseError(f"{path} has no {column} in {where}; every new item needs one.")
    repeated = table["item_id"][table["item_id"].duplicated()]
    if len(repeated):
        where = locate(source, path, repeated.index[0])
        raise ReleaseError(f"{path} holds item {shorten(repeated.iloc[0])} twice (again in {where}).")
    return table


def choose_config(path: Path, columns: Sequence[str], likely: Path | None) -> Path | None:
    """The dataset.json by which a file of items can be read; None if its columns have their names here.

    If it can be read in neither way, the dataset.json stays, so that the error is about its columns.
    """
    if likely is None:
        return None
    for config in (likely, None):
        with suppress(UserError):
            read_items(path, columns, config)
            return config
    return likely


def check_onboarding(
    parent: Gate, before: Bundle, after: Bundle, requests: Requests, unexplained: float
) -> tuple[ConditionResult, ...]:
    """Check the conditions of an onboarding, in the gate's terms.

    Args:
        parent: the gate's answer about the release that items are added to.
        before, after: the bundle without and with the new items.
        requests: golden requests, for their histories.
        unexplained: share of the new items' variance that their SIDs leave unexplained.
    """
    new_share = 1 - before.catalogue.size / after.catalogue.size
    logit_change = _largest_logit_change(before, after, requests)
    collisions = collision_rate(after.catalogue.sids)
    max_collisions = max(MAX_COLLISIONS, collision_rate(before.catalogue.sids))
    rows = (
        ("parent is blessed", float(not parent.blessed), 0,
         "Onboarding must not release what the gate refused."),
        ("known items score as before", logit_change, MAX_LOGIT_CHANGE,
         "New items must not change the scores of the others."),
        ("most items are known", new_share, MAX_NEW_SHARE, "If most items are new, train a new model."),
        ("semantic IDs tell items apart", collisions, max_collisions,
         "New items that share a whole semantic ID with others are indistinguishable from them."),
        ("the codebook fits the new items", unexplained, MAX_UNEXPLAINED,
         "If the codes do not explain the vectors, the items are of another kind: refresh the codebook."),
    )  # fmt: skip
    results = [
        ConditionResult(
            name=name,
            metric=f"onboarding.{name.replace(' ', '_')}",
            value=round(value, 6) if math.isfinite(value) else None,
            bound=f"<= {bound:g}",
            severity="block",
            verdict="pass" if value <= bound else "fail",
            why=why,
            detail=f"it is {value:.4g}, {'as required' if value <= bound else 'but must be'} (<= {bound:g})."
            if math.isfinite(value)
            else f"it was not measured, but must be <= {bound:g}.",
        )
        for name, value, bound, why in rows
    ]
    if not parent.compared:  # adding items must not hide that
        results.append(
            ConditionResult(
                name="parent was compared with production",
                metric="champion.release",
                value=None,
                bound="a release",
                severity="block",
                verdict="waived",
                why="A child of a first release was not compared with what production serves, either.",
                detail="The parent was blessed as a first release.",
            )
        )
    return tuple(results)


def _largest_logit_change(before: Bundle, after: Bundle, requests: Requests) -> float:
    """Largest absolute difference of an old item's act logit after the golden histories; NaN without any."""
    uids = before.catalogue.uids
    encoded = [[uids[item] for item in request["history"] if item in uids] for request in requests]
    histories = pad([np.array(history) for history in encoded if history], before.model.config.max_history)
    if not len(histories):
        return math.nan
    with torch.inference_mode():
        old, new = (
            bundle.model.eval().act_logits(bundle.model.last_state(histories))[:, 1 : len(uids) + 1]
            for bundle in (before, after)
        )  # [requests, old items] each
    return float((old - new).abs().max())
