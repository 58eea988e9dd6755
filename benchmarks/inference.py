"""Print milliseconds per recommendation: CAR fast and slow, its autoregressive ablation, a TIGER-style model.

    python -m benchmarks.inference --data PATH/amazon2014/Toys_and_Games

One process, one thread, float32, equal sizes; real histories and SIDs, untrained weights (their values change
no time). Every round times every variant once in a new random order, and ratios are taken within a round, so
that other load on the machine falls on all alike. An answer is the k best items that are not in the history.
What depends on the weights alone (CAR's item rows, the beam's trie) is made before the clock starts.
About 5 minutes. Written to benchmarks/results/inference.csv.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor
from tqdm import tqdm

from benchmarks.datasets.load import load_dataset, tokens
from benchmarks.models.autoregressive import ARConfig, AutoRegressive, beam_search
from benchmarks.report.machine import machine
from benchmarks.report.rows import Range, Row, write_rows
from benchmarks.report.table import Table
from car_model.data.dataset import Dataset
from car_model.data.histories import pad
from car_model.models.car import CAR, CARConfig

OUTPUT = Path("benchmarks/results/inference.csv")
SIZES: dict[str, Any] = {"d_model": 64, "n_layers": 2, "n_heads": 2, "max_history": 50}
BEAMS = (5, 10, 20, 50)  # beam widths, and numbers of items that CAR returns
TOP = 10
BATCHES = (1, 32)
THINK_SCALE = 0.1

Answer = Callable[[Tensor], Tensor]  # histories [B, T] -> UIDs [B, k]
app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Variant:
    """One way to answer.

    Attributes:
        model: its name in the table.
        beam: beam width; 0 for CAR, which needs no search.
        top: k, the number of items in an answer.
    """

    model: str
    beam: int
    top: int
    answer: Answer


class InferenceRow(Row):
    """The time of one variant at one batch size."""

    machine: str
    dataset: str
    n_items: int
    n_levels: int
    codebook_size: int
    sizes: dict[str, int]
    """Sizes of every model."""
    dtype: str
    rounds: int
    samples: int
    histories: str
    """`as they are`, or `full`: as long as the models read."""
    mean_history: float
    batch: int
    model: str
    beam: int
    top: int
    seconds: Range
    """Seconds per history."""
    ratio_to_fast_top_10: Range
    """Time over that of CAR fast with 10 items."""
    ratio_to_fast_equal_top: Range
    """Time over that of CAR fast with as many items."""


@app.command()
def main(
    data: Annotated[str, typer.Option(help="movielens, or the folder of an Amazon 2014 data set.")],
    rounds: int = 7,
    samples: int = 64,
    seed: int = 0,
) -> None:
    """Time all variants and print the tables."""
    dataset = load_dataset(data)
    items = tokens(dataset)
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    sids = torch.from_numpy(items.catalogue.sid_table)
    variants = all_variants(sids, items.codebook_size)
    rows = []
    for kind, histories in sample_histories(dataset, items.catalogue.uids, samples, seed).items():
        for batch in BATCHES:
            title = f"{kind}, batch {batch}"
            seconds = measure(variants, histories, batch, rounds=rounds, seed=seed, title=title)
            for times in summarise(variants, seconds):
                rows.append(
                    InferenceRow(
                        machine=machine(),
                        dataset=dataset.report.name,
                        n_items=items.catalogue.size,
                        n_levels=sids.shape[1],
                        codebook_size=items.codebook_size,
                        sizes=SIZES,
                        dtype="float32",
                        rounds=rounds,
                        samples=samples,
                        histories=kind,
                        mean_history=float((histories != 0).sum(dim=1).float().mean()),
                        batch=batch,
                        **times,
                    )
                )
    write_rows(OUTPUT, rows)
    for table in tables(rows):
        table.print()


def sample_histories(dataset: Dataset, uids: dict[str, int], samples: int, seed: int) -> dict[str, Tensor]:
    """Test histories as they are and of full length: [samples, T] UIDs each.

    Few users have a full history, so those are made of several users' histories one after the other.
    """
    data = dataset.histories(uids)
    order = np.random.default_rng(seed).permutation(len(data.users))
    before = data.before("test")
    histories = [before[i] for i in order if len(before[i])]
    joined = np.concatenate(histories)[: samples * SIZES["max_history"]]
    return {
        "as they are": pad(histories[:samples], SIZES["max_history"]),
        "full": torch.from_numpy(joined.reshape(samples, SIZES["max_history"])),
    }


def all_variants(sids: Tensor, codebook_size: int) -> list[Variant]:
    """Everything that is compared, for a SID table [I + 1, L]."""
    n_items, n_levels = len(sids) - 1, sids.shape[1]
    car = CAR(
        CARConfig(n_items=n_items, n_levels=n_levels, codebook_size=codebook_size, **SIZES), sids
    ).eval()
    act = tuple(part.detach() for part in car.act_weights())  # a server makes the item rows once per release
    variants = []
    for name, thinking in (("CAR fast", 0), (f"CAR slow, {n_levels} levels", n_levels)):
        variants += [Variant(name, 0, top, car_answer(car, act, thinking, top)) for top in BEAMS]
    for name, uid in (("AR", True), ("TIGER-style", False)):
        model = AutoRegressive(ARConfig(n_items, n_levels, codebook_size, uid=uid, **SIZES), sids).eval()
        pairs = [(beam, min(beam, TOP)) for beam in BEAMS] + [(beam, beam) for beam in BEAMS if beam > TOP]
        variants += [Variant(name, beam, top, beam_answer(model, beam, top)) for beam, top in pairs]
    return variants


def car_answer(model: CAR, act: tuple[Tensor, ...], thinking: int, top: int) -> Answer:
    """CAR's answer from one pass: log P(UID), plus weighted log P of the codes on `thinking` levels."""
    weight, bias = act

    def answer(uids: Tensor) -> Tensor:
        states = model.last_state(uids)
        scores = (states @ weight.T + bias).log_softmax(dim=-1)  # [B, I + 1]
        if thinking:
            think = THINK_SCALE * model.think_logits(states).log_softmax(dim=-1)  # [B, L, K]
            for level in range(thinking):
                scores += think[:, level, model.sids[:, level]]
        return scores.scatter_(1, uids, -torch.inf).topk(top).indices

    return answer


