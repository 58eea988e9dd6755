"""The process of a step: how it ends when the step fails, expected or not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestration import step_main
from orchestration.step import FAILURE_LINE

COMPONENT = """
from common.errors import UserError

def fit_all(how: str) -> None:
    print("fitting")
    if how == "expected":
        raise UserError("width 30 must be\\n a multiple of heads 4.")
    if how == "full":
        raise OSError(28, "No space left on device", "/cache/x")
    if how == "cancelled":
        raise SystemExit("cancelled")
    if how == "unexpected":
        {}["item_id"]
"""


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("expected", "width 30 must be a multiple of heads 4."),
        ("full", "There is no room for /cache/x (No space left on device): free some and run again."),
        ("cancelled", "cancelled"),
        ("unexpected", "KeyError: 'item_id'"),
        ("well", ""),
    ],
)
def test_a_failed_step_ends_with_one_line_in_its_log_and_in_its_pods_status(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    how: str,
    sentence: str,
) -> None:
    (tmp_path / "component.py").write_text(COMPONENT)
    termination_log = tmp_path / "termination-log"
    termination_log.touch()
    monkeypatch.setattr(step_main, "TERMINATION_LOG", termination_log)
    inputs = {"inputs": {"parameterValues": {"how": how}}, "outputs": {"outputFile": str(tmp_path / "out")}}
    words = ["--component_module_path", str(tmp_path / "component.py"), "--function_to_execute", "fit_all"]
    monkeypatch.setattr(
        "sys.argv", ["step_main", "kfp.dsl.executor_main", *words, "--executor_input", json.dumps(inputs)]
    )
    assert step_main.main() == (1 if sentence else 0)
    written = capsys.readouterr()
    assert "fitting" in written.out
    assert ("Traceback" in written.err) is (how == "unexpected")
    if not sentence:
        assert termination_log.read_text() == ""
        return
    last = written.err.splitlines()[-1]
    assert termination_log.read_text() == last == f"The step fit-all failed: {sentence}"
    match = FAILURE_LINE.search(last)
    assert match
    assert match["sentence"] == sentence
