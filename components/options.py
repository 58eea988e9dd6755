"""What KFP fixes when a pipeline is compiled: image, sizes, accelerators, retries, caching."""

from __future__ import annotations

from dataclasses import dataclass

from kfp.dsl import PipelineTask

from components.base import IMAGE


@dataclass(frozen=True)
class Size:
    """Requests and limits of a step, in Kubernetes' units."""

    cpu: tuple[str, str]
    memory: tuple[str, str]


SMALL = Size(cpu=("250m", "1"), memory=("512Mi", "2Gi"))
MEDIUM = Size(cpu=("1", "4"), memory=("2Gi", "8Gi"))
LARGE = Size(cpu=("2", "8"), memory=("4Gi", "16Gi"))


@dataclass(frozen=True)
class Placement:
    """How a step runs: its size, whether an earlier equal run may stand for it, whether it uses a GPU."""

    size: Size
    cached: bool = True
    accelerated: bool = False


# Steps that ask about or change the world outside the run are never cached.
PLACEMENTS = {
    "resolve-champion": Placement(SMALL, cached=False),
    "ingest": Placement(MEDIUM),
    "validate": Placement(MEDIUM),
    "tokenize": Placement(LARGE),
    "train": Placement(LARGE, accelerated=True),
    "train-baseline": Placement(LARGE, accelerated=True),
    "evaluate": Placement(LARGE),
    "gate": Placement(SMALL),
    "report": Placement(SMALL),
    "package": Placement(SMALL),
    "infra-validate": Placement(MEDIUM),
    "release": Placement(SMALL, cached=False),
    "deploy": Placement(SMALL, cached=False),
}
RETRIES = 2
BACKOFF = {"backoff_duration": "30s", "backoff_factor": 2.0, "backoff_max_duration": "600s"}


@dataclass(frozen=True)
class Options:
    """Choices of `compile` and `submit`.

    Attributes:
        image: container image of every step; name it by digest, or KFP's cache cannot see new code.
        gpus: accelerators for the steps that train, 0 for none.
        gpu_type: resource name of the accelerator.
    """

    image: str = IMAGE
    gpus: int = 0
    gpu_type: str = "nvidia.com/gpu"

    def place(self, task: PipelineTask) -> PipelineTask:
        """Give a task its image, size, retries and caching choice."""
        placement = PLACEMENTS[task.component_spec.name]
        cpu, memory = placement.size.cpu, placement.size.memory
        task.set_container_image(self.image).set_caching_options(placement.cached)
        task.set_cpu_request(cpu[0]).set_cpu_limit(cpu[1])
        task.set_memory_request(memory[0]).set_memory_limit(memory[1])
        task.set_retry(RETRIES, **BACKOFF)
        if placement.accelerated and self.gpus:
            task.set_accelerator_type(self.gpu_type).set_accelerator_limit(self.gpus)
        return task
