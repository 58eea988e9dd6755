"""Mutants are small, sound changes of the code; the bench tells the noticed from the unnoticed."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

from scripts.mutants import Bench, Outcome, find_mutants

CODE = '''"""Docs with ü: 1 < 2."""
from dataclasses import dataclass

@dataclass(frozen=True)
class Bound:
    limit: "int | None" = 3

def check(values: list[int], strict: bool = False) -> bool:
    """One, two."""
    if not values and strict:
        raise ValueError(f"none of {1 + 1}")
    text = "ü" + str(len(values) * 2)
    print(text, end="")
    return all(value <= 3 for value in sorted(values, reverse=True) if value > 0)
'''.encode()


def changes(source: bytes) -> set[str]:
    return {mutant.describe(source).split(": ", 1)[1] for mutant in find_mutants("a.py", source)}


def test_each_kind_of_mistake_is_made_in_its_place() -> None:
    assert {
        "3 -> (4)",
        "False -> (True)",
        "not values -> (values)",
        "not values and strict -> (not values or strict)",
        "not values and strict -> (not (not values and strict))",
        'raise ValueError(f"none of {1 + 1}") -> pass',
        "len(values) * 2 -> (len(values) / 2)",
        'print(text, end="") -> pass',
        "value <= 3 -> (value < 3)",
        "value <= 3 -> (value > 3)",
        "value > 0 -> (not (value > 0))",
        "sorted(values, reverse=True) -> (sorted(values))",
    } <= changes(CODE)


def test_text_types_decorators_and_fstrings_stay() -> None:
    assert not any("Docs" in change or "1 + 1 ->" in change or "frozen" in change for change in changes(CODE))
    assert not any("int" in change.split(" -> ")[0] and "|" in change for change in changes(CODE))


def test_every_mutant_is_another_program() -> None:
    mutants = find_mutants("a.py", CODE)
    programs = {ast.dump(ast.parse(mutant.apply(CODE))) for mutant in mutants}
    assert len(programs) == len(mutants)
    assert ast.dump(ast.parse(CODE)) not in programs


@pytest.mark.integration
def test_noticed_unnoticed_and_endless_mutants_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    (project / "tests" / "shop").mkdir(parents=True)
    (project / "shop").mkdir()
    (project / "pyproject.toml").write_text("[tool.pytest.ini_options]\nmarkers = ['integration: slow']\n")
    code = b"def count(n):\n    while n > 9:\n        n -= 1\n    return n, 1 + 1\n"
    (project / "shop" / "till.py").write_bytes(code)
    (project / "tests" / "shop" / "test_till.py").write_text(
        "import shop.till as till\n\ndef test_it():\n    assert till.count(12)[0] == 9\n\n"
        "def test_known_to_fail():\n    assert False\n"
    )
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    bench = Bench(tmp_path / "copy", project)
    failing = {"tests/shop/test_till.py::test_known_to_fail"}
    monkeypatch.setattr("scripts.mutants.PATIENCE", 10)
    outcomes = {
        mutant.describe(code).split(": ", 1)[1]: bench.test_mutant(mutant)[0]
        for mutant in find_mutants("shop/till.py", code)
    }
    assert outcomes["n > 9 -> (n >= 9)"] == Outcome.killed
    assert outcomes["n -= 1 -> pass"] == Outcome.timeout
    assert outcomes["1 + 1 -> (1 - 1)"] == Outcome.survived
    assert bench.failing == failing
    assert (project / "shop" / "till.py").read_bytes() == code
