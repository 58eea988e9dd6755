"""The README's own promises."""

from __future__ import annotations

from ingestion.config import parse_config
from tests.docs.pages import ROOT, blocks

README = ROOT / "README.md"


def test_the_two_commands_come_first() -> None:
    _, (_, text), *_ = blocks(README)
    lines = [line.split("#")[0].strip() for line in text.strip().splitlines()]
    assert lines == ["make run", "make test"]


def test_the_example_of_your_own_data_means_what_the_text_says() -> None:
    (example,) = (text for language, text in blocks(README) if language == "json")
    config = parse_config(example, "README.md")
    assert config.ordered_text() == ("title", "brand")
    assert config.interactions.columns["timestamp"] == "bought_at"
