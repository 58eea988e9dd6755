"""How much of a card's arithmetic training uses: model FLOPs utilisation (MFU) at a size that fills it.

Counted as usual (Chowdhery et al. 2022, PaLM, appendix B): 6 FLOPs a weight and token for the products of a
forward and a backward pass, plus attention's own; here also those of both heads. Lookups, norms, the
softmax and the optimiser count as time, not as work.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.machine import machine
from benchmarks.sheets import Sheet
from car_model.model import CAR, CARConfig
from car_model.training import autocast, device

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


def fill(sids: Tensor, codes: int, sizes: FillSizes | None = None) -> Sheet:
    """Train full histories of random items in bfloat16: rates, FLOP/s, and the share of the card's peak.

    Args:
        sids: [I + 1, L] codes by UID.

    Returns:
        a row as written and a row with its blocks compiled; the share is `unknown` on a processor whose peak
        is not in PEAK.
    """
    sizes = sizes or FillSizes()
    rows = [
        [name, *_row(sids, codes, sizes, compiled)]
        for name, compiled in (("eager", False), ("compiled", True))
    ]
    columns = [
        "blocks",
        "machine",
        "ms a step",
        "items a second",
        "TFLOP/s",
        "model FLOPs utilisation",
        "memory, GiB",
    ]
    title = (
        f"Training {sizes.layers} layers of width {sizes.width}, {sizes.batch * sizes.history} items a step"
    )
    return Sheet(title, columns, rows)


def _row(sids: Tensor, codes: int, sizes: FillSizes, compiled: bool) -> list[str]:
    where = device()
    config = CARConfig(
        *(len(sids) - 1, sids.shape[1], codes), *(sizes.width, sizes.layers, sizes.heads, sizes.history)
    )
    torch.manual_seed(0)
    model = CAR(config, sids).to(where).train()
    if compiled:
        for block in model.transformer.blocks:
            block.compile()
    seconds = _seconds_a_step(model, sizes)
    rate = step_flops(model, sizes) / seconds
    on_card = where.type == "cuda"
    name = torch.cuda.get_device_name() if on_card else ""
    peak = next((peak for card, peak in PEAK.items() if card in name), None)
    share = f"{rate / peak:.1%}" if peak else "unknown"
    held = f"{torch.cuda.max_memory_allocated() / 2**30:.1f}" if on_card else "unknown"
    items = sizes.batch * sizes.history
    return [machine(), f"{1000 * seconds:.0f}", f"{items / seconds:.0f}", f"{rate / 1e12:.2f}", share, held]


def step_flops(model: CAR, sizes: FillSizes) -> float:
    """FLOPs of one step over full histories: layers, causal attention, both heads."""
    config = model.config
    items = sizes.batch * sizes.history
    tokens, length = items * config.slots, sizes.history * config.slots
    matrices = sum(p.numel() for p in model.transformer.blocks.parameters() if p.dim() == 2)
    attention = 6 * config.layers * length * config.width  # two products over half of the positions, thrice
    heads = config.items + 1 + config.levels * config.codes
    return tokens * (6.0 * matrices + attention) + 6.0 * items * config.width * heads


def _seconds_a_step(model: CAR, sizes: FillSizes) -> float:
    """Mean over the steps after two that warm up."""
    where = next(model.parameters()).device
    made = torch.Generator().manual_seed(0)
    shape = (sizes.batch, sizes.history + 1)
    rows = torch.randint(1, model.config.items + 1, shape, generator=made).to(where)
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
