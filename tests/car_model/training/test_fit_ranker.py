"""A ranker joins a bundle where there is something to learn; otherwise the bundle stays as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from car_model.action_ranker.rerank import WEIGHTS, predict_like
from car_model.bundle import Bundle
from car_model.data.dataset import Dataset
from car_model.evidence.training import RankerSummary
from car_model.training.onboard import onboard
from car_model.training.recipe import RankerRecipe, RecipeError, parse_ranker
from car_model.training.train_ranker import fit_ranker, least_liked
from tests.car_model.action_ranker.liking import QUICK, liking, rated
from tests.car_model.builders import tiny_dataset
from tests.fixtures import tiny_parts


def with_actions(*values: float) -> Dataset:
    dataset = tiny_dataset()
    frame = dataset.interactions
    return replace(dataset, interactions=frame.assign(action=np.resize(np.array(values), len(frame))))


def test_a_ranker_that_learned_something_joins() -> None:
    bundle, summary = liking()
    assert summary.trained is True
    assert bundle.ranker is not None and bundle.ranker.weight == summary.weight in WEIGHTS
    assert (summary.liked, summary.architecture) == (5.0, "lfa")
    assert summary.valid.normalised_entropy < 0.9
    assert len(summary.train_loss) == len(summary.valid_log_loss) == QUICK.epochs


@pytest.mark.parametrize(
    ("dataset", "why"),
    [
        (tiny_dataset(), "the interactions have no actions."),
        (with_actions(np.nan), "no training interaction has an action."),
        (with_actions(1.0), "all actions are 1: nothing tells what is liked."),
    ],
)
def test_without_actions_the_bundle_stays(dataset: Dataset, why: str) -> None:
    bundle = tiny_parts()
    found, summary = fit_ranker(dataset, bundle, QUICK)
    assert found is bundle
    assert summary == RankerSummary(trained=False, why=why)


def test_a_ranker_that_beats_no_base_rate_is_left_out() -> None:
    quick = QUICK.model_copy(update={"epochs": 2, "learning_rate": 0.5, "warmup": 0.0})
    found, summary = fit_ranker(rated(noise=True), tiny_parts(), quick)
    assert found.ranker is None
    assert summary.trained is False
    assert "beats no base rate, so it is left out" in summary.why


@pytest.mark.parametrize(
    ("values", "liked"),
    [((1, 2, 3, 4, 5), 4), ((0, 1), 1), ((1, 5), 5), ((-1, 0, 1), 1), ((1, 2, np.nan), 2), ((0, 10, 4), 10)],
)
def test_what_lies_above_the_middle_is_liked(values: tuple[float, ...], liked: float) -> None:
    assert least_liked(with_actions(*values), None) == liked


@pytest.mark.parametrize("wanted", [1.0, 0.5, 5.5])
def test_a_bound_that_parts_nothing_is_refused(wanted: float) -> None:
    with pytest.raises(RecipeError, match=r"'liked' is .*, but actions are 1 to 5"):
        least_liked(with_actions(1, 2, 3, 4, 5), wanted)
    assert least_liked(with_actions(1, 2, 3, 4, 5), 3.0) == 3.0


def test_training_again_gives_the_same_ranker_and_a_finished_one_is_not_trained_again(tmp_path: Path) -> None:
    quick = QUICK.model_copy(update={"epochs": 3})
    first, summary = fit_ranker(rated(), tiny_parts(), quick, tmp_path / "state")
    states = [fit_ranker(rated(), tiny_parts(), quick, where) for where in (None, tmp_path / "state")]
    for found, other in states:
        assert other == summary
        for name, weight in found.ranker.model.state_dict().items():  # type: ignore[union-attr]
            assert torch.equal(weight, first.ranker.model.state_dict()[name])  # type: ignore[union-attr]


def test_items_that_are_onboarded_are_ranked_through_their_codes() -> None:
    bundle = liking()[0]
    vectors = np.random.default_rng(1).normal(size=(2, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    extended = onboard(bundle, ["new1", "new2"], ["New 1", "New 2"], vectors)
    history, actions = torch.tensor([3, 7, 4]), torch.tensor([2, 1, 2])
    before, after = (one.ranker.model for one in (bundle, extended))  # type: ignore[union-attr]
    candidates = torch.arange(1, 49)
    torch.testing.assert_close(
        predict_like(after, history, actions, candidates), predict_like(before, history, actions, candidates)
    )
    offsets = torch.arange(3) * 4
    new = after.code(torch.from_numpy(extended.catalogue.sids[-2:]).long() + offsets).sum(dim=1)
    torch.testing.assert_close(after.embed_items(torch.tensor([49, 50])), new)
    assert predict_like(after, history, actions, torch.tensor([49, 50])).isfinite().all()


def test_a_saved_bundle_keeps_its_ranker(tmp_path: Path) -> None:
    bundle = liking()[0]
    header = bundle.save(tmp_path)
    loaded = Bundle.load(tmp_path)
    assert loaded.ranker is not None and bundle.ranker is not None
    assert loaded.ranker.weight == bundle.ranker.weight == header.action_weight
    history, actions = torch.tensor([3, 7]), torch.tensor([2, 0])
    candidates = torch.arange(1, 49)
    assert torch.equal(
        predict_like(loaded.ranker.model, history, actions, candidates),
        predict_like(bundle.ranker.model, history, actions, candidates),
    )


def test_recipes_are_read_strictly() -> None:
    assert parse_ranker("off") is None
    assert parse_ranker("{}") == RankerRecipe()
    assert parse_ranker('{"liked": 4, "epochs": 2}') == RankerRecipe(liked=4, epochs=2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("on", "neither 'off' nor JSON"),
        ("[]", 'must be a JSON object, such as {"liked": 4}'),
        ('{"stars": 4}', "there is no setting 'stars'; there are: epochs, batch_size"),
        ('{"architecture": "mixed"}', "'architecture' is 'mixed'"),
        ('{"dropout": 1}', "'dropout' is 1"),
        ('{"liked": 1e999}', "'liked' is inf"),
        ('{"n_heads": 3}', "d_model 64 must be a multiple of n_heads 3"),
    ],
)
def test_a_wrong_recipe_is_refused_with_a_sentence(text: str, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_ranker(text)
    assert says in str(caught.value)
