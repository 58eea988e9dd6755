"""Change the code in small ways, one at a time, and count how many changes the fast tests notice.

`make mutants ROOM=car_model/metrics` runs it. A mutant that survives is either equivalent to the code or
shows a behaviour that no fast test states. The checkout is never touched: mutants live in a temporary copy.
"""

from __future__ import annotations

import ast
import contextlib
import enum
import importlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "sklearn.cluster", "scipy.stats", "pandas", "pyarrow", "hypothesis.extra.numpy")
GOAL = 0.9
PATIENCE = 120.0  # seconds for tests; more, if they take more than a fifth of it without a mutant
SILENT_KEYWORDS = {"strict", "encoding", "description", "help", "use_attribute_docstrings"}
# fmt: off
COMPARISONS: dict[type[ast.cmpop], list[type[ast.cmpop]]] = {
    ast.Lt: [ast.LtE, ast.GtE], ast.LtE: [ast.Lt, ast.Gt], ast.Gt: [ast.GtE, ast.LtE],
    ast.GtE: [ast.Gt, ast.Lt], ast.Eq: [ast.NotEq], ast.NotEq: [ast.Eq], ast.In: [ast.NotIn],
    ast.NotIn: [ast.In], ast.Is: [ast.IsNot], ast.IsNot: [ast.Is],
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.MatMult: ast.Mult,
}
# fmt: on


@dataclass(frozen=True)
class Mutant:
    """One change of one expression or statement."""

    path: str
    line: int
    start: int  # offsets in the file, in bytes of UTF-8
    end: int
    text: str  # replaces what stands between the offsets

    def apply(self, source: bytes) -> bytes:
        """The file with the change."""
        return source[: self.start] + self.text.encode() + source[self.end :]

    def describe(self, source: bytes) -> str:
        """Place, code before and code after, on one line."""
        before = source[self.start : self.end].decode()
        show = " ".join
        return f"{self.path}:{self.line}: {show(before.split())} -> {show(self.text.split())}"


class Outcome(enum.StrEnum):
    """What the fast tests said of a mutant."""

    killed = "killed"
    survived = "survived"
    timeout = "time-out"


def find_mutants(path: str, source: bytes) -> list[Mutant]:
    """All changes of a file, in the order of the source."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    mutants = []
    for node, text in _changes(ast.parse(source)):
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        mutants.append(Mutant(path, node.lineno, start, end, text))
    return sorted(set(mutants), key=lambda mutant: (mutant.start, mutant.end, mutant.text))


def _changes(tree: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """Nodes of the tree and what to put in their place; annotations, docstrings and decorators stay."""
    for name, value in ast.iter_fields(tree):
        if name in {"annotation", "returns", "decorator_list", "bases"}:
            continue
        for node in value if isinstance(value, list) else [value]:
            if not isinstance(node, ast.AST) or isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom):
                continue  # offsets inside an f-string aren't those of the file
            if isinstance(node, ast.keyword) and node.arg in SILENT_KEYWORDS:
                continue
            if isinstance(node, ast.expr):
                yield from ((node, f"({text})") for text in _other_expressions(node))
                if name == "test" or (name == "ifs" and isinstance(tree, ast.comprehension)):
                    yield node, f"(not ({ast.unparse(node)}))"
            elif isinstance(node, ast.stmt):
                yield from ((node, text) for text in _other_statements(node))
            yield from _changes(node)


def _other_expressions(node: ast.expr) -> Iterator[str]:
    """Expressions that are almost this one."""
    match node:
        case ast.Compare(ops=[operator]):
            for other in COMPARISONS[type(operator)]:
                yield ast.unparse(ast.Compare(node.left, [other()], node.comparators))
        case ast.BinOp(left, operator, right) if type(operator) in ARITHMETIC and not _is_text(left, right):
            yield ast.unparse(ast.BinOp(left, ARITHMETIC[type(operator)](), right))
        case ast.BoolOp(values=values):
            yield ast.unparse(ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), values))
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert()):
            yield ast.unparse(node.operand)
        case ast.Constant(value=bool(value)):
            yield str(not value)
        case ast.Constant(value=int(value)):
            yield str(value + 1)
        case ast.Constant(value=float(value)):
            yield repr(value * 2 or 1.0)
        case ast.Call(func=function, args=arguments, keywords=keywords):
            for keyword in keywords:
                if keyword.arg not in SILENT_KEYWORDS:  # a correct call does the same without
                    rest = [other for other in keywords if other is not keyword]
                    yield ast.unparse(ast.Call(function, arguments, rest))


def _is_text(*operands: ast.expr) -> bool:
    """Whether one is written as text, for which every other operator is an error."""
    return any(
        isinstance(operand, ast.JoinedStr)
        or (isinstance(operand, ast.Constant) and isinstance(operand.value, str))
        for operand in operands
    )


def _other_statements(node: ast.stmt) -> Iterator[str]:
    """What to do instead of this statement."""
    match node:
        case ast.Expr(value=ast.Call()) | ast.Raise() | ast.AugAssign() | ast.Continue() | ast.Delete():
            yield "pass"
        case ast.Break():
            yield "continue"
        case ast.Return(value=value) if value and not (
            isinstance(value, ast.Constant) and value.value is None
        ):
            yield "return None"


def imports_module(test: Path, path: str) -> bool:
    """Whether a test file imports the module itself."""
    module = path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    package, _, name = module.rpartition(".")
    lines = rf"^\s*(from {module} import|import {module}\b|from {package} import .*\b{name}\b)"
    return re.search(lines, test.read_text(), re.MULTILINE) is not None


class Failures:
    """Pytest plugin: the tests that failed, one a line in a file."""

    def __init__(self, file: Path) -> None:
        """Write to this file."""
        self.file = file
        file.write_text("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test that failed."""
        if report.failed:
            with self.file.open("a") as stream:
                stream.write(f"{report.nodeid}\n")


