"""What KFP's own parser does not check in a compiled pipeline: that every reference leads somewhere."""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

from google.protobuf import json_format
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig
from kfp.pipeline_spec.pipeline_spec_pb2 import (
    ComponentSpec,
    DagSpec,
    PipelineSpec,
    PipelineTaskSpec,
    PlatformSpec,
)


def parse(tree: dict) -> PipelineSpec:
    """A PipelineSpec from IR as a tree; raises ParseError for fields that KFP does not know."""
    return json_format.ParseDict(tree, PipelineSpec())


def problems(spec: PipelineSpec) -> list[str]:
    """Every dangling reference, missing input and cycle, as sentences; empty for a sound pipeline."""
    executors = set(spec.deployment_spec["executors"])
    graphs = {"root": spec.root} | {name: one for name, one in spec.components.items() if one.HasField("dag")}
    found = [
        f"{name} has no executor {one.executor_label}"
        for name, one in spec.components.items()
        if not one.HasField("dag") and one.executor_label not in executors
    ]
    for name, graph in graphs.items():
        found += [f"{name}: {problem}" for problem in _graph_problems(spec, graph)]
    return found


def parse_platform(tree: dict) -> PlatformSpec:
    """A PlatformSpec from the second part of the IR; raises ParseError for fields that KFP does not know."""
    return json_format.ParseDict(tree, PlatformSpec())


def settings_of(spec: PlatformSpec) -> dict[str, KubernetesExecutorConfig]:
    """What Kubernetes is asked for, by step; raises ParseError for settings that KFP does not know."""
    executors = spec.platforms["kubernetes"].deployment_spec.executors
    return {
        name.removeprefix("exec-"): json_format.ParseDict(
            json_format.MessageToDict(one), KubernetesExecutorConfig()
        )
        for name, one in executors.items()
    }


def tasks_of(spec: PipelineSpec) -> dict[str, tuple[str, PipelineTaskSpec]]:
    """Every step: name -> (the graph it is in, its spec)."""
    graphs = {"root": spec.root} | dict(spec.components.items())
    return {
        task: (name, one)
        for name, graph in graphs.items()
        for task, one in graph.dag.tasks.items()
        if not _component(spec, one).HasField("dag")
    }


def _component(spec: PipelineSpec, task: PipelineTaskSpec) -> ComponentSpec:
    """A task's component; an empty one where it is unknown (indexing would add it to the spec)."""
    return spec.components.get(task.component_ref.name, ComponentSpec())


def _graph_problems(spec: PipelineSpec, graph: ComponentSpec) -> Iterator[str]:
    dag = graph.dag
    for name, task in dag.tasks.items():
        if task.component_ref.name not in spec.components:
            yield f"{name} is an unknown component {task.component_ref.name}"
            continue
        yield from (
            f"{name} depends on unknown {one}" for one in task.dependent_tasks if one not in dag.tasks
        )
        yield from _input_problems(spec, graph, name, task)
    yield from _output_problems(spec, dag)
    try:
        list(
            TopologicalSorter({name: task.dependent_tasks for name, task in dag.tasks.items()}).static_order()
        )
    except CycleError as error:
        yield f"cycle {' -> '.join(error.args[1])}"


def _input_problems(
    spec: PipelineSpec, graph: ComponentSpec, name: str, task: PipelineTaskSpec
) -> Iterator[str]:
    wanted = _component(spec, task).input_definitions
    for kind in ("parameters", "artifacts"):
        given, known = getattr(task.inputs, kind), getattr(wanted, kind)
        yield from (f"{name} is given unknown {one}" for one in given if one not in known)
        yield from (f"{name} lacks {one}" for one in known if one not in given and not known[one].is_optional)
    sources = [(one.task_output_parameter, "parameters") for one in task.inputs.parameters.values()]
    sources += [(one.task_output_artifact, "artifacts") for one in task.inputs.artifacts.values()]
    for source, kind in sources:
        if source.producer_task:
            key = source.output_parameter_key if kind == "parameters" else source.output_artifact_key
            yield from _producer_problems(spec, graph.dag, name, (source.producer_task, kind, key))
            if source.producer_task not in task.dependent_tasks:
                yield f"{name} reads {source.producer_task} without depending on it"
    for one in task.inputs.parameters.values():
        if one.task_final_status.producer_task and one.task_final_status.producer_task not in graph.dag.tasks:
            yield f"{name} asks how unknown task {one.task_final_status.producer_task} ended"
    inner = graph.input_definitions
    for one in task.inputs.parameters.values():
        if one.component_input_parameter and one.component_input_parameter not in inner.parameters:
            yield f"{name} reads unknown parameter {one.component_input_parameter}"
    for one in task.inputs.artifacts.values():
        if one.component_input_artifact and one.component_input_artifact not in inner.artifacts:
            yield f"{name} reads unknown artifact {one.component_input_artifact}"


def _output_problems(spec: PipelineSpec, dag: DagSpec) -> Iterator[str]:
    for output, one in dag.outputs.artifacts.items():
        for source in one.artifact_selectors:
            wanted = (source.producer_subtask, "artifacts", source.output_artifact_key)
            yield from _producer_problems(spec, dag, f"output {output}", wanted)


def _producer_problems(
    spec: PipelineSpec, dag: DagSpec, reader: str, wanted: tuple[str, str, str]
) -> Iterator[str]:
    producer, kind, key = wanted
    if producer not in dag.tasks:
        yield f"{reader} reads unknown task {producer}"
        return
    made = getattr(_component(spec, dag.tasks[producer]).output_definitions, kind)
    if key not in made:
        yield f"{reader} reads {key}, which {producer} does not make"
