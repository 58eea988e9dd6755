"""docs/results.md, written from the measurements under benchmarks/results/.

python -m benchmarks.results
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.ablation import RESULTS, VARIANTS

PAGE = Path("docs/results.md")
HEAD = """# Results

Measured with `python -m benchmarks.ablation`, written by `python -m benchmarks.results`. Leave-one-out,
full ranking over the whole catalogue, history masked; mean ± standard deviation over seeds of the model
(the codebook is the same). Settings are chosen on the validation column; the test column is for the record.
Every variant differs from `car` or `sasrec` in the one setting it names. Seconds are of training, on a
machine that may have been busy with something else: read them as sizes, not as a comparison.
"""


def main() -> None:
    """Write the page."""
    sections = [_section(folder) for folder in sorted(RESULTS.glob("ablation-*"))]
    PAGE.write_text("\n".join([HEAD, *sections]))
    print(f"Wrote {PAGE}.")


def _section(folder: Path) -> str:
    runs = defaultdict(list)
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_text())
        runs[found["variant"]].append(found)
    machines = sorted({run["machine"] for found in runs.values() for run in found})
    ordered = [name for name in VARIANTS if name in runs]
    lines = [
        f"## {folder.name.removeprefix('ablation-')}\n",
        f"Machine: {'; '.join(machines)}.\n",
        "| variant | seeds | valid NDCG@10 | test Recall@10 | test NDCG@10 | seconds |",
        "|---|---:|---:|---:|---:|---:|",
        *(_row(name, runs[name]) for name in ordered),
    ]
    return "\n".join(lines) + "\n"


def _row(name: str, runs: list[dict[str, Any]]) -> str:
    valid = _spread([run["valid_ndcg@10"] for run in runs]) if runs[0]["epochs"] else ""
    recall, ndcg = (_spread([run["test"][metric] for run in runs]) for metric in ("recall@10", "ndcg@10"))
    return (
        f"| {name} | {len(runs)} | {valid} | {recall} | {ndcg} | {mean(run['seconds'] for run in runs):.0f} |"
    )


def _spread(values: list[float]) -> str:
    return f"{mean(values):.4f} ± {stdev(values) if len(values) > 1 else 0.0:.4f}"


if __name__ == "__main__":
    main()
