"""The Python examples run as written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from registry.channels.channel import head, promote, stage
from registry.store.open import open_store
from tests.docs.pages import ROOT, blocks
from tests.registry.trained import trained_release

pytestmark = pytest.mark.integration


def example(page: Path) -> str:
    (text,) = (text for language, text in blocks(page) if language == "python")
    return text


def test_the_readme_recommends_from_production(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store, release = trained_release(tmp_path / ".car" / "movielens")
    stage(store, release, who="test", why="example")
    promote(store, "production", release, who="test", why="example", expected=0)
    monkeypatch.chdir(tmp_path)
    exec(compile(example(ROOT / "README.md"), "README.md", "exec"), {})  # noqa: S102 - our own page
    assert capsys.readouterr().out.count("Film number") == 5


def test_the_registry_page_releases_promotes_and_fetches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_release(tmp_path)
    for evidence in (tmp_path / "evidence").iterdir():
        if evidence.is_file():
            shutil.copy(evidence, tmp_path)
    monkeypatch.chdir(tmp_path)
    text = example(ROOT / "docs" / "registry.md").replace("gs://bucket/car", "shop")
    exec(compile(text, "registry.md", "exec"), {})  # noqa: S102 - our own page
    entry = head(open_store("shop"), "production")
    assert entry is not None
    assert entry.why == "nightly"
    assert (tmp_path / "served" / "bundle.json").is_file()
