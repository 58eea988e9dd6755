"""States of trainings belong to the code that made them: on a laptop and on a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import pytest
from typer.testing import CliRunner

from common.code_digest import code_digest
from common.errors import UserError
from orchestration import cli
from pipeline import app


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The settings of the run that a command asks for; the command ends there."""
    settings: dict[str, Any] = {}

    def stop(**values: Any) -> NoReturn:
        settings.update(values)
        raise UserError("Far enough.")

    monkeypatch.setattr(cli, "RunRequest", stop)
    return settings


def test_a_local_run_keeps_them_below_its_work_folder(requested: dict[str, Any]) -> None:
    ended = CliRunner().invoke(app, ["run"])
    assert (ended.exit_code, ended.stderr) == (1, "Far enough.\n")
    assert requested["checkpoints"] == f".car/checkpoints/{code_digest()}"


@pytest.mark.parametrize(
    ("cluster", "folder"), [("cache: {claim: c}\n", "/cache/checkpoints/"), ("{}\n", "")]
)
def test_a_cluster_keeps_them_in_its_cache_if_it_has_one(
    requested: dict[str, Any], tmp_path: Path, cluster: str, folder: str
) -> None:
    (tmp_path / "cluster.yaml").write_text(cluster)
    options = [
        "--registry",
        "gs://shop/registry",
        "--data-dir",
        str(tmp_path),
        "--host",
        "http://127.0.0.1:1",
    ]
    ended = CliRunner().invoke(app, ["submit", *options, "--cluster", str(tmp_path / "cluster.yaml")])
    assert (ended.exit_code, ended.stderr) == (1, "Far enough.\n")
    assert requested["checkpoints"] == (folder and folder + code_digest())
