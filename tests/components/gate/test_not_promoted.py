"""The step after a refusal: it says why, keeps the verdict, and fails if a promotion is required."""

from __future__ import annotations

from pathlib import Path

import pytest
from kfp import dsl

from common.errors import UserError
from components.gate.not_promoted import not_promoted
from registry.run_records import read_verdict
from registry.store.open import open_store
from tests.registry.bundles import make_bundle, make_evidence


def test_a_refusal_is_said_and_kept_however_often_the_step_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_evidence(tmp_path, make_bundle(tmp_path / "bundle"), blessed=False)["verdict.json"]
    verdict, registry = dsl.Artifact(uri=str(path)), str(tmp_path / "registry")
    for _ in range(2):
        not_promoted.python_func(verdict=verdict, registry=registry, run_id="r1", require_promotion=False)
        said = capsys.readouterr().out
        assert said == "Not promoted: 'beats popularity' failed.\n  beats popularity: It is 0.1.\n"
    assert read_verdict(open_store(registry), "r1") == path.read_bytes()
    with pytest.raises(UserError, match=r"'beats popularity' failed. This run requires a promotion"):
        not_promoted.python_func(verdict=verdict, registry=registry, run_id="r2", require_promotion=True)
    assert read_verdict(open_store(registry), "r2")
