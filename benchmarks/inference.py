"""Seconds a sample to the top items: CAR fast and slow, its autoregressive ablation, and a TIGER-style model.

    python -m benchmarks.inference --data-dir PATH/amazon2014/Toys_and_Games

One process, one thread, float32, the same sizes for all; real histories and SIDs, untrained weights (what
they are changes no time). Every round times every variant once, in an order drawn anew, and ratios are
taken within a round, so that what else the machine does falls on all alike. An answer is the UIDs of the
k best items without the history's own. What depends on weights alone is made before the clock starts: the
rows of CAR's act head, the trie of the beam.

Written to benchmarks/results/speed/inference-toys.json.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import typer
from torch import Tensor
from tqdm import tqdm

from benchmarks.datasets.load import load_dataset, tokens
from benchmarks.report.machine import machine
from benchmarks.report.table import Sheet
from car_model.data.dataset import Dataset
from car_model.data.histories import pad
from car_model.models.ablations.autoregressive import ARConfig, AutoRegressive, beam_search
from car_model.models.car import CAR, CARConfig

OUTPUT = Path("benchmarks/results/speed/inference-toys.json")
SIZES: dict[str, Any] = {"d_model": 64, "n_layers": 2, "n_heads": 2, "max_history": 50}
WIDTHS = (5, 10, 20, 50)  # of beams, and how many items CAR is asked for
TOP = 10
BATCHES = (1, 32)
SCALE = 0.1  # weight of thinking in CAR's score

Answer = Callable[[Tensor], Tensor]  # histories [B, T] -> UIDs [B, k]
app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Variant:
    """One way to answer.

    Attributes:
        model: what the table calls it.
        beam: width, 0 for CAR, which searches nothing.
        top: k, the items in an answer.
    """

    model: str
    beam: int
    top: int
    answer: Answer


@app.command()
def main(
    data_dir: str = typer.Option(..., help="the Amazon 2014 set's folder"),
    rounds: int = 7,
    samples: int = 64,
    seed: int = 0,
    output: Path = OUTPUT,
) -> None:
    """Time all variants, print the table, write the figures."""
    dataset = load_dataset(data_dir)
    made = tokens(dataset)
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    sids = torch.from_numpy(made.catalogue.sid_table)
    chosen = variants(sids, made.codes)
    prompts = histories(dataset, made.catalogue.uids, samples, seed)
    figures = []
    for kind, rows in prompts.items():
        for batch in BATCHES:
            timed = measure(chosen, rows, batch, rounds=rounds, seed=seed, title=f"{kind}, batch {batch}")
            figures += [{"histories": kind, "batch": batch, **row} for row in summarise(chosen, timed)]
    lengths = {kind: float((rows != 0).sum(dim=1).float().mean()) for kind, rows in prompts.items()}
    found = {
        "dataset": dataset.report.name,
        "items": made.catalogue.size,
        "levels": sids.shape[1],
        "codes": made.codes,
        "sizes": SIZES,
        "dtype": "float32",
        "machine": machine(),
        "rounds": rounds,
        "samples": samples,
        "mean_history": lengths,
        "figures": figures,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    for sheet in sheets(found):
        sheet.print()


def histories(dataset: Dataset, uids: dict[str, int], samples: int, seed: int) -> dict[str, Tensor]:
    """What a test prompt holds, and histories as long as the models read: [samples, T] UIDs each.

    The longest are made of several users' histories one after the other: few users have that many.
    """
    data = dataset.histories(uids)
    order = np.random.default_rng(seed).permutation(len(data.users))
    before = data.before("test")
    known = [before[at] for at in order if len(before[at])]
    whole = np.concatenate(known)[: samples * SIZES["max_history"]]
    return {
        "as they are": pad(known[:samples], SIZES["max_history"]),
        "full": torch.from_numpy(whole.reshape(samples, SIZES["max_history"])),
    }


def variants(sids: Tensor, codes: int) -> list[Variant]:
    """Everything that is compared, over a SID table [I + 1, L]."""
    items, levels = len(sids) - 1, sids.shape[1]
    car = CAR(CARConfig(items, levels, codes, **SIZES), sids).eval()
    act = tuple(part.detach() for part in car.act_weights())  # a server makes the items' rows once a release
    found = []
    for name, thinking in (("CAR fast", 0), (f"CAR slow, {levels} levels", levels)):
        found += [Variant(name, 0, top, parallel(car, act, thinking, top)) for top in WIDTHS]
    for name, uid in (("AR", True), ("TIGER-style", False)):
        model = AutoRegressive(ARConfig(items, levels, codes, uid=uid, **SIZES), sids).eval()
        found += [
            Variant(name, beam, min(beam, TOP), searched(model, beam, min(beam, TOP))) for beam in WIDTHS
        ]
        found += [Variant(name, beam, beam, searched(model, beam, beam)) for beam in WIDTHS if beam > TOP]
    return found


def parallel(model: CAR, act: tuple[Tensor, ...], thinking: int, top: int) -> Answer:
    """CAR's answer from one pass: log P(UID), and where it thinks, the weighted log P of the item's codes."""
    weight, bias = act

    def answer(uids: Tensor) -> Tensor:
        states = model.last_state(uids)
        scores = (states @ weight.T + bias).log_softmax(dim=-1)
        if thinking:
            think = SCALE * model.think_logits(states).log_softmax(dim=-1)  # [B, L, K]
            for level in range(thinking):
                scores += think[:, level, model.sids[:, level]]
        return scores.scatter_(1, uids, -torch.inf).topk(top).indices

    return answer


def searched(model: AutoRegressive, beam: int, top: int) -> Answer:
    """The answer of a beam search."""
    return lambda uids: beam_search(model, uids, beam, exclude=uids)[0][:, :top]


def measure(
    chosen: list[Variant], rows: Tensor, batch: int, *, rounds: int, seed: int, title: str
) -> np.ndarray:
    """Seconds a sample, [rounds, variants]; rows [samples, T] are answered `batch` at a time."""
    groups = [part[:, : int((part != 0).sum(dim=1).max())] for part in rows.split(batch)]
    dice = np.random.default_rng(seed)
    seconds = np.zeros((rounds, len(chosen)))
    with torch.inference_mode():
        for variant in chosen:
            check(variant, groups[0])
        for turn in tqdm(range(rounds), desc=title, unit="round"):
            for at in dice.permutation(len(chosen)):
                start = time.perf_counter()
                for group in groups:
                    chosen[at].answer(group)
                seconds[turn, at] = (time.perf_counter() - start) / len(rows)
    return seconds


def check(variant: Variant, uids: Tensor) -> None:
    """One answer, not timed: its first entries are items, each once and none of the history's.

    Raises:
        AssertionError: they are not; there is nothing to time.
    """
    for history, row in zip(uids.tolist(), variant.answer(uids).tolist(), strict=True):
        real = [uid for uid in row if uid]
        if not real or len(row) > variant.top or len({*real} - {*history}) < len(real):
            raise AssertionError(f"{variant.model} with beam {variant.beam} answered {row} to {history}.")


def summarise(chosen: list[Variant], seconds: np.ndarray) -> list[dict[str, Any]]:
    """One row of figures a variant: seconds a sample, and ratios to CAR fast at k = 10 and at equal k."""
    fast = {variant.top: at for at, variant in enumerate(chosen) if variant.model == "CAR fast"}
    return [
        {
            "model": variant.model,
            "beam": variant.beam,
            "top": variant.top,
            "seconds": spread(seconds[:, at]),
            f"ratio_to_fast_top_{TOP}": spread(seconds[:, at] / seconds[:, fast[TOP]]),
            "ratio_to_fast_equal_top": spread(seconds[:, at] / seconds[:, fast[variant.top]]),
        }
        for at, variant in enumerate(chosen)
    ]


def spread(values: np.ndarray) -> dict[str, float]:
    """Median and range over the rounds."""
    return {"median": median(values.tolist()), "min": float(values.min()), "max": float(values.max())}


def sheets(found: dict[str, Any]) -> list[Sheet]:
    """A table a kind of history, both batch sizes side by side."""
    made = []
    for kind, length in found["mean_history"].items():
        columns = ["model", "beam", "k"]
        for batch in BATCHES:
            columns += [f"{name}, batch {batch}" for name in ("ms a sample", "x CAR fast", "at equal k")]
        groups = [
            [row for row in found["figures"] if (row["histories"], row["batch"]) == (kind, batch)]
            for batch in BATCHES
        ]
        rows = [
            [pair[0]["model"], str(pair[0]["beam"] or ""), str(pair[0]["top"])]
            + [cell for row in pair for cell in _cells(row)]
            for pair in zip(*groups, strict=True)
        ]
        title = f"Inference on {found['dataset']}, histories {kind} ({length:.0f} items)"
        made.append(Sheet(f"{title}: median (min-max) of {found['rounds']} rounds", columns, rows))
    return made


def _cells(row: dict[str, Any]) -> list[str]:
    """Milliseconds and both ratios as text."""
    ms = {name: 1000 * value for name, value in row["seconds"].items()}
    return [
        _ranged(ms),
        _ranged(row[f"ratio_to_fast_top_{TOP}"]),
        f"{row['ratio_to_fast_equal_top']['median']:.3g}",
    ]


def _ranged(values: dict[str, float]) -> str:
    return f"{values['median']:.3g} ({values['min']:.3g}-{values['max']:.3g})"


if __name__ == "__main__":
    app()
