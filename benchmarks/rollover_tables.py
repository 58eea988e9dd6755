"""The table of rollovers."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.report.table import Sheet


def sheets(found: dict[str, Any]) -> list[Sheet]:
    """What was lost, and what a rollover costs those who ask meanwhile."""
    seconds = [one["seconds"] for one in found["rollovers"]]
    title = (
        f"{len(seconds)} rollovers under {found['clients']} clients, {found['items']:,} items: "
        f"{min(seconds):g} to {max(seconds):g} s each, median {np.median(seconds):.1f} s"
    )
    counts = [
        ["requests", f"{found['requests']:,}"],
        ["without an answer, or with an error", str(found["failed"])],
        ["answers that are no release's", str(found["mixed"])],
        ["answers of the old release after the switch was reported", str(found["late"])],
    ]
    times = [
        [name, f"{part['requests']:,}", *(f"{part[key]:.1f}" for key in ("p50_ms", "p99_ms", "max_ms"))]
        for name, part in (("during a rollover", found["during"]), ("between", found["outside"]))
    ]
    return [
        Sheet(title, ["", "number"], counts),
        Sheet("Latency (ms)", ["requests sent", "number", "p50", "p99", "longest"], times),
    ]
