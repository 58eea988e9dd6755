"""What is timed computes the same thing, and the table holds what was timed."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch

from benchmarks import training_speed
from benchmarks.models.huggingface import HuggingFaceCAR, Padding
from benchmarks.training_speed import (
    VARIANTS,
    GPUSizes,
    TrainingRow,
    build_cells,
    gpu_table,
    gpu_utilisation,
    measure,
    sample_batches,
    step_flops,
    summarise,
    tables,
)
from tests.car_model.builders import tiny_car, tiny_sids
from tests.fixtures import ITEMS, tiny_histories

INPUTS = torch.tensor([[3, 17, 9, 4, 0], [1, 2, 0, 0, 0], [7, 7, 7, 7, 7]])
TARGETS = torch.tensor([[17, 9, 4, 5, 0], [2, 7, 0, 0, 0], [7, 7, 7, 7, 1]])


@pytest.mark.parametrize("layout", ["collapsed", "full"])
@pytest.mark.parametrize(("padding", "everywhere"), list(product(("history", "longest"), (True, False))))
def test_the_peer_has_cars_loss_and_gradients(layout: str, padding: Padding, everywhere: bool) -> None:
    ours, theirs = tiny_car(layout=layout), HuggingFaceCAR(tiny_car(layout=layout), padding, everywhere)
    losses = [model.loss(INPUTS, TARGETS)["loss"] for model in (ours, theirs)]
    assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-5)
    for loss in losses:
        loss.backward()
    pairs = [
        (ours.uid.weight, theirs.car.uid.weight),
        (ours.code.weight, theirs.car.code.weight),
        (ours.transformer.position.weight, theirs.gpt2.wpe.weight),
    ]
    for own, other in pairs:
        torch.testing.assert_close(own.grad, other.grad, rtol=0, atol=1e-6)


def test_batches_by_length_span_all_lengths() -> None:
    train = [np.arange(1, 1 + length) for length in range(2, 50) for _ in range(training_speed.BATCH)]
    widths = [inputs.shape[1] for inputs, _ in sample_batches(train, "by length", 4, seed=0)]
    assert widths == sorted(widths)
    assert widths[0] < 10
    assert widths[-1] > 40
    assert len(sample_batches(train, "random", 3, seed=0)) == 3


def test_every_variant_is_timed_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"d_model": 16, "n_layers": 1, "n_heads": 2, "max_history": 10, "dropout": 0.2}
    monkeypatch.setattr(training_speed, "SIZES", sizes)
    monkeypatch.setattr(training_speed, "THREADS", (1,))  # two wait for each other where a core is busy
    threads = torch.get_num_threads()
    cells = build_cells(tiny_sids(), 4, seed=0)
    assert len(cells) == len(VARIANTS) * 2
    train = tiny_histories().train
    work: dict[training_speed.Order, list[training_speed.Batch]]
    work = {
        "random": sample_batches(train, "random", 1, 0),
        "by length": sample_batches(train, "by length", 1, 0),
    }
    rates = measure(cells, work, rounds=2, seed=0)
    assert (rates > 0).all()
    assert torch.get_num_threads() == threads
    speeds = summarise(cells, rates)
    assert all(row["ratio"].median == 1 for row in speeds if row["variant"] == VARIANTS[0].name)
    setup = {"machine": "m", "dataset": "tiny", "n_items": ITEMS, "n_levels": 3, "codebook_size": 4}
    rows = [TrainingRow(**setup, sizes=sizes, batch=8, rounds=2, steps=1, **speed) for speed in speeds]
    (table,) = tables(rows)
    assert table.title.startswith("Training on tiny, 1 thread: ")
    assert [row[0] for row in table.rows] == [variant.name for variant in VARIANTS]
    assert {len(row) for row in table.rows} == {len(table.columns)}


def test_flops_are_those_of_the_products() -> None:
    sizes = GPUSizes(d_model=16, n_layers=2, n_heads=2, max_history=10, batch=3, steps=1)
    layers = 2 * (3 + 1 + 4 + 4) * 16 * 16
    attention, heads = 2 * 10 * 16, 16 * (ITEMS + 1 + 3 * 4)
    assert step_flops(tiny_car(), sizes) == 6 * 30 * (layers + attention + heads)
    row = gpu_utilisation(tiny_sids(), 4, [sizes])[0]
    assert row.share_of_peak is None or torch.cuda.is_available()
    assert row.items == 30
    assert math.isclose(row.items_per_second, 30_000 / row.ms)
    assert math.isclose(row.tflops, step_flops(tiny_car(), sizes) / row.ms / 1e9)
    table = gpu_table([row])
    assert list(table.rows[0][:2]) == ["2 x 16, 30", "eager"]
    assert len(table.rows[0]) == len(table.columns)
