"""Growth: exponents are slopes, and every size is measured in a process of its own."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from benchmarks import growth
from benchmarks.growth import Size, exponents, measured, sheets, sizes
from car_model.models.car import CAR, CARConfig
from tests.car_model.builders import tiny_car


def line(axis: str, values: tuple[int, ...], power: float) -> list[dict[str, Any]]:
    others: dict[str, Any] = {"items": 1, "history": 1, "answer_memory": 1.0, "step_memory": 2.0}
    times = [dict.fromkeys(growth.TIMES, 0.01 * value**power) for value in values]
    return [{**others, "axis": axis, axis: value, **took} for value, took in zip(values, times, strict=True)]


def test_exponents_are_the_powers_that_made_the_times() -> None:
    figures = line("items", (10, 100, 1000), 1.0) + line("history", (20, 50, 200), 1.5)
    found = exponents(figures)
    spans = [(row["axis"], row["from"], row["to"]) for row in found]
    assert spans[:3] == [("items", 10, 100), ("items", 100, 1000), ("items", 10, 1000)]
    assert spans[3:] == [("history", 20, 50), ("history", 50, 200), ("history", 20, 200)]
    for row in found:
        assert row["step"] == pytest.approx(1.0 if row["axis"] == "items" else 1.5)


def test_sizes_change_one_axis_at_a_time() -> None:
    assert {size.history for size in sizes() if size.axis == "items"} == {50}
    assert {size.items for size in sizes() if size.axis == "history"} == {10_000}


def test_an_answer_is_the_models_ranking_without_the_history() -> None:
    model = tiny_car().eval()
    prompt = torch.tensor([[3, 17, 9]])
    with torch.inference_mode():
        found = growth.answer(model, prompt, model.act_weights())[0].tolist()
        scores = model.score(prompt)[0]
    ranked = [uid for uid in scores.argsort(descending=True).tolist() if uid not in {3, 17, 9}]
    assert found == ranked[: growth.TOP]


def test_a_size_in_its_own_process_and_the_tables() -> None:
    row = measured(Size("items", 200_000, 5), rounds=1, threads=1)  # beyond what imports held
    assert min(row[name] for name in growth.TIMES) > 0
    assert 0 <= row["answer_memory"] <= row["step_memory"]
    figures = line("items", (10, 100, 1000), 1.0) + line("history", (20, 50, 200), 1.5)
    found = {"batch": 16, "rounds": 1, "figures": figures, "exponents": exponents(figures)}
    made = sheets(json.loads(json.dumps(found)))
    assert [len(sheet.rows) for sheet in made] == [3, 3, 3, 3]
    assert all(len(row) == len(sheet.columns) for sheet in made for row in sheet.rows)


def test_a_step_learns() -> None:
    torch.manual_seed(0)
    model = CAR(CARConfig(20, 2, 4, d_model=16), torch.zeros(21, 2, dtype=torch.long))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    rows = torch.randint(1, 21, (4, 6))
    before = model.loss(rows[:, :-1], rows[:, 1:])["loss"].item()
    for _ in range(5):
        growth.step(model, optimizer, rows)
    assert model.loss(rows[:, :-1], rows[:, 1:])["loss"].item() < before