class Bench:
    """A copy of the tree in which the fast tests run, each time in a process forked from this one."""

    def __init__(self, folder: Path, root: Path = ROOT) -> None:
        """Copy what git would commit, into a repository of its own."""
        self.folder = folder
        self.log = folder.parent / "log.txt"
        self.failures = folder.parent / "failures.txt"
        self.sound: set[str] = set()  # tests and files that pass without a mutant
        self.failing: set[str] = set()  # tests that don't, and prove nothing
        listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        for name in subprocess.check_output(listing, cwd=root).decode().split("\0"):
            if name and (root / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, folder / name)
        for command in (
            ["init", "--quiet"],
            ["add", "--all"],
        ):  # some tests ask git what the project's files are
            subprocess.run(["git", *command], cwd=folder, check=True)
        (folder / ".venv").symlink_to(ROOT / ".venv")
        self.clock = int(time.time())

    def test_mutant(self, mutant: Mutant) -> tuple[Outcome, float]:
        """Outcome and seconds: tests of the same name first, then those that import it, then the folder's."""
        place, source = Path(mutant.path), (self.folder / mutant.path).read_bytes()
        folder = self.folder / "tests" / place.parent
        package = sorted((self.folder / "tests" / place.parts[0]).rglob("test_*.py"))
        stages = (
            folder.glob(f"test_{place.stem}*.py"),
            (test for test in package if imports_module(test, mutant.path)),
            folder.glob("test_*.py"),
        )
        start, done = time.monotonic(), set[str]()
        for stage in stages:
            tests = sorted({str(test.relative_to(self.folder)) for test in stage} - done)
            done.update(tests)
            outcome = self._judge(mutant.path, mutant.apply(source), source, tests) if tests else None
            if outcome:
                return outcome, time.monotonic() - start
        return Outcome.survived, time.monotonic() - start

    def _judge(self, path: str, changed: bytes, source: bytes, tests: list[str]) -> Outcome | None:
        """What these tests say of a changed file; None if they pass, or fail without the change too."""
        limit = PATIENCE
        while True:
            self._write(path, changed)
            try:
                code = self._run(["-x", *(f"--deselect={test}" for test in self.failing), *tests], limit)
            finally:
                self._write(path, source)
            if code in {0, pytest.ExitCode.NO_TESTS_COLLECTED}:
                return None
            failed = self.failures.read_text().splitlines() if code == 1 else tests
            if code is None:  # endless, or only slow?
                start = time.monotonic()
                self._run(tests, 3600)
                needed = max(PATIENCE, 5 * (time.monotonic() - start))
                if limit >= needed:
                    return Outcome.timeout
                limit = needed
            elif self.sound.issuperset(failed) or self._run(failed, 3600) == 0:
                self.sound.update(failed)
                return Outcome.killed
            elif code == 1:
                self.failing.update(failed)
            else:
                print(self.log.read_text(errors="replace")[-3000:], file=sys.stderr)
                sys.exit(f"Without any mutant, these tests don't run: {' '.join(tests)}")

    def _write(self, path: str, source: bytes) -> None:
        """Write a file with a time of its own, so that no bytecode of another mutant fits it."""
        self.clock += 1
        (self.folder / path).write_bytes(source)
        os.utime(self.folder / path, (self.clock, self.clock))

    def _run(self, arguments: list[str], limit: float) -> int | None:
        """Exit code of pytest; None if it took longer than the limit."""
        if not (child := os.fork()):
            self._become_pytest(arguments)
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            finished, status = os.waitpid(child, os.WNOHANG)
            if finished:
                _kill_group(child)  # what a test left behind
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        _kill_group(child)
        os.waitpid(child, 0)
        return None

    def _become_pytest(self, arguments: list[str]) -> None:
        """Never returns: this process runs the tests in the copy and ends."""
        code = 3
        try:
            os.setsid()
            os.chdir(self.folder)
            sys.path[:] = [str(self.folder), *(path for path in sys.path if path not in {"", str(ROOT)})]
            os.environ["PYTHONPATH"] = str(self.folder)
            with self.log.open("wb") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            fixed = ["-q", "-m", "not integration", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
            code = int(pytest.main([*fixed, *arguments], plugins=[Failures(self.failures)]))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def _kill_group(child: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)


def main(
    rooms: Annotated[
        list[str], typer.Argument(help="Files or folders of the product, as car_model/metrics.")
    ],
    sample: Annotated[int, typer.Option(help="How many mutants to try in each; 0: all.")] = 25,
    seed: Annotated[int, typer.Option(help="Which ones: an equal seed chooses equal mutants.")] = 0,
) -> None:
    """Try a sample of the mutants of each room; exit code 1 if fewer than 90 % are noticed somewhere."""
    chosen: dict[str, list[Mutant]] = {}
    for room in rooms:
        files = sorted((ROOT / room).rglob("*.py")) if (ROOT / room).is_dir() else [ROOT / room]
        names = [str(file.relative_to(ROOT)) for file in files if file.is_file()]
        mutants = [mutant for name in names for mutant in find_mutants(name, (ROOT / name).read_bytes())]
        if not mutants:
            sys.exit(
                f"There is nothing to change in {room}: name a Python file, or a folder that holds some."
            )
        size = sample if 0 < sample < len(mutants) else len(mutants)
        numbers = sorted(random.Random(seed).sample(range(len(mutants)), size))  # noqa: S311
        chosen[room] = [mutants[number] for number in numbers]
        print(f"{size} of {len(mutants)} mutants of {room}, seed {seed}")
    os.environ["OMP_NUM_THREADS"] = "1"
    for module in HEAVY:
        importlib.import_module(module)  # once, instead of once a mutant
    scores = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        bench = Bench(Path(folder) / "tree")
        for room, mutants in chosen.items():
            counts = dict.fromkeys(Outcome, 0)
            for mutant in mutants:
                outcome, seconds = bench.test_mutant(mutant)
                counts[outcome] += 1
                change = mutant.describe((bench.folder / mutant.path).read_bytes())
                print(f"{outcome.value:9}{seconds:5.0f} s  {change}", flush=True)
            scores.append(1 - counts[Outcome.survived] / len(mutants))
            table = ", ".join(f"{outcome.value} {count}" for outcome, count in counts.items())
            print(f"{room}: {table}; score {scores[-1]:.0%}, goal {GOAL:.0%}", flush=True)
    sys.exit(min(scores) < GOAL)


if __name__ == "__main__":
    typer.run(main)
