"""What compiling fixes: image, resources, timeouts, retries and caching of every step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kfp import kubernetes
from kfp.dsl import PipelineTask

from orchestration.kubeflow.cluster import Cluster, ClusterError, Size
from orchestration.step import IMAGE
from orchestration.train_job.spec import RUN_ID, SERVICE_ACCOUNT, VARIABLE

Platform = Literal["kubeflow", "vertex"]


# Of a step, in Kubernetes' units: CPU request and limit, memory request and limit.
SMALL = ("250m", "1", "512Mi", "2Gi")
MEDIUM = ("1", "4", "2Gi", "8Gi")
LARGE = ("1", "8", "4Gi", "16Gi")  # a node of two CPUs never has both of them free
WAITING = ("250m", "4", "1Gi", "8Gi")  # for the nodes of a training job
HALF_HOUR, SIX_HOURS, DAY = 1800, 6 * 3600, 24 * 3600  # seconds


@dataclass(frozen=True)
class StepResources:
    """How a step runs."""

    size: tuple[str, str, str, str]
    timeout: int = HALF_HOUR  # seconds that one try may take; the cluster file may override it
    cached: bool = True  # an earlier equal run's outputs may be used
    accelerated: bool = False  # it uses a GPU
    uses_cache: bool = False  # it reads and writes the cache that survives runs


MERGED = 100  # shards that one step merges; each takes up to 1,300 bytes of its argument
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
    parallelism: int = 0  # as many shards at a time as this; 0 for all
    always_cache: bool = False  # the cache is already kept apart by code, as a local run's is

    def __post_init__(self) -> None:
        """Refuse settings of steps that do not exist, with a ClusterError."""
        for setting in ("timeouts", "sizes"):
            if unknown := sorted(getattr(self.cluster, setting).keys() - RESOURCES.keys()):
                steps = ", ".join(RESOURCES)
                raise ClusterError(f"{setting}: there is no step {unknown[0]}; steps are {steps}.")
        for step, size in self.cluster.sizes.items():
            if size.gpus and not RESOURCES[step].accelerated:
                raise ClusterError(f"sizes: {step} does not train, so it can't use the {size.gpus} gpus.")

    def shard_groups(self) -> list[list[int]]:
        """The shards, in groups small enough for one merge to be told where they are.

        Kubeflow hands a step its inputs in one argument, and Linux takes 131,071 bytes of it.
        """
        shards = list(range(self.shards))
        return [shards[start : start + MERGED] for start in range(0, self.shards, MERGED)]

    def configure(self, task: PipelineTask) -> PipelineTask:
        """Give a task its image, resources, retries, caching and what the cluster requires; returns it."""
        name = task.component_spec.name
        resources = RESOURCES[name]
        caching = (self.always_cache or "sha256:" in self.image) and resources.cached
        task.set_container_image(self.image).set_caching_options(caching)
        timeout, spec = self.cluster.timeouts.get(name, resources.timeout), None
        if name == TRAIN_STEP and self.platform == "kubeflow":
            spec = self.cluster.train_job_spec(self.image, self.gpus, self.gpu_type, timeout)
        accelerated = resources.accelerated and not spec  # the job's nodes are, the step waits
        size, own = WAITING if spec else resources.size, self.cluster.sizes.get(name, Size())
        task.set_cpu_request(own.cpu or size[0]).set_cpu_limit(own.cpu_limit or size[1])
        task.set_memory_request(own.memory or size[2]).set_memory_limit(own.memory_limit or size[3])
        gpus = self.gpus if own.gpus is None else own.gpus
        if accelerated and gpus:
            task.set_accelerator_type(self.gpu_type).set_accelerator_limit(gpus)
        if spec:
            task.set_env_variable(VARIABLE, spec.model_dump_json())
            kubernetes.use_field_path_as_env(task, RUN_ID, "metadata.labels['pipeline/runid']")
            kubernetes.use_field_path_as_env(task, SERVICE_ACCOUNT, "spec.serviceAccountName")
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
