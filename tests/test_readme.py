"""What README promises is there: its commands, its files, its example."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ingestion.config import parse_config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_two_commands_come_first() -> None:
    blocks = re.findall(r"```\n(.*?)```", README, re.DOTALL)
    assert [line.split("#")[0].strip() for line in blocks[1].strip().splitlines()] == [
        "make run",
        "make test",
    ]


def test_every_make_target_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.MULTILINE))
        assert named <= targets, page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()) if "://" not in link]
    assert all((page.parent / link).exists() for link in links), links


def test_every_benchmark_named_exists() -> None:
    for page in PAGES:
        for module in re.findall(r"python -m (benchmarks\.[a-z_]+)", page.read_text()):
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), (page.name, module)


def test_the_example_of_ones_own_data_is_a_valid_config() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    config = parse_config(example, "README.md")
    assert config.ordered_text() == ("title", "brand")
    assert config.interactions.columns["timestamp"] == "bought_at"
