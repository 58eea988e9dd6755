"""The image gets the versions that the tests ran with, and every package of the project."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from common.code_digest import PACKAGES

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "requirements"
PIN = re.compile(r"^([a-z0-9._-]+)(?:\[.*\])?==(\S+)", re.MULTILINE)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["tool"]["setuptools"]["dynamic"]["optional-dependencies"]


def pins(name: str) -> dict[str, str]:
    return dict(PIN.findall((FOLDER / f"{name}.lock").read_text()))


@pytest.mark.parametrize("name", ["run", *EXTRAS])
def test_an_image_gets_the_versions_that_the_tests_ran_with(name: str) -> None:
    tested, installed = pins("dev"), pins(name)
    assert installed
    assert {package: tested.get(package) for package in installed} == installed


@pytest.mark.parametrize("name", EXTRAS)
def test_an_extra_is_pinned_and_the_image_can_be_built_with_it(name: str) -> None:
    assert EXTRAS[name] == {"file": [f"requirements/{name}.in"]}
    assert PIN.findall((FOLDER / f"{name}.in").read_text())
    for kind in ("in", "lock"):
        assert f"requirements/{name}.{kind}" in copied_paths()


def copied_paths() -> set[str]:
    """What the Dockerfile copies out of the checkout, apart from the wheels that `make image` puts there."""
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    copies = [line.split()[1:] for line in lines if line.startswith("COPY ") and "--from" not in line]
    return {path for *sources, _ in copies for path in sources if not path.startswith(("--", "build/"))}


def test_everything_that_the_image_copies_is_in_its_build_context() -> None:
    context = set((ROOT / ".dockerignore").read_text().splitlines())
    assert {path for path in copied_paths() if f"!{path}" not in context} == set()
    assert {path for path in copied_paths() if not (ROOT / path).exists()} == set()


def test_the_image_holds_every_package_of_the_project() -> None:
    packages = {
        name.removesuffix("*") for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    }
    assert packages <= copied_paths()
    assert packages == {*PACKAGES, "components"}
