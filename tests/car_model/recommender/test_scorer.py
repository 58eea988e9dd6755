"""The best of a sum, without computing all of it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from car_model.recommender import scorer
from car_model.recommender.scorer import top_of_sum


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 300),
    st.integers(1, 20),
    st.sampled_from([0.0, 0.1, 1.0, 30.0]),
    st.tuples(st.sampled_from([0.0, 0.5, 0.98]), st.sampled_from([1, 8, 256])),
)
@settings(max_examples=300, deadline=None)
def test_it_finds_what_computing_all_finds(
    seed: int, items: int, k: int, bound: float, case: tuple[float, int]
) -> None:
    masked, first = case
    dice = torch.Generator().manual_seed(seed)
    scores = torch.randn(items, generator=dice, dtype=torch.float64)
    scores[torch.rand(items, generator=dice) < masked] = -torch.inf
    more = bound * (1 - 2 * torch.rand(items, generator=dice, dtype=torch.float64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorer, "FIRST_CANDIDATES", first)
        values, indices = top_of_sum(scores, lambda some: more[some], bound, k)
    expected = (scores + more).topk(min(k, items)).values
    assert torch.equal(values, expected)
    assert torch.equal((scores + more)[indices], values) and len(set(indices.tolist())) == len(indices)


def test_what_cannot_be_among_the_best_is_not_computed() -> None:
    computed: list[int] = []

    def more(indices: torch.Tensor) -> torch.Tensor:
        computed.extend(indices.tolist())
        return torch.zeros(len(indices))

    scores = -torch.arange(10_000.0)
    indices = top_of_sum(scores, more, bound=3.0, k=5)[1]
    assert indices.tolist() == [0, 1, 2, 3, 4] and len(computed) == scorer.FIRST_CANDIDATES
