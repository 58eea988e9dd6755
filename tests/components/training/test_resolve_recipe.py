"""Which recipe a run trains by: over two runs, the second starts from what the first released."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from car_model.evidence.training import RecipeRecord
from car_model.training.recipe import RecipeError, parse_run_recipe
from components.training.resolve_recipe import resolve_recipe
from orchestration.recipe import encoder_of_run
from registry.store.open import open_store
from tests.components.test_steps import released
from tests.registry.bundles import make_release

EMBEDDED = json.dumps({"name": "embedded"})


def resolve(registry: Path | str = "", champion: str = "", **options: Any) -> Any:
    defaults: dict[str, Any] = {"recipe": "champion", "mode": "reuse", "training": True}
    changes = json.dumps(options.pop("changes", {}))
    return resolve_recipe.python_func(
        registry=str(registry), champion=champion, changes=changes, encoder=EMBEDDED, **defaults | options
    )


def record_of(resolved: Any) -> RecipeRecord:
    return RecipeRecord.from_object(json.loads(resolved[-1]), "the record")


@pytest.fixture
def first(tmp_path: Path) -> tuple[Path, str]:
    """A registry, and a release that was trained by a recipe of its own."""
    changes = {
        "d_model": 96, "ranker.liked": 4, "n_levels": 2, "seed": 7, "baseline.epochs": 3,
        "encoder.name": "tiny",
    }  # fmt: skip
    registry = tmp_path / "registry"
    return registry, released(tmp_path, registry, recipe=resolve(changes=changes)[-1])


def test_without_a_champion_a_run_starts_from_the_default() -> None:
    resolved = resolve(changes={"epochs": 3})
    record = record_of(resolved)
    assert record.origin == "the default recipe with epochs=3"
    assert json.loads(resolved[0])["epochs"] == json.loads(resolved[1])["epochs"] == 3
    assert record.settings == parse_run_recipe({"encoder": {"name": "embedded"}}).changed(
        {"epochs": 3}
    ).model_dump(mode="json")


def test_the_next_run_starts_from_the_champions_recipe(first: tuple[Path, str]) -> None:
    car, ranker, encoder, n_levels, codebook_size, seed, _ = resolved = resolve(*first)
    record = record_of(resolved)
    assert (json.loads(car)["d_model"], json.loads(car)["baseline"]) == (96, {"epochs": 3})
    assert (json.loads(ranker)["liked"], json.loads(ranker)["seed"]) == (4, 7)
    assert json.loads(encoder)["name"] == "tiny"
    assert (n_levels, codebook_size, seed) == (2, 0, 7)
    assert (record.base, record.release, record.changes) == ("champion", first[1], {})
    assert record.origin == f"the recipe of release {first[1][:12]}"


def test_containers_know_the_encoder_before_the_first_step(first: tuple[Path, str]) -> None:
    arguments = {
        "registry": str(first[0]), "channel": "production", "recipe": "champion", "changes": "{}",
        "encoder": EMBEDDED, "codebook_mode": "reuse", "training": True,
    }  # fmt: skip
    assert encoder_of_run(arguments) == "tiny"
    assert encoder_of_run(arguments | {"channel": "trial"}) == "embedded"
    named = {"changes": json.dumps({"encoder.name": "large"}), "codebook_mode": "fit"}
    assert encoder_of_run(arguments | named) == "large"


def test_the_third_run_goes_on_from_the_second(first: tuple[Path, str], tmp_path: Path) -> None:
    registry, champion = first
    changed = resolve(registry, champion, changes={"epochs": 5, "ranker": "off"})
    assert record_of(changed).origin.endswith("with epochs=5, ranker=off")
    second = released(tmp_path, registry, seed=1, entry=1, recipe=changed[-1])
    third = resolve(registry, second)
    assert third[:-1] == changed[:-1]  # what the steps are cached by
    assert third[1] == "off"
    assert json.loads(third[0])["d_model"] == 96


def test_an_equal_recipe_gives_equal_settings_wherever_it_comes_from(first: tuple[Path, str]) -> None:
    resolved = resolve(*first)
    again = resolve(recipe=json.dumps(record_of(resolved).settings))
    assert again[:-1] == resolved[:-1]
    assert record_of(again).base == "file"


def test_the_default_recipe_goes_back_but_a_codebook_that_is_kept_stays(first: tuple[Path, str]) -> None:
    reused, fitted = (resolve(*first, recipe="default", mode=mode) for mode in ("reuse", "fit"))
    assert {json.loads(resolved[0])["d_model"] for resolved in (reused, fitted)} == {64}
    assert [json.loads(resolved[2])["name"] for resolved in (reused, fitted)] == ["tiny", "embedded"]
    assert [resolved[3] for resolved in (reused, fitted)] == [2, 4]
    assert record_of(reused).origin == "the default recipe"


def test_a_release_without_a_record_gives_its_encoder(tmp_path: Path) -> None:
    release = make_release(open_store(tmp_path / "registry"), tmp_path).release
    resolved = resolve(tmp_path / "registry", release)
    assert record_of(resolved).origin == "the default recipe"
    assert json.loads(resolved[2])["name"] == "tiny"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"changes": {"n_levels": 3}},
            "n_levels can't be 3: the champion's codebook is kept, which was made",
        ),
        ({"changes": {"d_model": 97}}, "97"),
        ({"changes": {"widht": 3}}, "there is no setting 'widht'"),
        ({"changes": {"epochs": 3}, "training": False}, "so epochs would change nothing"),
        ({"recipe": "default", "training": False}, "so --recipe would change nothing"),
    ],
)
def test_a_recipe_that_the_run_cannot_keep_is_refused(
    first: tuple[Path, str], options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RecipeError, match=sentence):
        resolve(*first, **options)


def test_a_champions_recipe_that_this_code_does_not_take_is_one_sentence(tmp_path: Path) -> None:
    record = RecipeRecord(settings={"depth": 3}, base="default", release=None, changes={})
    release = released(tmp_path, tmp_path / "registry", recipe=json.dumps(record.to_json()))
    with pytest.raises(RecipeError) as refused:
        resolve(tmp_path / "registry", release)
    assert str(refused.value).startswith(
        f"the recipe of release {release[:12]}, which the run would start from"
    )
    assert "there is no setting 'depth'" in str(refused.value)
    assert str(refused.value).endswith("Run with --recipe default, or with a file.")
    assert record_of(resolve(tmp_path / "registry", release, recipe="default")).base == "default"


def test_a_ranker_that_is_off_is_trained_again_if_it_is_set() -> None:
    off = parse_run_recipe({"ranker": False})
    assert off.ranker is None
    assert off.changed({"seed": 3}).ranker is None
    ranker = off.changed({"ranker.liked": 4}).ranker
    assert ranker
    assert ranker.liked == 4


def test_few_epochs_of_one_run_do_not_limit_the_rankers_of_the_next() -> None:
    first = parse_run_recipe({}).changed({"epochs": 1})
    rankers = [recipe.ranker for recipe in (first, first.changed({"epochs": 20}), first.changed({"seed": 3}))]
    assert [ranker and ranker.epochs for ranker in rankers] == [1, 10, 1]
    own = first.changed({"ranker.epochs": 30}).changed({"epochs": 20})
    assert own.ranker
    assert own.ranker.epochs == 20
