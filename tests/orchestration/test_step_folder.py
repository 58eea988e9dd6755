"""A cache that a step can't write costs time, not the run."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from components.data.ingest import ingest
from orchestration.run_request import RunRequest
from orchestration.step_folder import writable_folder
from tests.components.test_steps import artifact
from tests.pipeline.tiny_shop import write_shop


def test_a_folder_that_can_be_written_is_made_and_left_empty(tmp_path: Path) -> None:
    assert writable_folder(str(tmp_path), "cache", "vectors") == tmp_path / "cache" / "vectors"
    assert not list((tmp_path / "cache" / "vectors").iterdir())
    assert writable_folder("") is None


def test_a_step_goes_on_without_a_cache_it_cannot_write(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache"
    cache.touch()  # nobody can make a folder in it; tests may run as root, who may write anywhere
    shop = write_shop(tmp_path / "shop")
    request = RunRequest(data="custom", data_dir=str(shop), downloads=tmp_path, registry="")
    dataset, arguments = artifact(tmp_path / "dataset"), request.arguments()
    with caplog.at_level(logging.WARNING):
        ingest.python_func(
            source=arguments["source"], source_digest=arguments["source_digest"], cache=str(cache),
            dataset=dataset,
        )  # fmt: skip
    assert json.loads((Path(dataset.path) / "report.json").read_text())
    (warning,) = [record.getMessage() for record in caplog.records if "can't be written" in record.message]
    assert warning.startswith(f"{cache}/sources can't be written by user ")
    assert "as the Job in deploy/cluster/cache.yaml does" in warning
