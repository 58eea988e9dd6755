"""The Makefile in a checkout whose folder has any name, and in one that was moved."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["plain", "prö 'x' \"y\" #1 =%"])
def checkout(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder with the Makefile, and a stand-in for .venv that was installed there."""
    folder = tmp_path / request.param
    (folder / "requirements").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "pipeline.py", "requirements/run.lock"):
        shutil.copy(ROOT / name, folder / name)
    (folder / ".venv" / "bin").mkdir(parents=True)
    for program in ("python", "car"):
        path = folder / ".venv" / "bin" / program
        path.write_text('#!/bin/sh\nfor word; do printf "<%s>" "$word"; done; exit ${CODE:-0}\n')
        path.chmod(0o700)
    (folder / ".venv" / ".installed").write_text(f"{folder}\n")
    return folder


def make(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *words],
        cwd=folder,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_moved_checkout_is_installed_again(checkout: Path) -> None:
    assert "Nothing to be done" in make(checkout, "install").stdout
    moved = checkout.rename(checkout.with_name("moved 'ü'"))
    assert "pip sync" in make(moved, "-n", "install").stdout
    ended = make(moved, "install", PYTHON="false")
    assert f"this checkout was moved from {checkout}" in ended.stdout
    assert not (moved / ".venv").exists()


def test_the_data_folder_reaches_the_command_whole(checkout: Path) -> None:
    folder = '/data/it\'s "my" shöp #1 `x` \\ =:&;'
    ended = make(checkout, "run", "DATA=custom", f"DATA_DIR={folder}", "RUN=--epochs 1")
    assert f"<--data><custom><--data-dir><{folder}><--epochs><1>" in ended.stdout, ended.stderr


def test_the_commands_exit_code_is_printed(checkout: Path) -> None:
    for target in ("run", "run-containers"):
        ended = make(checkout, target, CODE="3")
        assert (ended.returncode, ended.stderr.count("Error")) == (2, 1)
        assert ended.stderr.rstrip().endswith("Error 3")
    assert "Error 1" in make(checkout, "stop", CODE="1").stderr


def test_stop_stops_every_home_and_works_before_an_installation(checkout: Path) -> None:
    assert make(checkout, "stop").stdout == "<pipeline.py><stop><--all>"
    shutil.rmtree(checkout / ".venv")
    assert make(checkout, "stop").returncode == 0
