"""The documentation's example is the files beside this test, and it does what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ingestion.ingest import ingest
from ingestion.sources import NAMES, resolve
from tests.ingestion.ingest_data import histories, rows_of

EXAMPLE = Path(__file__).parent / "example"
ROOT = EXAMPLE.parents[2]
PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["orders.csv", "teas.csv", "dataset.json"])
def test_the_page_shows_the_example_files(name: str) -> None:
    block = re.search(rf"^`{re.escape(name)}`.*?^```\w+\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert block, f"docs/data.md does not show {name}"
    assert block[1] == (EXAMPLE / name).read_text(encoding="utf-8")


def test_the_example_gives_what_the_page_says(tmp_path: Path) -> None:
    report = ingest(resolve("custom", str(EXAMPLE), tmp_path), tmp_path / "out")
    assert report.dropped.interactions["duplicate of user and item"] == 1
    assert "eli" not in histories(tmp_path / "out")
    assert histories(tmp_path / "out")["ann"] == ["sencha", "matcha", "genmaicha"]
    items = {row["item_id"]: row for row in rows_of(tmp_path / "out" / "items.parquet")}
    assert list(items)[-1] == "rooibos"
    assert (report.items, report.cold_items) == (5, 1)
    assert items["sencha"]["title"] == "sencha"
    assert list(items["assam"]) == ["item_id", "title", "kind", "description", "brand"]


@pytest.mark.integration
def test_the_command_prints_the_table_on_the_page(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "ingestion",
        "custom",
        "--data-dir",
        str(EXAMPLE),
        "--output",
        str(tmp_path),
    ]
    plain = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(command, cwd=ROOT, env=plain, capture_output=True, text=True, check=True)
    printed = [line.rstrip() for line in done.stdout.strip().splitlines()]
    assert "\n".join(printed) in PAGE
    assert (tmp_path / "report.json").is_file()


@pytest.mark.integration
def test_the_command_says_what_is_wrong_and_fails(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "ingestion",
        "custom",
        "--data-dir",
        str(tmp_path),
        "--output",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "dataset.json does not exist" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_included_dataset_is_on_the_page() -> None:
    assert [name for name in NAMES if f"`{name}`" not in PAGE] == []
