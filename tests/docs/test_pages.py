"""What the pages promise is there: commands and their options, files, links, examples, tests and names."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import itertools
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from car_model.recommender.request import Request
from car_model.training.recipe import setting_descriptions
from ingestion.config import parse_config
from orchestration.kubeflow.cluster import Cluster
from pipeline import app
from tests.docs.pages import (
    PAGES,
    PROGRAMS,
    ROOT,
    Command,
    anchors,
    blocks,
    commands,
    inline_code,
    links,
    name_of,
)
from validation.data.policy import DataPolicy
from validation.gate.policy import parse_policy

MAKEFILE = (ROOT / "Makefile").read_text()
CLI = typer.main.get_command(app)
TRACKED = subprocess.run(
    ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
).stdout.splitlines()
TOP_FOLDERS = {Path(path).parts[0] for path in TRACKED if "/" in path}
GENERATED = {"docs/reference", "docs/schemas"}
HISTORY = {ROOT / "CHANGELOG.md", ROOT / "docs" / "decisions.md"}  # they name what is gone, too
by_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


@functools.cache
def code_text() -> str:
    """All tracked code and settings as one text."""
    suffixes = {".py", ".yaml", ".json", ".toml", ".html", ".xml", ".in", ".md", ""}
    paths = [ROOT / path for path in TRACKED if not path.startswith(("docs/", "benchmarks/results/"))]
    named = [path for path in paths if path.suffix in suffixes and path not in PAGES and path.is_file()]
    return "\n".join(path.read_text(encoding="utf-8", errors="ignore") for path in named)


@by_page
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in links(page):
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), link
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), link


@by_page
def test_every_command_exists_with_its_options(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAR_REGISTRY", "registry")  # no run has made a home here
    for command in commands(page):
        program, *arguments = command.words
        assert program in PROGRAMS, f"{command}: an unknown program; add it here, with a check"
        match program:
            case "make":
                check_make(command, arguments)
            case "car":
                check_car(command, arguments)
            case "python" if arguments[0] == "-m":
                check_module(command, arguments[1], arguments[2:])
            case "pip":
                for extra in re.findall(r"\.\[([\w,]+)\]", " ".join(arguments)):
                    assert (ROOT / "requirements" / f"{extra}.in").is_file(), command
            case "kubectl" | "promtool":
                for word in arguments:
                    assert word.split("/")[0] not in TOP_FOLDERS or (ROOT / word).exists(), command


def check_make(command: Command, arguments: list[str]) -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    variables = set(re.findall(r"^(\w+) \?=", MAKEFILE, re.MULTILINE))
    for word in arguments:
        variable, is_variable, _ = word.partition("=")
        assert (variable in variables) if is_variable else (word in targets), f"{command}: no {word}"


def check_car(command: Command, arguments: list[str]) -> None:
    """Parse the command without running it; inline code may leave out what is required."""
    if arguments[0] in ("--help", "--version", "--install-completion"):
        return
    if arguments[0] == "--home":
        arguments = arguments[2:]
    node: Any = CLI
    path = ["car"]
    while hasattr(node, "commands"):
        if not arguments and not command.whole:
            return  # a group, such as `car registry`
        name = arguments.pop(0)
        assert name in node.commands, f"{command}: {' '.join(path)} has no {name}"
        node, path = node.commands[name], [*path, name]
    if command.whole:
        node.make_context(" ".join(path), list(arguments))  # raises if an option or a value is wrong
    options = {option for parameter in node.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in arguments:
        assert not word.startswith("--") or word in options, f"{command}: no {word}"
    for option, value in itertools.pairwise(arguments):
        if option == "--set":
            name, equals, _ = value.partition("=")
            assert name in setting_descriptions(), f"{command}: no setting {name}"
            assert equals, f"{command}: {value} gives no value"


def check_module(command: Command, module: str, arguments: list[str]) -> None:
    """Options of modules are looked up in their source: argparse's literals, or typer's parameters."""
    spec = importlib.util.find_spec(module)
    assert spec, f"{command}: there is no {module}"
    if spec.submodule_search_locations:
        spec = importlib.util.find_spec(f"{module}.__main__")
        assert spec, f"{command}: {module} can't be run"
    source = Path(spec.origin or "").read_text()
    for word in arguments:
        if word.startswith("--"):
            parameter = word[2:].replace("-", "_")
            assert f'"{word}"' in source or re.search(rf"\b{parameter}: ", source), f"{command}: no {word}"


@by_page
def test_every_json_and_yaml_example_is_valid(page: Path) -> None:
    for language, text in blocks(page):
        if language == "json":
            check_json(text, name_of(page))
        elif language == "yaml":
            settings = yaml.safe_load(text)
            if "earliest" in settings:
                DataPolicy.model_validate_json(json.dumps(settings, default=str))
            elif "conditions" in settings:
                parse_policy(text)
            elif "scrape_configs" not in settings:  # Prometheus' own
                Cluster.model_validate(settings)


def check_json(text: str, page: str) -> None:
    value = json.loads(text if text.lstrip().startswith("{") else f"{{{text}}}")
    if "history" in value:
        Request.model_validate(value)
    elif "interactions" in value:
        parse_config(text, page)
    elif "engine" in value:  # a part of a dataset.json
        example = json.loads((ROOT / "tests" / "ingestion" / "example" / "dataset.json").read_text())
        parse_config(json.dumps(example | value), page)
    else:
        raise AssertionError(f"{page} shows JSON that no model here describes: {text}")


@by_page
def test_every_python_example_imports_what_exists(page: Path) -> None:
    for language, text in blocks(page):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module or "")
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"


@by_page
def test_every_file_named_exists(page: Path) -> None:
    for code in inline_code(page):
        if re.fullmatch(r"[\w./*-]+/[\w./*-]*", code) and "NAME" not in code:
            folder = code.split("/")[0]
            if folder in TOP_FOLDERS:
                assert any(ROOT.glob(code.rstrip("/"))) or code.rstrip("/") in GENERATED, code


@pytest.mark.parametrize("page", [page for page in PAGES if page not in HISTORY], ids=name_of)
def test_every_name_of_code_occurs_in_the_code(page: Path) -> None:
    code = code_text()
    for name in inline_code(page):
        if re.fullmatch(r"[a-z]+_\w+", name) and not name.startswith("ts_"):
            assert re.search(rf"\b{name}", code), name


def test_the_file_tree_of_the_readme_is_the_repository() -> None:
    (tree,) = (text for _, text in blocks(ROOT / "README.md") if text.startswith("pipeline.py"))
    folders, parent = set(), ""
    for line in tree.splitlines():
        name = line.split()[0]
        if name.endswith("/"):
            parent = parent if line.startswith(" ") else name
            folders.add(f"{parent}{name}" if line.startswith(" ") else name)
    packages = {f"{Path(path).parent}/" for path in TRACKED if path.endswith("/__init__.py")}
    expected = {name for name in packages if not name.startswith("tests/") and name.count("/") <= 2}
    assert expected <= folders
    assert all((ROOT / folder).is_dir() for folder in folders)


def test_no_page_is_missing_from_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in links(index)}
    assert {page for page in PAGES if page.parent == index.parent and page != index} <= linked
