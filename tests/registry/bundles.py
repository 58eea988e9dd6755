"""Tiny bundles in the real layout, and the evidence that goes with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np

from car_model.codebook.codebook import Codebook
from car_model.codebook.labels import CodeLabels
from car_model.data.catalogue import Catalogue
from car_model.encoding.encoder import EncoderSpec
from car_model.evidence.verdict import ConditionResult, Verdict
from common.digests import file_digest, tree_digest
from registry.releases.bundle_files import release_digest
from registry.releases.manifest import Manifest
from registry.releases.release import write_release
from registry.store.base import ObjectStore

POLICY, HOLDOUT = "9" * 64, "8" * 64


def make_bundle(folder: Path, seed: int = 0) -> Path:
    """A bundle folder whose content follows from the seed; its model's weights are no real ones."""
    (folder / "model").mkdir(parents=True, exist_ok=True)
    codebook = Codebook(
        centroids=np.full((2, 4, 2), seed, dtype=np.float32),
        axes=np.eye(2, dtype=np.float32),
        mean=np.zeros(2, dtype=np.float32),
        encoder=EncoderSpec(name="tiny"),
        template="{title}",
    )
    codebook.save(folder / "codebook")
    CodeLabels([["a", "b", "c", "d"]] * 2).save(folder / "codebook")
    catalogue = make_catalogue(seed)
    catalogue.save(folder / "catalogue.parquet")
    (folder / "model/model.safetensors").write_bytes(bytes(range(256)) * 4 + str(seed).encode())
    write_json(folder / "model/config.json", {"d_model": 8})
    write_json(folder / "popular.json", {"items": ["1", "2"]})
    header = {
        "format": 1,
        "codebook": codebook.version,
        "catalogue": catalogue.digest,
        "encoder": asdict(codebook.encoder),
        "model": tree_digest(folder / "model"),
        "labels": file_digest(folder / "codebook/labels.json"),
        "popular": file_digest(folder / "popular.json"),
        "data": "d" * 64,
        "think_scale": 0.1,
    }
    write_json(folder / "bundle.json", header)
    return folder


def make_catalogue(seed: int) -> Catalogue:
    """Four items of eight: which ones, and the second item's first code, follow from the seed."""
    items = [f"i{(seed + number) % 8}" for number in range(4)]
    sids = np.array([[0, 0], [seed % 4, 1], [2, 2], [3, 3]], dtype=np.int32)
    return Catalogue(items, [item.upper() for item in items], sids)


def reseal_model(folder: Path) -> Path:
    """Let a bundle's header name the model that its folder holds now."""
    header = json.loads((folder / "bundle.json").read_text())
    write_json(folder / "bundle.json", header | {"model": tree_digest(folder / "model")})
    return folder


METRICS = {"recall@10": 0.131, "ndcg@10": 0.068}
# What an infra validation would have written: bundles of `make_bundle` cannot be served.
INFRA = {"archive_sha256": "7" * 64, "provenance": {"handler": "", "workers": "", "archiver": ""}}


def make_evidence(
    folder: Path,
    bundle: Path | None,
    blessed: bool = True,
    bootstrap: bool = False,
    *,
    note: str = "",
    holdout: str = HOLDOUT,
    metrics: Mapping[str, float] = METRICS,
) -> dict[str, Path]:
    """A verdict on a bundle, an evaluation and a report; `note` varies the report as time would."""
    folder.mkdir(parents=True, exist_ok=True)
    release = release_digest(bundle) if bundle else "0" * 64
    conditions = [make_condition("beats popularity", verdict="pass" if blessed else "fail")]
    verdict = Verdict(
        blessed=blessed,
        bootstrap=bootstrap,
        policy=POLICY,
        release=release,
        holdout=holdout,
        champion=None if bootstrap else "c" * 64,
        conditions=(*conditions, *([make_condition("champion", verdict="waived")] if bootstrap else [])),
    )
    verdict.write(folder / "verdict.json")
    users = {"split": "test", "users": 9, "items": 4, "hits": 1, "digest": holdout}
    intervals = {name: {"mean": mean, "low": mean / 2, "high": mean} for name, mean in metrics.items()}
    evaluation = {"release": release, "holdout": users, "models": {"challenger": intervals}}
    write_json(folder / "evaluation.json", evaluation)
    (folder / "report.html").write_text(f"<html>{note}</html>")
    return {name: folder / name for name in ("verdict.json", "evaluation.json", "report.html")}


def make_condition(
    name: str,
    severity: Literal["block", "warn"] = "block",
    verdict: Literal["pass", "fail", "waived"] = "pass",
) -> ConditionResult:
    """A line of the gate table."""
    return ConditionResult(
        name=name, metric="paired.popularity.ndcg@10.low", value=0.1, bound="> 0", severity=severity,
        verdict=verdict, why="A model must beat popularity.", detail="It is 0.1.",
    )  # fmt: skip


def make_release(
    store: ObjectStore,
    folder: Path,
    seed: int = 0,
    blessed: bool = True,
    bootstrap: bool = False,
    **options: Any,
) -> Manifest:
    """Write the release of `make_bundle(seed)`; an unblessed one by force."""
    bundle = make_bundle(folder / f"bundle-{seed}", seed)
    evidence = make_evidence(folder / f"evidence-{seed}", bundle, blessed, bootstrap)
    evidence["infra.json"] = folder / f"evidence-{seed}" / "infra.json"
    write_json(evidence["infra.json"], INFRA)
    force = None if blessed else "a test of the fire drill"
    return write_release(store, bundle, evidence, force=force, **options)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(value))
