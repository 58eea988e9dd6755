"""The generated references are complete and up to date."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from pydantic import BaseModel, ConfigDict, Field

from car_model import evidence
from car_model.evidence.base import EvidenceFile
from car_model.evidence.schemas import FILES
from common.environment import VARIABLES
from scripts import reference
from tests.docs.pages import ROOT

PRODUCT = (
    "common", "car_model", "components", "orchestration", "ingestion", "validation", "registry", "serving",
)  # fmt: skip


@pytest.fixture(scope="module")
def rendered() -> dict[Path, str]:
    return reference.render()


def test_the_committed_files_are_what_the_generator_writes(rendered: dict[Path, str]) -> None:
    folders = (reference.DOCS / "reference", reference.DOCS / "schemas")
    committed = {path.relative_to(reference.DOCS): path.read_text() for f in folders for path in f.glob("*")}
    assert sorted(committed) == sorted(rendered)
    for path, text in rendered.items():
        assert committed[path] == text, f"docs/{path} is out of date: run make reference"


def test_every_setting_is_on_its_page(rendered: dict[Path, str]) -> None:
    for page in reference.SETTINGS:
        schema = page.model.model_json_schema()
        models = [schema, *schema.get("$defs", {}).values()]
        settings = {name for model in models for name in model.get("properties", {})}
        text = rendered[Path("reference", f"{page.name}.md")]
        assert all(f"| `{name}` |" in text for name in settings), page.name


def test_a_setting_without_a_docstring_is_refused() -> None:
    class Inner(BaseModel):
        size: int = 1

    class Outer(BaseModel):
        model_config = ConfigDict(use_attribute_docstrings=True)
        inner: Inner = Inner()
        """What is inside."""

    with pytest.raises(reference.MissingDescriptionError, match=r"Inner\.size"):
        reference.described_models(Outer.model_json_schema())


@pytest.mark.parametrize(
    ("annotation", "field", "words"),
    [
        (int, Field(ge=1), "integer, at least 1"),
        (float, Field(gt=0, lt=1), "number, above 0, below 1"),
        (str | None, Field(None, min_length=1), "text, not empty or null"),
        (tuple[str, ...], Field(()), "list of text"),
        (dict[str, int], Field({}), "object of integer"),
        (bool, Field(True), "true or false"),
    ],
)
def test_types_are_put_in_words(annotation: object, field: object, words: str) -> None:
    namespace = {"__annotations__": {"setting": annotation}, "setting": field, "__module__": __name__}
    model = type("Model", (BaseModel,), namespace)
    assert reference.type_text(model.model_json_schema()["properties"]["setting"]) == words


def test_every_command_is_on_the_page(rendered: dict[Path, str]) -> None:
    page = rendered[Path("reference", "command-line.md")]
    paths = [path for path, _ in reference.commands(typer.main.get_command(reference.app))]
    assert len(paths) > 10
    assert all(f"## `{path}`\n" in page for path in paths)


def test_every_evidence_file_has_a_schema() -> None:
    """Whatever is read or written as evidence is listed, wherever it is defined."""
    for module in pkgutil.iter_modules(evidence.__path__, f"{evidence.__name__}."):
        importlib.import_module(module.name)
    # Only the product's: another test may have defined a class of its own in this process.
    product = {file for file in EvidenceFile.__subclasses__() if not file.__module__.startswith("tests.")}
    assert set(FILES.values()) == product


def test_every_environment_variable_that_the_code_reads_is_in_the_table() -> None:
    """Variables are read as os.environ[...], os.environ.get(...) or a command's envvar=."""
    paths = [ROOT / "pipeline.py", *(path for name in PRODUCT for path in (ROOT / name).rglob("*.py"))]
    trees = {path: ast.parse(path.read_text()) for path in paths}
    constants = {
        (path, target.id): node.value.value
        for path, tree in trees.items()
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    names = set()
    for path, tree in trees.items():
        imported = {
            alias.asname or alias.name: ROOT / f"{(node.module or '').replace('.', '/')}.py"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        originals = {
            alias.asname or alias.name: alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        for key in variable_keys(tree):
            if isinstance(key, ast.Constant):
                names.add(key.value)
            elif isinstance(key, ast.Name):
                value = constants.get((path, key.id)) or constants.get(
                    (imported.get(key.id, path), originals.get(key.id, key.id))
                )
                if value is not None:  # a loop variable over names that are listed as constants
                    names.add(value)
    assert names == {variable.name for variable in VARIABLES}


def variable_keys(tree: ast.AST) -> Iterator[ast.expr]:
    """The expressions that name a variable where the environment is read."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and is_environment(node.value):
            yield node.slice
        elif isinstance(node, ast.Call):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else ""
            if name == "getenv" or (name in ("get", "setdefault", "pop") and is_environment(function.value)):
                yield node.args[0]
            yield from (keyword.value for keyword in node.keywords if keyword.arg == "envvar")


def is_environment(node: ast.expr) -> bool:
    """`os.environ`, or `process.environ()` of another process."""
    function = node.func if isinstance(node, ast.Call) else node
    return isinstance(function, ast.Attribute) and function.attr == "environ"
