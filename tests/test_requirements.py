"""The lock files agree: an image gets the versions that the tests ran with."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

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
    context = (ROOT / ".dockerignore").read_text().splitlines()
    for kind in ("in", "lock"):
        assert f"requirements/{name}.{kind}" in (ROOT / "Dockerfile").read_text()
        assert f"!requirements/{name}.{kind}" in context
