"""What compiling fixes: image, resources, timeouts, retries and caching of every step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kfp.dsl import PipelineTask

from orchestration.kubeflow.cluster import Cluster, ClusterError
from orchestration.step import IMAGE
from orchestration.train_job.spec import VARIABLE

Platform = Literal["kubeflow", "vertex"]


# Of a step, in Kubernetes' units: CPU request and limit, memory request and limit.
SMALL = ("250m", "1", "512Mi", "2Gi")
MEDIUM = ("1", "4", "2Gi", "8Gi")
LARGE = ("2", "8", "4Gi", "16Gi")
HALF_HOUR, SIX_HOURS, DAY = 1800, 6 * 3600, 24 * 3600  # seconds


@dataclass(frozen=True)
class StepResources:
    """How a step runs."""

    size: tuple[str, str, str, str]
    timeout: int = HALF_HOUR  # seconds that one try may take; the cluster file may override it
    cached: bool = True  # an earlier equal run's outputs may be used
    accelerated: bool = False  # it uses a GPU
    uses_cache: bool = False  # it reads and writes the cache that survives runs


EXIT_STEP = "conclude"  # runs whatever happened before
TRAIN_STEP = "train"  # a training job can do its work
# Steps that read or change the world outside the run are never cached.
RESOURCES = {
    "resolve-champion": StepResources(SMALL, cached=False),
    "resolve-recipe": StepResources(SMALL),
    "resolve-source": StepResources(SMALL, cached=False),
    "ingest": StepResources(MEDIUM, SIX_HOURS, uses_cache=True),
    "validate": StepResources(MEDIUM, SIX_HOURS),
    "choose-encoder": StepResources(MEDIUM),
    "embed": StepResources(LARGE, DAY, uses_cache=True),
    "merge": StepResources(MEDIUM),
    "tokenize": StepResources(LARGE, DAY, uses_cache=True),
    TRAIN_STEP: StepResources(LARGE, DAY, accelerated=True, uses_cache=True),
    "train-baseline": StepResources(LARGE, DAY, accelerated=True, uses_cache=True),
    "train-ranker": StepResources(LARGE, DAY, accelerated=True, uses_cache=True),
    "evaluate": StepResources(LARGE, SIX_HOURS),
    "gate": StepResources(SMALL),
    "report": StepResources(SMALL, cached=False),  # it says which run it is of
    "package": StepResources(SMALL),
    "infra-validate": StepResources(MEDIUM),
    "release": StepResources(SMALL, cached=False),
    "deploy": StepResources(SMALL, cached=False),
    "not-promoted": StepResources(SMALL, cached=False),
    EXIT_STEP: StepResources(SMALL, cached=False),
}


@dataclass(frozen=True, kw_only=True)
class CompileOptions:
    """Options of `compile` and `submit`.

    Steps are cached only if the image is named by digest: KFP's cache key holds the image's name, and a tag
    says nothing about the code behind it.
    """

    image: str = IMAGE  # of every step
    gpus: int = 0  # accelerators for the steps that train
    gpu_type: str = "nvidia.com/gpu"  # resource name; on Vertex AI the accelerator's type, such as NVIDIA_L4
    cluster: Cluster = field(default_factory=Cluster)  # what the cluster requires of the steps
    platform: Platform = "kubeflow"  # vertex leaves out what only Kubernetes understands
    shards: int = 1  # parts of the catalogue whose texts are embedded side by side
    always_cache: bool = False  # the cache is already kept apart by code, as a local run's is

    def __post_init__(self) -> None:
        """Refuse timeouts of steps that do not exist, with a ClusterError."""
        if unknown := sorted(self.cluster.timeouts.keys() - RESOURCES.keys()):
            raise ClusterError(f"timeouts: there is no step {unknown[0]}; steps are {', '.join(RESOURCES)}.")

    def configure(self, task: PipelineTask) -> PipelineTask:
        """Give a task its image, resources, retries, caching and what the cluster requires; returns it."""
        name = task.component_spec.name
        resources = RESOURCES[name]
        caching = (self.always_cache or "sha256:" in self.image) and resources.cached
        task.set_container_image(self.image).set_caching_options(caching)
        cpu, cpu_limit, memory, memory_limit = resources.size
        task.set_cpu_request(cpu).set_cpu_limit(cpu_limit)
        task.set_memory_request(memory).set_memory_limit(memory_limit)
        timeout, spec = self.cluster.timeouts.get(name, resources.timeout), None
        if name == TRAIN_STEP and self.platform == "kubeflow":
            spec = self.cluster.train_job_spec(self.image, self.gpus, self.gpu_type, timeout)
        accelerated = resources.accelerated and not spec  # the job's nodes are, the step waits
        if accelerated and self.gpus:
            task.set_accelerator_type(self.gpu_type).set_accelerator_limit(self.gpus)
        if spec:
            task.set_env_variable(VARIABLE, spec.model_dump_json())
        retries = self.cluster.retries
        if retries.count:  # steps are idempotent
            window = f"{retries.window(timeout)}s"
            task.set_retry(retries.count, retries.backoff, retries.factor, window)
        if self.platform == "kubeflow":
            self.cluster.apply_to_task(
                task, accelerated=accelerated, uses_cache=resources.uses_cache,
                uses_webhook=name == EXIT_STEP, seconds=timeout,
            )  # fmt: skip
        return task