def beam_answer(model: AutoRegressive, beam: int, top: int) -> Answer:
    """The answer of a beam search."""
    return lambda uids: beam_search(model, uids, beam, exclude=uids)[0][:, :top]


def measure(
    variants: list[Variant], histories: Tensor, batch: int, *, rounds: int, seed: int, title: str
) -> np.ndarray:
    """Seconds per history [rounds, variants]; histories [samples, T] are answered `batch` at a time."""
    batches = [part[:, : int((part != 0).sum(dim=1).max())] for part in histories.split(batch)]
    rng = np.random.default_rng(seed)
    seconds = np.zeros((rounds, len(variants)))
    with torch.inference_mode():
        for variant in variants:
            check_answer(variant, batches[0])
        for number in tqdm(range(rounds), desc=title, unit="round"):
            for i in rng.permutation(len(variants)):
                start = time.perf_counter()
                for uids in batches:
                    variants[i].answer(uids)
                seconds[number, i] = (time.perf_counter() - start) / len(histories)
    return seconds


def check_answer(variant: Variant, uids: Tensor) -> None:
    """Check one answer, not timed: distinct items, none of the history's.

    Raises:
        AssertionError: the answer is wrong, so its time means nothing.
    """
    for history, answer in zip(uids.tolist(), variant.answer(uids).tolist(), strict=True):
        items = [uid for uid in answer if uid]
        if not items or len(answer) > variant.top or len({*items} - {*history}) < len(items):
            raise AssertionError(f"{variant.model} with beam {variant.beam} answered {answer} to {history}.")


def summarise(variants: list[Variant], seconds: np.ndarray) -> list[dict[str, Any]]:
    """Times of each variant, and ratios to CAR fast with 10 items and with as many items."""
    fast = {variant.top: i for i, variant in enumerate(variants) if variant.model == "CAR fast"}
    return [
        {
            "model": variant.model,
            "beam": variant.beam,
            "top": variant.top,
            "seconds": Range.of(seconds[:, i].tolist()),
            "ratio_to_fast_top_10": Range.of((seconds[:, i] / seconds[:, fast[TOP]]).tolist()),
            "ratio_to_fast_equal_top": Range.of((seconds[:, i] / seconds[:, fast[variant.top]]).tolist()),
        }
        for i, variant in enumerate(variants)
    ]


def tables(rows: list[InferenceRow]) -> list[Table]:
    """One table per kind of history, with both batch sizes side by side."""
    result = []
    for kind in dict.fromkeys(row.histories for row in rows):
        first = next(row for row in rows if row.histories == kind)
        columns = ["model", "beam", "k"]
        for batch in BATCHES:
            columns += [f"{name}, batch {batch}" for name in ("ms per history", "x CAR fast", "at equal k")]
        pairs = zip(
            *([row for row in rows if (row.histories, row.batch) == (kind, batch)] for batch in BATCHES),
            strict=True,
        )
        cells = []
        for pair in pairs:
            line = [pair[0].model, str(pair[0].beam or ""), str(pair[0].top)]
            for row in pair:
                line += [row.seconds.text(scale=1000), row.ratio_to_fast_top_10.text()]
                line.append(f"{row.ratio_to_fast_equal_top.median:.3g}")
            cells.append(line)
        title = (
            f"Inference on {first.dataset}, histories {kind} ({first.mean_history:.0f} items): "
            f"median (min-max) of {first.rounds} rounds"
        )
        result.append(Table(title, columns, cells))
    return result


if __name__ == "__main__":
    app()
