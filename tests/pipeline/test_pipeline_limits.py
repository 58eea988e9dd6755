"""The compiled pipeline within the limits of Kubeflow Pipelines, Argo and Kubernetes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import compiler

from orchestration.kubeflow.cluster import load_cluster
from orchestration.resources import CompileOptions
from pipeline import build_for_cluster
from tests.pipeline.pipeline_graph import parse, tasks_of

ARGUMENT = 131_071  # bytes that Linux takes in one argument of a command
DOCUMENT = 1 << 20  # bytes that the API server takes in one object, with room for the status
EXAMPLE = Path(__file__).parents[2] / "deploy" / "cluster" / "cluster.yaml"
MAX_SHARDS = 1000  # as `--shards` says
BUCKET = "gs://" + 63 * "b" + "/" + 200 * "p"  # a long name of a bucket, and a long prefix
Tree = dict[str, Any]


@pytest.fixture(scope="module", params=[1, MAX_SHARDS])
def ir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    path = tmp_path_factory.mktemp("ir") / "pipeline.yaml"
    options = CompileOptions(
        image="registry.example/car@sha256:1", cluster=load_cluster(EXAMPLE), shards=request.param
    )
    compiler.Compiler().compile(build_for_cluster(options), str(path))
    return next(yaml.safe_load_all(path.read_text()))


def test_what_a_driver_is_told_in_one_argument_fits(ir: Tree) -> None:
    for name, part in (ir["components"] | ir["deploymentSpec"]["executors"]).items():
        assert len(json.dumps(part)) < ARGUMENT, name
    assert len(json.dumps(ir)) < DOCUMENT


def test_where_a_groups_shards_are_fits_in_one_argument(ir: Tree) -> None:
    tasks = ir["components"]["comp-car-on-kubeflow"]["dag"]["tasks"]
    loops = [task for task in tasks.values() if "parameterIterator" in task]
    for loop in loops:
        numbers = yaml.safe_load(loop["parameterIterator"]["items"]["raw"])
        artifacts = [as_kubeflow_writes(number) for number in numbers]
        inputs = {
            "inputs": {
                "parameterValues": {"numbers": numbers},
                "artifacts": {"shards": {"artifacts": artifacts}},
            }
        }
        assert len(json.dumps(inputs)) < ARGUMENT


def as_kubeflow_writes(number: int) -> Tree:
    """A shard's entry in the executor input, as a launcher of KFP 2.17 gets it."""
    folder = f"{BUCKET}/v2/artifacts/car-on-kubeflow/{36 * 'r'}/embed/{number}/{36 * 'e'}"
    return {
        "artifactId": 10 * "9",
        "name": str(9_223_372_036_854_775_807),
        "uri": f"{folder}/vectors",
        "type": {"schemaTitle": "car.VectorShard", "schemaVersion": "0.0.1"},
        "metadata": {
            "display_name": "vectors",
            "shard": number,
            "texts": 10**9,
            "store_session_info": json.dumps({"Provider": "gs", "Params": {"fromEnv": "true"}}),
        },
    }


def test_argo_gets_whole_numbers_and_known_units(ir: Tree) -> None:
    for step, (_, task) in tasks_of(parse(ir)).items():
        assert float(task.retry_policy.backoff_factor).is_integer(), step
        resources = ir["deploymentSpec"]["executors"][task.component_ref.name.replace("comp-", "exec-")]
        for name, value in resources["container"]["resources"].items():
            assert re.fullmatch(r"\d+(\.\d+)?(m|Ki|Mi|Gi)?", str(value)), (step, name)


def test_names_are_what_kubernetes_takes(ir: Tree) -> None:
    names = [ir["pipelineInfo"]["name"], *ir["components"], *ir["deploymentSpec"]["executors"]]
    for name in names:
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name) and len(name) <= 63, name
