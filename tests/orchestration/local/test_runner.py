"""A local run: what is shown, what is logged, what is cached, and how it ends when a step does not."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from common.code_digest import ROOT, code_digest, image_digest
from common.errors import UserError
from orchestration.local.runner import ENDED_WITHOUT, SILENT, LocalRun, StepError, count_steps, last_error
from orchestration.local.runs import clean, find_runs, old_runs
from tests.orchestration.local.tiny_pipelines import branching, tiny

TRACE = ["Traceback (most recent call last):", '  File "x.py", line 1, in x', "    x()"]


def test_the_last_error_is_what_the_step_said_in_the_end() -> None:
    lines = [
        "noise",
        *TRACE,
        "KeyError: 'x'",
        " 40%|####  The step tokenize failed: orders.csv is empty.",
        "",
    ]
    assert last_error(lines) == "orders.csv is empty."


def test_a_step_that_could_not_start_is_quoted() -> None:
    assert last_error([*TRACE, "ModuleNotFoundError: No module named 'orchestration'", ""]) == (
        "ModuleNotFoundError: No module named 'orchestration'"
    )


@pytest.mark.parametrize("lines", [[], ["Killed"]])
def test_a_step_that_says_nothing_is_said_to_have_said_nothing(lines: list[str]) -> None:
    assert last_error(lines) == SILENT


def test_the_code_digest_changes_with_the_code_and_the_lock_but_not_with_tests(tmp_path: Path) -> None:
    (tmp_path / "registry" / "channels").mkdir(parents=True)
    (tmp_path / "requirements").mkdir()
    seen = {code_digest(tmp_path)}
    for name in ("registry/channels/log.py", "registry/page.html", "requirements/run.lock"):
        (tmp_path / name).write_text("1")
        seen.add(code_digest(tmp_path))
    assert len(seen) == 4
    for name in ("registry/log.pyc", "README.md"):
        (tmp_path / name).write_text("1")
    assert code_digest(tmp_path) in seen


def test_the_image_counts_the_components_too(tmp_path: Path) -> None:
    (tmp_path / "components").mkdir()
    before = code_digest(tmp_path), image_digest(tmp_path)
    (tmp_path / "components" / "delivery.py").write_text("1")
    assert (code_digest(tmp_path), image_digest(tmp_path)) != before
    assert code_digest(tmp_path) == before[0]


def test_the_digest_that_labels_an_image_needs_nothing_installed() -> None:
    bare = [sys.executable, "-S", "-E", "-m", "common.code_digest"]
    result = subprocess.run(bare, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == image_digest()


def test_what_the_runner_says_counts_where_the_step_said_nothing() -> None:
    line = f"{ENDED_WITHOUT}its container needed more memory than it may have."
    assert last_error(["noise", line]) == "its container needed more memory than it may have."
    assert last_error(["The step train failed: codes is 1.", line]) == "codes is 1."


def test_steps_behind_conditions_are_counted(tmp_path: Path) -> None:
    assert count_steps(yaml.safe_load(LocalRun.prepare(tmp_path, tiny).ir.read_text())) == 2


def test_of_two_branches_a_run_has_one(tmp_path: Path) -> None:
    spec = yaml.safe_load(LocalRun.prepare(tmp_path, branching).ir.read_text())
    assert count_steps(spec) == 3


def test_the_cache_is_of_this_code_alone(tmp_path: Path) -> None:
    assert LocalRun.prepare(tmp_path, tiny).cache == tmp_path / "cache" / code_digest()


pipeline_run = pytest.mark.integration


@pipeline_run
def test_a_run_shows_a_line_a_step_and_logs_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    before = (sys.stdout, root.level, list(root.handlers), list(root.filters), dict(os.environ))
    local = LocalRun.prepare(tmp_path, tiny)
    outputs = local.run({"loops": 5})
    assert Path(outputs["Output"].path).read_text() == "5"
    shown = capsys.readouterr()
    first, second = shown.out.splitlines()
    assert first.startswith("[ 1/2] work ......")
    assert second.startswith("[ 2/2] end ......")
    assert first.endswith(" s")
    assert shown.err == ""
    log = local.log.read_text()
    for written in (f"done [all] of it with {ROOT}/registry/", "about to end", "5/5", "memory_limit"):
        assert written in log
    assert (sys.stdout, root.level, list(root.handlers), list(root.filters), dict(os.environ)) == before


@pipeline_run
def test_steps_run_with_this_python_wherever_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = tmp_path / "prö 'x' $HOME; exit 1 #"
    environment.symlink_to(Path(sys.prefix), target_is_directory=True)
    python = environment / "bin" / "python3"
    monkeypatch.setattr(sys, "executable", str(python))
    outputs = LocalRun.prepare(tmp_path / "a b", tiny).run({"loops": 5})
    assert Path(outputs["Output"].path).read_text() == "5"
    assert sys.executable == str(python)


@pipeline_run
def test_an_equal_step_is_not_run_again_and_another_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = []
    for loops, expected in ((2, " s"), (2, "cached"), (3, " s")):
        local = LocalRun.prepare(tmp_path, tiny)
        artifact = local.run({"loops": loops})["Output"]
        assert capsys.readouterr().out.splitlines()[0].endswith(expected)
        assert Path(artifact.path).read_text() == str(loops)
        folders.append(local.folder)
    borrowing = old_runs(tmp_path, 2, code_digest())  # the second run took its output from the first
    assert (borrowing.folders, borrowing.needed, borrowing.remaining) == ((), 1, 3)
    assert clean(tmp_path, 1, code_digest()).folders == (folders[1], folders[0])
    assert [run.path for run in find_runs(tmp_path)] == [folders[2]]


@pipeline_run
def test_steps_behind_a_false_condition_do_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    LocalRun.prepare(tmp_path, tiny).run({"loops": 1})
    assert len(capsys.readouterr().out.splitlines()) == 1


@pipeline_run
@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("raised", "orders.csv: column 'stars' is wrong; correct it."),
        ("unexpected", "KeyError: 'the first'"),
        ("killed", SILENT),
    ],
)
def test_the_first_failure_ends_the_run_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str, sentence: str
) -> None:
    local = LocalRun.prepare(tmp_path, tiny)
    with pytest.raises(StepError) as caught:  # and not after three retries a minute apart
        local.run({"how": how})
    assert caught.value.step == "end"
    assert str(caught.value) == f"The step end failed: {sentence}\nEverything it wrote: {local.log}"
    assert capsys.readouterr().out.splitlines()[-1] == "[ 2/2] end .......................   failed"
    log = local.log.read_text()
    assert "about to end" in log
    assert ("Traceback" in log) is (how == "unexpected")  # an expected error is its sentence alone


def test_a_temporary_folder_that_steps_cannot_use_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for folder, reason in (("missing", "No such file or directory"), ("file", "Not a directory")):
        monkeypatch.setenv("TMPDIR", str(tmp_path / folder))
        with pytest.raises(UserError) as refused:
            LocalRun.prepare(tmp_path, tiny)
        assert str(refused.value) == (
            f"Steps cannot write to their temporary folder {tmp_path / folder} ({reason}): create it or make "
            "room, or set TMPDIR to another."
        )
    monkeypatch.setenv("TMPDIR", "/dev/full")
    with pytest.raises(UserError, match="temporary folder /dev/full"):
        LocalRun.prepare(tmp_path, tiny)
