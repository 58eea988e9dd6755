"""Recipes: settings are checked before hours are spent on them."""

from __future__ import annotations

from typing import Any

import pytest

from car_model.models.baselines import SASRecConfig
from car_model.models.car import CARConfig
from car_model.training.recipe import Recipe, RecipeError, parse_recipe
from car_model.training.trainer import TrainConfig


def test_defaults_are_the_librarys() -> None:
    recipe = parse_recipe({})
    assert recipe == Recipe()
    assert recipe.car(10, 3, 8) == CARConfig(n_items=10, n_levels=3, codebook_size=8)
    assert recipe.sasrec(10) == SASRecConfig(n_items=10)
    assert TrainConfig().model_dump().items() <= recipe.model_dump().items()
    assert recipe.baseline_recipe() == recipe


def test_settings_reach_both_models() -> None:
    shared = {"d_model": 32, "position_encoding": "rotary", "label_smoothing": 0.1}
    recipe = parse_recipe({**shared, "epochs": 3, "layout": "full", "think_weight": 0})
    assert shared.items() <= vars(recipe.car(5, 2, 4)).items()
    assert shared.items() <= vars(recipe.sasrec(5)).items()
    assert recipe.car(5, 2, 4).layout == "full"
    assert recipe.car(5, 2, 4).think_weight == 0
    assert recipe.epochs == recipe.baseline_recipe().epochs == 3


def test_the_baselines_own_settings_stay_its_own() -> None:
    own = {"dropout": 0.5, "epochs": 7, "learning_rate": 0.01, "d_model": 16}
    recipe = parse_recipe({"d_model": 32, "seed": 3, "baseline": own})
    assert (recipe.sasrec(5).dropout, recipe.sasrec(5).d_model) == (0.5, 16)
    baseline, default = recipe.baseline_recipe(), Recipe()
    assert (baseline.epochs, baseline.learning_rate, baseline.seed) == (7, 0.01, 3)
    assert (recipe.car(5, 2, 4).dropout, recipe.car(5, 2, 4).d_model) == (0.2, 32)
    assert (recipe.epochs, recipe.learning_rate, recipe.seed) == (default.epochs, default.learning_rate, 3)


def test_the_baselines_numbers_are_of_the_right_kind() -> None:
    recipe = parse_recipe({"baseline": {"d_model": 32.0, "epochs": 4}})
    assert isinstance(recipe.sasrec(5).d_model, int)
    assert isinstance(recipe.baseline_recipe().epochs, int)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"widht": 32}, "there is no setting 'widht'; there are: epochs, batch_size"),
        (
            {"baseline": {"layout": "full"}},
            "'baseline': there is no setting 'layout'; there are: epochs",
        ),
        ({"baseline": {"baseline": {}}}, "'baseline': there is no setting 'baseline'"),
        ({"d_model": "wide"}, "'d_model' is 'wide': input should be a valid integer"),
        ({"d_model": 4}, "'d_model' is 4: input should be greater than or equal to 8"),
        ({"epochs": 0}, "'epochs' is 0"),
        ({"epochs": 1.5}, "'epochs' is 1.5"),
        ({"dropout": 1.0}, "'dropout' is 1.0: input should be less than 1"),
        ({"learning_rate": 0}, "'learning_rate' is 0"),
        ({"learning_rate": float("nan")}, "'learning_rate' is nan"),
        ({"warmup": 1.1}, "'warmup' is 1.1"),
        (
            {"position_encoding": "sinus"},
            "'position_encoding' is 'sinus': input should be 'learned' or 'rotary'",
        ),
        ({"label_smoothing": 1}, "'label_smoothing' is 1: input should be less than 1"),
        ({"label_smoothing": 0.1, "negatives": 9}, "set one of the two to 0"),
        ({"d_model": 64, "n_heads": 3}, "d_model 64 must be a multiple of n_heads 3"),
        ({"baseline": {"d_model": 9}}, "d_model 9 must be a multiple of n_heads 2"),
        ({"position_encoding": "rotary", "n_heads": 64}, "d_model 64 / n_heads 64 is odd"),
        ({"layout": "flat"}, "'layout' is 'flat': input should be 'collapsed' or 'full'"),
        ({"fusion": None}, "'fusion' is None"),
        ({"baseline": None}, "'baseline' is None"),
        ({"baseline": 5}, "'baseline' is 5"),
        ({"baseline": [1]}, "'baseline': input should be a valid dictionary"),
        ({"baseline": {"d_model": -5}}, "the baseline's settings: 'd_model' is -5"),
        ({"baseline": {"epochs": 0.5}}, "'epochs' is 0.5"),
        ({"baseline": {"dropout": "much"}}, "'dropout' is 'much'"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence) as caught:
        parse_recipe(values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [None, [], 5, "epochs=5", {1: 2}])
def test_what_is_no_set_of_settings_is_refused(values: Any) -> None:
    with pytest.raises(RecipeError, match=r"valid dictionary|keys should be strings"):
        parse_recipe(values)
