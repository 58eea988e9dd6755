"""How much of a card's arithmetic training uses: model FLOPs utilisation (MFU) at a size that fills it.

Counted as usual (Chowdhery et al. 2022, PaLM, appendix B): 6 FLOPs a weight and token for the products of a
forward and a backward pass, plus attention's own; here also those of both heads. Lookups, norms, the
softmax and the optimiser count as time, not as work.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.report.machine import machine
from benchmarks.report.table import Sheet
from car_model.models.car import CAR, CARConfig
from car_model.training.trainer import autocast, device

PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bfloat16 FLOP/s by NVIDIA's data sheets


@dataclass(frozen=True)
class FillSizes:
    """A model and batch large enough for a data-centre card."""

    width: int = 1024
    layers: int = 12
    heads: int = 16
    history: int = 200
    batch: int = 256
    steps: int = 10


FILLS = (FillSizes(), FillSizes(width=2048, layers=8, batch=128))


def fill(sids: Tensor, codes: int, every: Sequence[FillSizes] = FILLS) -> dict[str, Any]:
    """Train full histories of random items in bfloat16: rates, FLOP/s, and the share of the card's peak.

    Args:
        sids: [I + 1, L] codes by UID.

    Returns:
        the machine and, for every size, figures of the model as written and, on a GPU, with its blocks
        compiled; the share is None on a processor whose peak is not in PEAK.
    """
    ways = (False, True) if device().type == "cuda" else (False,)
    figures = [_figures(sids, codes, sizes, compiled) for sizes in every for compiled in ways]
    return {"machine": machine(), "figures": figures}


def sheets(found: dict[str, Any]) -> list[Sheet]:
    """One table of all sizes."""
    columns = ["layers x width, items a step", "blocks", "ms a step", "items a second", "TFLOP/s"]
    columns += ["model FLOPs utilisation", "memory, GiB"]
    rows = [
        [
            f"{row['layers']} x {row['width']}, {row['items']:,}",
            row["blocks"],
            f"{row['ms']:.0f}",
            f"{row['items_a_second']:,.0f}",
            f"{row['tflops']:.1f}",
            "unknown" if row["share"] is None else f"{row['share']:.1%}",
            "" if row["gib"] is None else f"{row['gib']:.1f}",
        ]
        for row in found["figures"]
    ]
    return [Sheet("Training in bfloat16 at sizes that fill a card", columns, rows)]


def _figures(sids: Tensor, codes: int, sizes: FillSizes, compiled: bool) -> dict[str, Any]:
    where = device()
    config = CARConfig(
        *(len(sids) - 1, sids.shape[1], codes), *(sizes.width, sizes.layers, sizes.heads, sizes.history)
    )
    torch.manual_seed(0)
    model = CAR(config, sids).to(where).train()
    if compiled:
        for block in model.transformer.blocks:
            block.compile()
    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = _seconds_a_step(model, sizes)
    rate, items = step_flops(model, sizes) / seconds, sizes.batch * sizes.history
    card = torch.cuda.get_device_name() if where.type == "cuda" else ""
    peak = next((peak for name, peak in PEAK.items() if name in card), None)
    return {
        **{"layers": sizes.layers, "width": sizes.width, "items": items},
        **{"blocks": "compiled" if compiled else "eager", "ms": 1000 * seconds},
        **{"items_a_second": items / seconds, "tflops": rate / 1e12},
        "share": rate / peak if peak else None,
        "gib": torch.cuda.max_memory_allocated() / 2**30 if where.type == "cuda" else None,
    }


def step_flops(model: CAR, sizes: FillSizes) -> float:
    """FLOPs of one step over full histories: layers, causal attention, both heads."""
    config = model.config
    items = sizes.batch * sizes.history
    tokens, length = items * config.slots, sizes.history * config.slots
    matrices = sum(p.numel() for p in model.transformer.blocks.parameters() if p.dim() == 2)
    attention = (
        6 * config.n_layers * length * config.d_model
    )  # two products over half of the positions, thrice
    heads = config.n_items + 1 + config.n_levels * config.codebook_size
    return tokens * (6.0 * matrices + attention) + 6.0 * items * config.d_model * heads


def _seconds_a_step(model: CAR, sizes: FillSizes) -> float:
    """Mean over the steps after two that warm up."""
    where = next(model.parameters()).device
    made = torch.Generator().manual_seed(0)
    shape = (sizes.batch, sizes.history + 1)
    rows = torch.randint(1, model.config.n_items + 1, shape, generator=made).to(where)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    start = 0.0
    for step in range(sizes.steps + 2):
        if step == 2:
            _wait(where)
            start = time.perf_counter()
        with autocast(where, "bfloat16"):
            loss = model.loss(rows[:, :-1], rows[:, 1:])["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    _wait(where)
    return (time.perf_counter() - start) / sizes.steps


def _wait(where: torch.device) -> None:
    if where.type == "cuda":
        torch.cuda.synchronize(where)
