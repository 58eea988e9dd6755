"""Step: by which recipe the run trains."""

from typing import NamedTuple

from orchestration.step import step


@step
def resolve_recipe(
    registry: str, champion: str, recipe: str, changes: str, encoder: str, mode: str, training: bool
) -> NamedTuple(  # type: ignore[valid-type]
    "RunRecipe",
    [
        ("car", str),
        ("ranker", str),
        ("encoder", str),
        ("n_levels", int),
        ("codebook_size", int),
        ("seed", int),
        ("record", str),
    ],
):
    """Return the complete settings of every step that trains, and the record of all of them.

    Later steps get settings, never "the champion's": what they did is in the key of their cache.

    Args:
        champion: digest of the release that the channel uses; "" for none.
        recipe: "champion", "default", or settings as JSON.
        changes: single settings on top, as JSON, such as {"d_model": 96, "ranker.liked": 4}.
        encoder: text encoder of a recipe that names none, as JSON.
        mode: of the codebook.
        training: false keeps the champion's weights.
    """
    import json

    from car_model.codebook.mode import check_mode
    from orchestration.recipe import resolve_recipe as resolve
    from registry.releases.fetch import FetchedRelease
    from registry.store.open import open_store

    settings, record = resolve(
        FetchedRelease.read(open_store(registry), champion) if champion else None,
        recipe,
        json.loads(changes),
        encoder=json.loads(encoder),
        mode=check_mode(mode),
        training=training,
    )
    return (
        settings.car_recipe().model_dump_json(),
        settings.ranker.model_dump_json() if settings.ranker else "off",
        settings.encoder.model_dump_json(),
        settings.n_levels,
        settings.codebook_size,
        settings.seed,
        json.dumps(record.to_json()),
    )
