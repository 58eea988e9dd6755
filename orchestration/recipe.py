"""Which recipe a run trains by: the champion's, the default or its own, with single settings changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from car_model.codebook.mode import CodebookMode, check_mode
from car_model.evidence.training import RecipeRecord
from car_model.training.recipe import EncoderSettings, RecipeError, RunRecipe, parse_run_recipe
from registry.channels.channel import head
from registry.releases.fetch import FetchedRelease
from registry.releases.recipe import read_recipe
from registry.store.open import open_store

CHAMPION, DEFAULT = "champion", "default"
CODEBOOK = ("n_levels", "codebook_size", "encoder")  # what a codebook that is kept has decided already


def resolve_recipe(
    champion: FetchedRelease | None,
    recipe: str,
    changes: Mapping[str, Any],
    *,
    encoder: Mapping[str, Any],
    mode: CodebookMode,
    training: bool,
) -> tuple[RunRecipe, RecipeRecord]:
    """The recipe of a run, complete, and the record of where it came from.

    Args:
        champion: the release that the channel uses; None for none, and "champion" is the default.
        recipe: "champion", "default", or settings as JSON.
        changes: single settings on top, by dotted names.
        encoder: the text encoder of a recipe that names none.
        mode: a codebook that is not fit anew keeps the champion's sizes and encoder.
        training: without it, the champion's weights and so its recipe are kept.

    Raises:
        RecipeError: a setting is unknown or wrong, or contradicts what the run keeps of the champion.
        RegistryError: the champion's record is missing from its registry, or damaged.
    """
    if not training and champion:
        check_untrained(recipe, changes)
    record = read_recipe(champion) if champion else None
    settings: dict[str, Any] = {"encoder": dict(encoder)}
    if champion:
        before = settings_of(champion, record)
        settings |= {
            name: before[name]
            for name in before
            if recipe == CHAMPION or (name in CODEBOOK and mode != "fit")
        }
    if recipe not in (CHAMPION, DEFAULT):
        settings |= json.loads(recipe)
    try:
        base = parse_run_recipe(settings)
    except RecipeError as error:
        if champion is None or recipe != CHAMPION:
            raise
        raise RecipeError(
            f"the recipe of release {champion.digest[:12]}, which the run would start from, does not fit "
            f"this code: {str(error).rstrip('.')}. Run with --recipe default, or with a file."
        ) from error
    resolved = base.changed(changes)
    if record and mode != "fit":
        for name in ("n_levels", "codebook_size"):
            now = getattr(resolved, name)
            if record.settings.get(name, now) != now:
                raise RecipeError(
                    f"{name} can't be {now}: the champion's codebook is kept, which was made with "
                    f"{record.settings[name]}. Leave it, or fit a new codebook (--codebook fit)."
                )
    parent = champion.digest if champion and record and recipe == CHAMPION else None
    return resolved, RecipeRecord(
        settings=resolved.model_dump(mode="json"),
        base="champion" if parent else "default" if recipe in (CHAMPION, DEFAULT) else "file",
        release=parent,
        changes=dict(changes),
    )


def encoder_of_run(arguments: Mapping[str, Any]) -> str:
    """Name or folder of the text encoder that a run with these pipeline parameters will use.

    Raises:
        RecipeError, RegistryError: as `resolve_recipe`.
    """
    store = open_store(arguments["registry"])
    entry = head(store, arguments["channel"])
    recipe, _ = resolve_recipe(
        FetchedRelease.read(store, entry.release) if entry else None,
        arguments["recipe"],
        json.loads(arguments["changes"]),
        encoder=json.loads(arguments["encoder"]),
        mode=check_mode(arguments["codebook_mode"]),
        training=arguments["training"],
    )
    return recipe.encoder.name


def settings_of(champion: FetchedRelease, record: RecipeRecord | None) -> dict[str, Any]:
    """The settings that a release was made with; without a record, only its encoder's are known."""
    if record:
        return record.settings
    encoder = champion.manifest.versions.encoder
    return {"encoder": {name: encoder[name] for name in EncoderSettings.model_fields if name in encoder}}


def check_untrained(recipe: str, changes: Mapping[str, Any]) -> None:
    """Raise a RecipeError if a run that keeps the champion's weights is to have another recipe."""
    if recipe != CHAMPION or changes.keys() - {"ranker"} or changes.get("ranker", "off") != "off":
        named = ", ".join(changes) or "--recipe"
        raise RecipeError(
            f"nothing is trained with --no-train, so {named} would change nothing: leave it out, or train."
        )


def read_recipe_file(path: Path) -> dict[str, Any]:
    """The settings in a recipe file, YAML or JSON. Raises RecipeError."""
    try:
        settings = yaml.safe_load(path.read_bytes())
        json.dumps(settings)
    except OSError as error:
        raise RecipeError(
            f"no such file can be read ({error.strerror}). Name a YAML or JSON file, or say {CHAMPION} or "
            f"{DEFAULT}; single settings are changed with --set NAME=VALUE."
        ) from error
    except (yaml.YAMLError, TypeError) as error:
        raise RecipeError(f"the file is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(settings, dict) or not all(isinstance(name, str) for name in settings):
        raise RecipeError("the file must hold settings by name, such as d_model: 96.")
    return settings
