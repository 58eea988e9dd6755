"""Our residual k-means against faiss's: time to fit and encode, error, memory; one table.

    python -m benchmarks.codebook_speed
    python -m benchmarks.codebook_speed --items 12000 --seeds 5

Four levels of 256 codes on made vectors [items, 768] float32 that look like a sentence encoder's: 400 topics
of uneven size (Dirichlet), each item its topic's centre plus as much noise of its own, variance falling as
rank ** -0.8 along random axes, and unit length. Everything runs on one thread in this process, so seconds are
those of the processor and other processes matter little. The error is the share of the variance left after
level 4, the mean over seeds.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import faiss
import numpy as np
import typer
from rich.progress import track
from threadpoolctl import threadpool_limits

from benchmarks.machine import machine
from benchmarks.sheets import Sheet
from car_model.codebook.residual_kmeans import CodebookConfig, fit
from car_model.encoding.encoder import EncoderSpec

DIM, LEVELS, CODES, TOPICS, FALL = 768, 4, 256, 400, 0.8
ALL_AXES = 10_000
OURS = "ours, all axes"
app = typer.Typer(add_completion=False)

Encode = Callable[[np.ndarray], np.ndarray]  # vectors [N, DIM] to codes
Decode = Callable[[np.ndarray], np.ndarray]  # and codes to vectors again


@app.command()
def main(items: str = "12000,200000", seeds: int = 3, methods: str = "") -> None:
    """Measure, print, and write benchmarks/results/speed/codebook.json.

    Args:
        items: sizes, by comma; those beyond 20,000 are measured with one seed.
        methods: names of the table's rows to measure, by semicolon; all if empty.
    """
    faiss.omp_set_num_threads(1)
    rows = []
    with threadpool_limits(limits=1):
        for size in map(int, items.split(",")):
            rows += _compare(size, seeds if size <= 20_000 else 1, methods.split(";") if methods else [])
    found = {"machine": machine(), "faiss": faiss.__version__, "dim": DIM, "levels": LEVELS, "codes": CODES}
    path = Path("benchmarks/results/speed/codebook.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {**found, "rows": rows}
    path.write_text(json.dumps(whole, indent=1, sort_keys=True) + "\n")
    for sheet in sheets(whole):
        sheet.print()


def vectors_like_text(items: int, seed: int = 0) -> np.ndarray:
    """Made vectors float32 [items, DIM]; how, says the module."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(DIM, DIM)).astype(np.float32))[0]
    centres = rng.standard_normal((TOPICS, DIM), dtype=np.float32)
    topic = rng.choice(TOPICS, size=items, p=rng.dirichlet(np.ones(TOPICS)))
    rows = centres[topic] + rng.standard_normal((items, DIM), dtype=np.float32)
    rows = (rows * np.arange(1, DIM + 1, dtype=np.float32) ** (-FALL / 2)) @ turn
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def ours(vectors: np.ndarray, seed: int, axes: int) -> tuple[Encode, Decode]:
    """The project's codebook."""
    book = fit(vectors, EncoderSpec(), "", CodebookConfig(LEVELS, CODES, seed, axes))

    def decode(sids: np.ndarray) -> np.ndarray:
        picked = sum(book.centroids[level][sids[:, level]] for level in range(LEVELS))
        return picked @ book.axes[: picked.shape[1]] + book.mean  # the rest are for likeness

    return book.encode, decode


def faiss_residual(vectors: np.ndarray, seed: int, beam: int) -> tuple[Encode, Decode]:
    """faiss's ResidualQuantizer, all else at its defaults."""
    quantizer = faiss.ResidualQuantizer(DIM, LEVELS, int(np.log2(CODES)))
    quantizer.max_beam_size, quantizer.cp.seed = beam, seed
    quantizer.train(vectors)
    return quantizer.compute_codes, quantizer.decode


