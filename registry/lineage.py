"""Evidence on the data a release was trained on; an onboarded release has it through its ancestors."""

from __future__ import annotations

from pathlib import Path

from registry.fetch import fetch_evidence
from registry.release import read_manifest
from registry.store import ObjectStore


def fetch_data_evidence(store: ObjectStore, release: str, name: str, target: Path | str) -> Path:
    """Copy evidence on a release's training data (`profile.json`) to a path, checking it; return the path.

    A release that brought new items without training holds none: what its nearest ancestor trained on the
    same data holds is as true of it.

    Raises:
        ReleaseError: no release of the lineage has such evidence for this data, one of them is gone, or the
            evidence is missing or damaged.
    """
    manifest = own = read_manifest(store, release)
    while name not in manifest.evidence and manifest.parent:
        manifest = read_manifest(store, manifest.parent)
        if manifest.versions.data != own.versions.data:
            break
    same = manifest.versions.data == own.versions.data and name in manifest.evidence
    return fetch_evidence(
        store, manifest if same else own, name, target
    )  # else the error names what was asked
