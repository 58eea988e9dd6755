"""How often the gate's "beats popularity" blesses a model that is no better, and one that is.

    python -m benchmarks.gate_errors

Both models' ranks are random: "no better" draws them from one distribution, "better" divides ours by two.
Shares of simulated holdouts with a lower end above 0, by a percentile bootstrap and by the gate's intervals.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import typer

from car_model.metrics.ranking import difference, per_user

SAMPLES = 400
USERS = (1, 5, 20, 100, 200, 1000)
RANKS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "20 items": lambda rng, users: rng.integers(1, 21, users),
    "1,000 items": lambda rng, users: rng.integers(1, 1001, users),
    "9 of 10 users alike": lambda rng, users: np.where(rng.random(users) < 0.9, 3, 1000),
}


def percentile_low(differences: np.ndarray) -> float:
    """Lower end of a 95 % percentile bootstrap of the mean, 2,000 resamples."""
    values, counts = np.unique(differences, return_counts=True)
    users = len(differences)
    drawn = np.random.default_rng(0).multinomial(users, counts / users, 2000)
    return float(np.quantile(drawn @ values / users, 0.025))


def blessed(kind: str, users: int, advantage: int) -> tuple[float, float]:
    """Shares of samples that are blessed by the percentile bootstrap and by the gate's interval."""
    rng, before, after = np.random.default_rng(users), 0, 0
    for _ in range(SAMPLES):
        drawn = [RANKS[kind](rng, users).astype(float) for _ in range(2)]
        ours, theirs = (per_user(ranks)["ndcg@10"] for ranks in (np.ceil(drawn[0] / advantage), drawn[1]))
        before += percentile_low(ours - theirs) > 0
        after += (difference(ours, theirs).low or 0) > 0
    return before / SAMPLES, after / SAMPLES


def main() -> None:
    """Print a Markdown table."""
    print("| ranks among | challenger |" + "".join(f" {users:,} |" for users in USERS))
    print("|---|---|" + "---:|" * len(USERS))
    for kind in RANKS:
        for name, advantage in (("no better", 1), ("better", 2)):
            cells = [blessed(kind, users, advantage) for users in USERS]
            print(
                f"| {kind} | {name} |" + "".join(f" {old:.1%} / {new:.1%} |" for old, new in cells),
                flush=True,
            )


if __name__ == "__main__":
    typer.run(main)
