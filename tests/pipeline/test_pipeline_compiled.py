"""The compiled pipeline: unchanged unless on purpose, sound, and sized, retried and cached as meant."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp import compiler

from orchestration.resources import CompileOptions
from pipeline import build, build_for_cluster
from tests.pipeline.pipeline_graph import parse, problems, tasks_of

ROOT = Path(__file__).parent.parent.parent
GOLDEN = Path(__file__).parent / "golden" / "pipeline.yaml"
GATED = {"package", "infra-validate", "release", "deploy"}
Tree = dict[str, Any]


@pytest.fixture(scope="module")
def ir() -> Tree:
    return next(yaml.safe_load_all(GOLDEN.read_text()))


def compiled(folder: Path, options: CompileOptions) -> Tree:
    path = folder / "pipeline.yaml"
    compiler.Compiler().compile(build_for_cluster(options), str(path))
    return next(yaml.safe_load_all(path.read_text()))


def dag(tree: Tree) -> Tree:
    """The tasks of the pipeline proper, within the exit handler."""
    return tree["components"]["comp-car-on-kubeflow"]["dag"]["tasks"]


def container(tree: Tree, step: str) -> Tree:
    return tree["deploymentSpec"]["executors"][f"exec-{step}"]["container"]


def test_compile_writes_the_golden_file(tmp_path: Path) -> None:
    output = tmp_path / "deep" / "pipeline.yaml"
    environment = {name: value for name, value in os.environ.items() if name != "CAR_IMAGE"}
    command = [sys.executable, str(ROOT / "pipeline.py"), "compile", "--output", str(output)]
    subprocess.run(command, check=True, env=environment, cwd=tmp_path)
    assert output.read_text() == GOLDEN.read_text(), "changed on purpose? 'make golden', then read the diff"


def test_every_reference_leads_somewhere(ir: Tree) -> None:
    assert problems(parse(ir)) == []


def dangling_producer(tree: Tree) -> None:
    inputs = dag(tree)["train"]["inputs"]["artifacts"]
    inputs["codebook"]["taskOutputArtifact"]["producerTask"] = "tokenise"


def unmade_output(tree: Tree) -> None:
    inputs = dag(tree)["train"]["inputs"]["artifacts"]
    inputs["codebook"]["taskOutputArtifact"]["outputArtifactKey"] = "codebooks"


def unknown_dependency(tree: Tree) -> None:
    dag(tree)["tokenize"]["dependentTasks"].append("validation")


def undeclared_dependency(tree: Tree) -> None:
    dag(tree)["train"]["dependentTasks"].remove("tokenize")


def cycle(tree: Tree) -> None:
    dag(tree)["ingest"]["dependentTasks"] = ["gate"]


def missing_input(tree: Tree) -> None:
    del dag(tree)["evaluate"]["inputs"]["artifacts"]["sasrec"]


def surplus_input(tree: Tree) -> None:
    parameters = dag(tree)["gate"]["inputs"]["parameters"]
    parameters["lenient"] = {"runtimeValue": {"constant": True}}


def unknown_parameter(tree: Tree) -> None:
    parameters = dag(tree)["gate"]["inputs"]["parameters"]
    parameters["policy"]["componentInputParameter"] = "polcy"


def unknown_artifact_of_the_group(tree: Tree) -> None:
    tasks = tree["components"]["comp-condition-1"]["dag"]["tasks"]
    tasks["package"]["inputs"]["artifacts"]["bundle"]["componentInputArtifact"] = "elsewhere"


def no_executor(tree: Tree) -> None:
    del tree["deploymentSpec"]["executors"]["exec-deploy"]


def no_component(tree: Tree) -> None:
    del tree["components"]["comp-report"]


def unknown_end(tree: Tree) -> None:
    inputs = tree["root"]["dag"]["tasks"]["conclude"]["inputs"]["parameters"]
    inputs["status"]["taskFinalStatus"]["producerTask"] = "exit-handler-2"


def dangling_output(tree: Tree) -> None:
    outputs = tree["components"]["comp-car-on-kubeflow"]["dag"]["outputs"]
    selectors = outputs["artifacts"]["verdict"]["artifactSelectors"]
    selectors[0]["producerSubtask"] = "judge"


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (dangling_producer, "comp-car-on-kubeflow: train reads unknown task tokenise"),
        (unmade_output, "comp-car-on-kubeflow: train reads codebooks, which tokenize does not make"),
        (unknown_dependency, "comp-car-on-kubeflow: tokenize depends on unknown validation"),
        (undeclared_dependency, "comp-car-on-kubeflow: train reads tokenize without depending on it"),
        (cycle, "comp-car-on-kubeflow: cycle"),
        (missing_input, "comp-car-on-kubeflow: evaluate lacks sasrec"),
        (surplus_input, "comp-car-on-kubeflow: gate is given unknown lenient"),
        (unknown_parameter, "comp-car-on-kubeflow: gate reads unknown parameter polcy"),
        (unknown_artifact_of_the_group, "comp-condition-1: package reads unknown artifact elsewhere"),
        (no_executor, "comp-deploy has no executor exec-deploy"),
        (no_component, "comp-car-on-kubeflow: report is an unknown component comp-report"),
        (unknown_end, "root: conclude asks how unknown task exit-handler-2 ended"),
        (dangling_output, "comp-car-on-kubeflow: output verdict reads unknown task judge"),
    ],
)
def test_the_check_sees_a_damaged_pipeline(ir: Tree, damage: Callable[[Tree], None], sentence: str) -> None:
    broken = copy.deepcopy(ir)
    damage(broken)
    assert any(problem.startswith(sentence) for problem in problems(parse(broken)))


def test_the_parser_refuses_unknown_fields(ir: Tree) -> None:
    with pytest.raises(json_format.ParseError):
        parse({**ir, "rooot": {}})


def test_nothing_leaves_the_pipeline_but_through_the_gate(ir: Tree) -> None:
    spec = parse(ir)
    groups = {task: group for task, (group, _) in tasks_of(spec).items()}
    inner = spec.components["comp-car-on-kubeflow"].dag.tasks
    assert {task for task, group in groups.items() if group == "root"} == {"conclude"}
    assert {task for task in groups if task not in inner} - {"conclude"} == GATED | {"not-promoted"}
    (condition,) = {groups[task] for task in GATED}
    for group, blessed in ((condition, "true"), (groups["not-promoted"], "false")):
        (holder,) = [task for task in inner.values() if task.component_ref.name == group]
        assert holder.trigger_policy.condition == (
            f"inputs.parameter_values['pipelinechannel--gate-Output'] == {blessed}"
        )
        assert "gate" in holder.dependent_tasks


def test_steps_come_in_the_order_that_makes_them_safe(ir: Tree) -> None:
    steps, gated = dag(ir), ir["components"]["comp-condition-1"]["dag"]["tasks"]
    assert "validate" in steps["tokenize"]["dependentTasks"]
    assert "package" in gated["infra-validate"]["dependentTasks"]
    assert "infra-validate" in gated["release"]["dependentTasks"]
    assert "release" in gated["deploy"]["dependentTasks"]


def test_every_step_has_requests_limits_and_retries(ir: Tree) -> None:
    for step, (_, task) in tasks_of(parse(ir)).items():
        resources = container(ir, step)["resources"]
        for kind in ("CpuRequest", "CpuLimit", "MemoryRequest", "MemoryLimit"):
            assert resources[f"resource{kind}"], step
        assert task.retry_policy.max_retry_count > 0
        assert task.retry_policy.backoff_duration.seconds > 0


PINNED = "registry.example/car@sha256:" + 64 * "1"


def uncached(tree: Tree) -> set[str]:
    tasks = tasks_of(parse(tree)).items()
    return {step for step, (_, task) in tasks if not task.caching_options.enable_cache}


def test_only_steps_that_touch_the_world_are_never_cached(tmp_path: Path) -> None:
    world = {
        "resolve-champion", "resolve-source", "report", "release", "deploy", "not-promoted", "conclude",
    }  # fmt: skip
    assert uncached(compiled(tmp_path, CompileOptions(image=PINNED))) == world
    assert uncached(compiled(tmp_path, CompileOptions(always_cache=True))) == world


def test_a_tag_is_no_cache_key(tmp_path: Path) -> None:
    tree = compiled(tmp_path, CompileOptions(image="registry.example/car:1.0"))
    assert uncached(tree) == set(tasks_of(parse(tree)))


def test_the_data_is_cached_by_the_digest_of_what_is_there(ir: Tree) -> None:
    wanted = dag(ir)["ingest"]["inputs"]["parameters"]["source_digest"]
    assert wanted["taskOutputParameter"]["producerTask"] == "resolve-source"


def test_how_the_run_ended_is_told_whatever_happened(ir: Tree) -> None:
    tasks = ir["root"]["dag"]["tasks"]
    assert tasks["conclude"]["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    (inner,) = ir["components"]["comp-exit-handler-1"]["dag"]["tasks"].values()
    assert inner["componentRef"]["name"] == "comp-car-on-kubeflow"


def test_a_local_run_is_the_same_graph(ir: Tree, tmp_path: Path) -> None:
    path = tmp_path / "local.yaml"
    compiler.Compiler().compile(build(), str(path))
    local = next(yaml.safe_load_all(path.read_text()))
    assert local["root"]["dag"] == ir["components"]["comp-car-on-kubeflow"]["dag"]
    steps = set(local["deploymentSpec"]["executors"])
    assert set(ir["deploymentSpec"]["executors"]) == steps | {"exec-conclude"}
    for step in steps:
        assert local["deploymentSpec"]["executors"][step] == ir["deploymentSpec"]["executors"][step]


def test_what_follows_the_champion_is_cached_by_its_digest(ir: Tree) -> None:
    champion = dag(ir)["evaluate"]["inputs"]["parameters"]["champion"]
    assert champion["taskOutputParameter"] == {
        "producerTask": "resolve-champion",
        "outputParameterKey": "release",
    }


def test_options_reach_the_steps_they_are_meant_for(tmp_path: Path) -> None:
    tree = compiled(
        tmp_path, CompileOptions(image="registry.example/car@sha256:1", gpus=2, gpu_type="amd.com/gpu")
    )
    steps = tasks_of(parse(tree))
    assert {container(tree, step)["image"] for step in steps} == {"registry.example/car@sha256:1"}
    accelerated = {
        step: (found["resourceCount"], found["resourceType"])
        for step in steps
        if (found := container(tree, step)["resources"].get("accelerator"))
    }
    assert accelerated == dict.fromkeys(("train", "train-baseline", "train-ranker"), ("2", "amd.com/gpu"))
