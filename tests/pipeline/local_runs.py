"""Local runs of a tiny shop, as processes that a test may disturb."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from tests.pipeline.test_pipeline_run import PIPELINE, POLICY
from tests.pipeline.tiny_shop import write_shop


def prepare(workshop: Path) -> None:
    """Write what runs below the workshop read: a shop and a gate policy that lets it pass."""
    write_shop(workshop / "shop")
    (workshop / "policy.yaml").write_text(POLICY.format(name="finds something", bound=0.01))


def command(name: str) -> list[str]:
    """A run whose registry and server are those of its name, from a folder in the workshop."""
    words = "--data custom --data-dir ../shop --codebook-size 4 --levels 2 --epochs 2 --bootstrap"
    words += f" --gate-policy ../policy.yaml --registry ../registry-{name} --serving ../serving-{name}"
    recipe = shlex.split("--set d_model=16 --set n_layers=1 --set max_history=10 --set threads=1")
    return [sys.executable, str(PIPELINE), "run", *shlex.split(words), *recipe]


def start(workshop: Path, name: str, *options: str) -> subprocess.Popen[str]:
    """Start a run whose caches, too, are those of its name."""
    (workshop / name).mkdir(exist_ok=True)
    return subprocess.Popen(
        [*command(name), *options],
        cwd=workshop / name,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
