"""Artifact types: a wrong wiring does not compile, and Vertex AI gets KFP's own titles."""

from pathlib import Path

import pytest
import yaml
from kfp import dsl
from kfp.dsl.types.type_utils import InconsistentTypeException
from typer.testing import CliRunner

from components.codebook.tokenize import tokenize
from components.data.ingest import ingest
from components.data.validate import validate
from components.gate.evaluate import evaluate
from components.gate.gate import gate
from components.gate.report import report
from components.serving.deploy import deploy
from components.serving.package import package
from components.training.train import train
from components.training.train_baseline import train_baseline
from orchestration.artifact_types import ALL, standard_titles
from pipeline import app

KFP_TITLES = {"system.Artifact", "system.Dataset", "system.Model", "system.HTML", "system.Metrics"}


def gate_reads_drift() -> None:
    dataset = ingest(source="", source_digest="", cache="").output
    drift = validate(dataset=dataset, policy="", registry="", champion="").outputs["drift"]
    gate(evaluation=drift, policy="", bootstrap=False, forced=[])


def train_swaps_catalogue_and_dataset() -> None:
    dataset = ingest(source="", source_digest="", cache="").output
    tokens = tokenize(
        dataset=dataset, encoder="", n_levels=4, codebook_size=0, seed=0, mode="", registry="", champion="",
        cache="",
    ).outputs  # fmt: skip
    train(
        dataset=tokens["catalogue"], codebook=tokens["codebook"], catalogue=dataset, recipe="", registry="",
        champion="", training=True, warm_start=False, checkpoints="",
    )  # fmt: skip


def package_takes_the_baseline() -> None:
    dataset = ingest(source="", source_digest="", cache="").output
    tokens = tokenize(
        dataset=dataset, encoder="", n_levels=4, codebook_size=0, seed=0, mode="", registry="", champion="",
        cache="",
    ).outputs  # fmt: skip
    baseline = train_baseline(dataset=dataset, catalogue=tokens["catalogue"], recipe="", checkpoints="")
    package(bundle=baseline.outputs["sasrec"])


def report_swaps_page_and_evaluation() -> None:
    dataset = ingest(source="", source_digest="", cache="").output
    docs = validate(dataset=dataset, policy="", registry="", champion="").outputs["data_docs"]
    report(
        dataset=dataset, bundle=dataset, evaluation=docs, verdict=docs, recipe="", run_id="", git_commit=""
    )


@pytest.mark.parametrize(
    ("wiring", "actual", "expected"),
    [
        (gate_reads_drift, "DataDrift", "Evaluation"),
        (train_swaps_catalogue_and_dataset, "Catalogue", "CanonicalDataset"),
        (package_takes_the_baseline, "Baseline", "Bundle"),
        (report_swaps_page_and_evaluation, "CanonicalDataset", "Bundle"),
    ],
)
def test_a_wrong_wiring_does_not_compile(wiring, actual: str, expected: str) -> None:
    with pytest.raises(
        InconsistentTypeException, match=rf"'system\.{actual}@0\.0\.1' is .* 'system\.{expected}@0\.0\.1'"
    ):
        dsl.pipeline(name="wrong")(wiring)


def test_every_input_of_a_step_has_a_type_of_the_projects_own() -> None:
    own = {f"{cls.schema_title}@0.0.1" for cls in ALL} | {"system.HTML@0.0.1"}
    for step in (deploy, evaluate, gate, package, report, tokenize, train, train_baseline, validate):
        for name, item in step.component_spec.inputs.items():
            assert not item.type.startswith("system.") or item.type in own, (step.name, name)


def test_titles_are_unique() -> None:
    titles = [cls.schema_title for cls in ALL]
    assert len(set(titles)) == len(titles) > 15
    assert not KFP_TITLES & set(titles)


@pytest.mark.parametrize("platform", ["kubeflow", "vertex"])
def test_vertex_gets_kfps_own_titles(tmp_path: Path, platform: str) -> None:
    path = tmp_path / "pipeline.yaml"
    result = CliRunner().invoke(app, ["compile", "-o", str(path), "--platform", platform, "--shards", "2"])
    assert result.exit_code == 0, result.output
    ir = path.read_text()
    own = {cls.schema_title for cls in ALL}
    titles = {line.split()[-1] for line in ir.splitlines() if "schemaTitle:" in line}
    assert titles <= KFP_TITLES | own
    assert bool(titles & own) == (platform == "kubeflow")
    assert next(yaml.safe_load_all(standard_titles(ir)))["root"]
