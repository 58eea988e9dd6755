"""The processes of test_distributed: `python -m tests.car_model.training.distributed_jobs JOB FOLDER`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from car_model.data.histories import Histories
from car_model.evidence.training import TrainingCurves
from car_model.training import distributed
from car_model.training import trainer as training
from car_model.training.trainer import TrainConfig, train
from tests.car_model.builders import tiny_car, tiny_sasrec
from tests.fixtures import tiny_histories

# 33 users, one window each: batches of 16, 16 and one row, of which the second process gets none.
CONFIG = TrainConfig(epochs=4, batch_size=16, learning_rate=0.01, threads=1)
RANK = int(os.environ.get("RANK", "0"))
Case = tuple[Callable[[], nn.Module], TrainConfig]
CASES: dict[str, Case] = {
    "car": (tiny_car, CONFIG.model_copy(update={"learning_rate": 0.001})),
    "car, float64": (lambda: tiny_car().double(), CONFIG),
    "car, full, untied": (
        lambda: tiny_car(layout="full", tied=False).double(),
        CONFIG,
    ),
    "car, no thinking, weight decay": (  # heads that are never trained must not decay either
        lambda: tiny_car(think_weight=0.0).double(),
        CONFIG.model_copy(update={"weight_decay": 0.1}),
    ),
    "car, codes unread": (lambda: tiny_car(fusion="none", tied=False).double(), CONFIG),
    "sasrec": (lambda: tiny_sasrec().double(), CONFIG),
    "stops early": (
        lambda: tiny_car(seed=1).double(),
        CONFIG.model_copy(update={"epochs": 12, "patience": 1, "learning_rate": 0.03}),
    ),
    "fewer rows than processes": (
        lambda: tiny_sasrec().double(),
        CONFIG.model_copy(update={"batch_size": 1}),
    ),
}


def data() -> Histories:
    """Histories of uneven lengths; every third user has no validation item."""
    made = tiny_histories(users=33)
    valid = np.where(np.arange(33) % 3 == 2, 0, made.valid)
    return replace(made, valid=valid)


def trained(name: str) -> tuple[TrainingCurves, dict[str, Tensor]]:
    """Curves and weights of a case, trained by however many processes there are."""
    make, config = CASES[name]
    model = make()
    curves = train(model, data(), config)
    return curves, model.state_dict()


def write(folder: Path, name: str, curves: TrainingCurves, weights: dict[str, Tensor]) -> None:
    """Leave a result for the test to read, a file a process."""
    save_file(weights, folder / f"{name}.{RANK}.safetensors")
    curves.write(folder / f"{name}.{RANK}.json")


def with_state(folder: Path, name: str = "resumable") -> None:
    """Train with dropout, from a state if the first process finds one; others have a folder of their own."""
    model = tiny_car(seed=RANK, dropout=0.3)  # the first process's weights count
    curves = train(model, data(), CONFIG, folder / f"state{RANK}")
    write(folder, name, curves, model.state_dict())
    (folder / f"{name}.{RANK}.seed").write_text(str(torch.initial_seed()))


def well(folder: Path) -> None:
    """Everything that ends well, and two mistakes: joined once, a process trains as often as it likes."""
    for name in CASES:
        write(folder, name, *trained(name))
    with_state(folder)
    batches, training.batches = training.batches, None  # the run is finished: nothing may be trained again
    with_state(folder, "finished")
    training.batches = batches
    broken = tiny_car()
    with torch.no_grad():
        broken.uid.weight[5] = torch.nan
    mistake(folder, "broken", broken, data())
    mistake(folder, "differs", tiny_car(), tiny_histories(users=33 - RANK))


def mistake(folder: Path, name: str, model: nn.Module, held: Histories) -> None:
    """Leave what training says about a mistake."""
    try:
        train(model, held, CONFIG)
    except ValueError as error:
        (folder / f"{name}.{RANK}.txt").write_text(str(error))


def in_third_epoch(act: Callable[[], None]) -> None:
    """Let the last process do something else in its third validation."""
    measure, left = training.valid_ndcg, [3]

    def measured(model: nn.Module, held: Histories) -> float:
        left[0] -= 1
        if not left[0] and RANK:
            act()
        return measure(model, held)

    training.valid_ndcg = measured


def dies(folder: Path) -> None:
    in_third_epoch(lambda: os._exit(9))
    with_state(folder)


def hangs(folder: Path) -> None:
    (folder / f"ready.{RANK}").touch()
    while not (folder / f"ready.{1 - RANK}").exists():  # starting may take longer than the short time-out
        time.sleep(0.05)
    distributed.TIMEOUT = timedelta(seconds=8)
    in_third_epoch(lambda: time.sleep(600))
    with_state(folder)


if __name__ == "__main__":
    torch.set_num_threads(1)
    {job.__name__: job for job in (well, with_state, dies, hangs)}[sys.argv[1]](Path(sys.argv[2]))
