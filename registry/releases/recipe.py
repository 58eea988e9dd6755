"""The recipe that a release was trained by: evidence beside the verdict, which the next run starts from."""

from __future__ import annotations

import tempfile
from pathlib import Path

from car_model.evidence.training import RecipeRecord
from registry.releases.fetch import FetchedRelease

RECIPE = "recipe.json"


def read_recipe(release: FetchedRelease) -> RecipeRecord | None:
    """A release's record of its recipe; None if it was written without one.

    Raises ReleaseError or EvidenceError: it is missing from the store, or damaged.
    """
    if RECIPE not in release.manifest.evidence:
        return None
    with tempfile.TemporaryDirectory() as folder:
        return RecipeRecord.read(release.fetch_evidence(RECIPE, Path(folder) / RECIPE))