def faiss_kmeans(vectors: np.ndarray, seed: int, starts: int) -> tuple[Encode, Decode]:
    """faiss's k-means level by level on residuals, all else at its defaults."""
    rest, levels = vectors.copy(), []
    for level in range(LEVELS):
        fitted: Any = faiss.Kmeans(DIM, CODES, nredo=starts, seed=seed + level)
        fitted.train(rest)
        levels.append((fitted.index, fitted.centroids))
        rest -= fitted.centroids[fitted.index.search(rest, 1)[1][:, 0]]

    def encode(block: np.ndarray) -> np.ndarray:
        rest, codes = block.copy(), []
        for index, centroids in levels:
            codes.append(index.search(rest, 1)[1][:, 0])
            rest -= centroids[codes[-1]]
        return np.stack(codes, axis=1)

    def decode(codes: np.ndarray) -> np.ndarray:
        return np.sum([centroids[codes[:, at]] for at, (_, centroids) in enumerate(levels)], axis=0)

    return encode, decode


METHODS: dict[str, Callable[[np.ndarray, int], tuple[Encode, Decode]]] = {
    OURS: partial(ours, axes=ALL_AXES),
    "faiss ResidualQuantizer, beam 1": partial(faiss_residual, beam=1),
    "faiss ResidualQuantizer, beam 5 (default)": partial(faiss_residual, beam=5),
    "faiss Kmeans by level (default)": partial(faiss_kmeans, starts=1),
    "faiss Kmeans by level, nredo 4": partial(faiss_kmeans, starts=4),
    "ours, 32 axes (default)": partial(ours, axes=32),
}


@dataclass(frozen=True)
class Measured:
    """Of one fit: processor seconds, share of the variance left, and MiB held at once while encoding."""

    fit: float
    encode: float
    error: float
    memory: float


def _compare(items: int, seeds: int, methods: list[str]) -> list[dict[str, Any]]:
    vectors = vectors_like_text(items)
    runs = [(name, seed) for name in methods or METHODS for seed in range(seeds)]
    found: dict[str, list[Measured]] = {}
    for name, seed in track(runs, description=f"{items} vectors"):
        found.setdefault(name, []).append(_measure(vectors, METHODS[name], seed))
    rows = []
    for name, measured in found.items():
        parts = {part: mean(getattr(run, part) for run in measured) for part in Measured.__annotations__}
        rows.append({"items": items, "method": name, **parts, "errors": [run.error for run in measured]})
    return rows


def _measure(vectors: np.ndarray, method: Callable[..., tuple[Encode, Decode]], seed: int) -> Measured:
    start = time.process_time()
    encode, decode = method(vectors, seed)
    fitted = time.process_time()
    before = _peak_reset()
    encoding = time.process_time()
    codes = encode(vectors)
    encoded = time.process_time()
    memory = _peak() - before
    centre, left, total = vectors.mean(axis=0, dtype=np.float64), 0.0, 0.0
    for at in range(0, len(vectors), 4096):
        block = vectors[at : at + 4096].astype(np.float64)
        left += float(((block - decode(codes[at : at + 4096])) ** 2).sum())
        total += float(((block - centre) ** 2).sum())
    return Measured(fitted - start, encoded - encoding, left / total, memory)


def _peak_reset() -> float:
    """Forget the most memory held so far (Linux); MiB held now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> float:
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else float("nan")


def sheets(found: dict[str, Any]) -> list[Sheet]:
    """One table: seconds, error and memory, with ratios to ours on as many vectors."""
    columns = ["method", "vectors", "fit s", "encode s", "not explained", "MiB encoding"]
    base = {row["items"]: row for row in found["rows"] if row["method"] == OURS}
    rows = []
    for row in found["rows"]:
        against = base.get(row["items"], row)
        timed = (f"{row[part]:.2f} ({row[part] / against[part]:.2f} x)" for part in ("fit", "encode"))
        error = f"{row['error']:.2%} ({row['error'] / against['error']:.3f} x)"
        rows.append([row["method"], f"{row['items']:,}", *timed, error, f"{row['memory']:.0f}"])
    sizes = f"{found['levels']} levels of {found['codes']} codes, {found['dim']} dimensions"
    return [Sheet(f"{sizes}; x is against ours with all axes; faiss {found['faiss']}", columns, rows)]


if __name__ == "__main__":
    app()
