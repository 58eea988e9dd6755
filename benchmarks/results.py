"""docs/results.md and its pictures, written from the measurements under benchmarks/results/.

python -m benchmarks.results
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from benchmarks.accuracy import RESULTS
from benchmarks.models.variants import ROWS
from benchmarks.report import ranking_tables
from benchmarks.report.pictures import ablation_bars, sid_bits
from benchmarks.report.statistics import METRICS, best_valid, compared, spread
from benchmarks.speed_tables import speed_sections

PAGE = Path("docs/results.md")
RANKINGS = ranking_tables.RESULTS
NOTES = Path("benchmarks/notes")
BASELINES = ("popularity", "sasrec", "sasrec-rotary", "tiger", "ar", "tiger-wide", "ar-wide")
COMPARED = ("car", "car-rotary", "car-text-likeness")  # with every other row
Runs = dict[str, list[dict[str, Any]]]


def main() -> None:
    """Write the page and its pictures."""
    parts = [(NOTES / "head.md").read_text()]
    for folder in sorted(RESULTS.iterdir()):
        rows, trials = read_runs(folder)
        parts += _accuracy_section(folder.name, rows, trials)
    parts += ranking_section()
    parts += speed_sections()
    PAGE.write_text("\n".join(part.rstrip() + "\n" for part in parts))
    print(f"Wrote {PAGE}.")


def ranking_section() -> list[str]:
    """Rankers by action, data set by data set; nothing where none was trained."""
    folders = sorted(RANKINGS.iterdir()) if RANKINGS.is_dir() else []
    parts: list[str] = []
    for folder in folders:
        machines = sorted({json.loads(path.read_text())["machine"] for path in folder.glob("*.json")})
        parts += [f"## Ranking by action, {folder.name}\n"]
        parts += [f"`python -m benchmarks.ranking --data PATH` on: {'; '.join(machines)}.\n"]
        parts += [sheet.markdown() for sheet in ranking_tables.sheets(folder)]
        note = NOTES / f"ranking-{folder.name}.md"
        parts += [note.read_text()] if note.is_file() else []
    return parts


def read_runs(folder: Path) -> tuple[Runs, Runs]:
    """Runs of rows, in the table's order, and of trials of other settings, each list by seed."""
    rows: Runs = defaultdict(list)
    trials: Runs = defaultdict(list)
    for path in sorted(folder.glob("*.json")):
        run = json.loads(path.read_text())
        if run["trial"]:
            label = ", ".join(
                [ROWS[run["row"]].title, *(f"{name} {value}" for name, value in run["trial"].items())]
            )
            trials[label].append(run)
        else:
            rows[run["row"]].append(run)
    return {name: rows[name] for name in ROWS if name in rows}, dict(sorted(trials.items()))


def _accuracy_section(name: str, rows: Runs, trials: Runs) -> list[str]:
    machines = sorted({run["machine"] for runs in (*rows.values(), *trials.values()) for run in runs})
    parts = [f"## {_title(name)}\n", f"Machine: {'; '.join(machines)}.\n"]
    rival = _best_baseline(rows)
    if rows:
        parts.append(_table({ROWS[row].title: runs for row, runs in rows.items()}))
    if rival:
        parts += [_comparison(rows, rival, ours) for ours in COMPARED if ours in rows]
    note = NOTES / f"{name}.md"
    if note.is_file():
        parts.append(note.read_text())
    for picture in (ablation_bars(name, rows), sid_bits(name, rows)):
        if picture:
            parts.append(f"![{picture.stem}](images/{picture.name})\n")
    if trials:
        parts += ["### Trials of other settings, on validation alone\n", _trials(trials)]
    return parts


def _title(name: str) -> str:
    data, _, order = name.rpartition("-")
    return f"{data}, ties {'as stored' if order == 'stored' else 'shuffled'}"


def _best_baseline(rows: Runs) -> str | None:
    """The baseline that is best on validation; popularity has none and only counts where it is alone."""
    there = [name for name in BASELINES if name in rows]
    return max(there, key=lambda name: mean(best_valid(run) for run in rows[name])) if there else None


def _table(rows: Runs) -> str:
    names = [
        "row",
        "seeds",
        "valid NDCG@10",
        *(metric.replace("recall", "Recall").replace("ndcg", "NDCG") for metric in METRICS),
    ]
    lines = [
        f"| {' | '.join([*names, 'think scale', 'likeness', 'weights', 'dropout', 'epochs', 'seconds'])} |",
        f"|---|{'---:|' * (len(names) + 5)}",
    ]
    for title, runs in rows.items():
        cells = [
            str(len(runs)),
            spread([best_valid(run) for run in runs]) if runs[0]["valid_ndcg@10"] else "",
        ]
        cells += [spread([run["test"][metric] for run in runs]) for metric in METRICS]
        cells += [", ".join(f"{run['think_scale']:g}" for run in runs) if "car" in runs[0]["row"] else ""]
        like = [run.get("likeness_scale", 0) for run in runs] if ROWS[runs[0]["row"]].likeness else []
        cells += [", ".join(f"{scale:g}" for scale in like)]
        cells += [f"{runs[0]['parameters'] / 1e6:.2f} M" if runs[0]["parameters"] else ""]
        cells += [", ".join(sorted({f"{run['settings']['dropout']:g}" for run in runs if run["parameters"]}))]
        cells += [
            ", ".join(str(len(run["valid_ndcg@10"])) for run in runs),
            f"{mean(run['seconds'] for run in runs):.0f}",
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _trials(trials: Runs) -> str:
    lines = ["| trial | seeds | valid NDCG@10 | best epoch | seconds |", "|---|---|---:|---:|---:|"]
    for title, runs in trials.items():
        best = [1 + int(np.argmax(run["valid_ndcg@10"])) for run in runs]
        cells = [", ".join(str(run["seed"]) for run in runs), spread([best_valid(run) for run in runs])]
        cells += [", ".join(map(str, best)), f"{mean(run['seconds'] for run in runs):.0f}"]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _comparison(rows: Runs, rival: str, ours: str) -> str:
    """A row against the best baseline and all others, user by user."""
    title = ROWS[ours].title
    lines = [
        f"{title}, against others, user by user over the mean of the seeds each has. The 95 % intervals are "
        f"over users and know nothing of the spread between seeds. Best baseline: {ROWS[rival].title}.\n"
    ]
    lines += [f"| {title}, against | Recall@10 | NDCG@10 |", "|---|---:|---:|"]
    ranks = [run["ranks"] for run in rows[ours]]
    for name, runs in rows.items():
        if name == ours:
            continue
        cells = []
        for metric in ("recall@10", "ndcg@10"):
            difference, low, high = compared(ranks, [run["ranks"] for run in runs], metric)
            cells.append(f"{difference:+.1%} [{low:+.1%}, {high:+.1%}]")
        lines.append(f"| {ROWS[name].title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
