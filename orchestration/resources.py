"""What KFP fixes when a pipeline is compiled: image, sizes, accelerators, times, retries, caching."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kfp.dsl import PipelineTask

from orchestration.kubeflow.cluster import Cluster, ClusterError
from orchestration.step import IMAGE
from orchestration.train_job.spec import ORDER

Platform = Literal["kubeflow", "vertex"]


@dataclass(frozen=True)
class Size:
    """Requests and limits of a step, in Kubernetes' units."""

    cpu: tuple[str, str]
    memory: tuple[str, str]


SMALL = Size(cpu=("250m", "1"), memory=("512Mi", "2Gi"))
MEDIUM = Size(cpu=("1", "4"), memory=("2Gi", "8Gi"))
LARGE = Size(cpu=("2", "8"), memory=("4Gi", "16Gi"))
QUICK, HOURS, DAY = 1800, 6 * 3600, 24 * 3600  # seconds


@dataclass(frozen=True)
class Placement:
    """How a step runs.

    Attributes:
        seconds: the time that one try may take; the cluster file may say otherwise.
        cached: whether an earlier equal run may stand for it.
        accelerated: whether it uses a GPU.
        keeps: whether it reads and writes the cache that survives runs.
    """

    size: Size
    seconds: int = QUICK
    cached: bool = True
    accelerated: bool = False
    keeps: bool = False


EXIT = "conclude"  # runs whatever happened before
HANDED = "train"  # the step whose work a training job can do
# Steps that ask about or change the world outside the run are never cached.
PLACEMENTS = {
    "resolve-champion": Placement(SMALL, cached=False),
    "resolve-source": Placement(SMALL, cached=False),
    "ingest": Placement(MEDIUM, HOURS, keeps=True),
    "validate": Placement(MEDIUM, HOURS),
    "choose-encoder": Placement(MEDIUM),
    "embed": Placement(LARGE, DAY, keeps=True),
    "merge": Placement(MEDIUM),
    "tokenize": Placement(LARGE, DAY, keeps=True),
    "train": Placement(LARGE, DAY, accelerated=True, keeps=True),
    "train-baseline": Placement(LARGE, DAY, accelerated=True, keeps=True),
    "train-ranker": Placement(LARGE, DAY, accelerated=True, keeps=True),
    "evaluate": Placement(LARGE, HOURS),
    "gate": Placement(SMALL),
    "report": Placement(SMALL),
    "package": Placement(SMALL),
    "infra-validate": Placement(MEDIUM),
    "release": Placement(SMALL, cached=False),
    "deploy": Placement(SMALL, cached=False),
    EXIT: Placement(SMALL, cached=False),
}


@dataclass(frozen=True)
class Options:
    """Choices of `compile` and `submit`.

    Attributes:
        image: container image of every step. Steps are cached only where it is named by digest: KFP's cache
            key holds the image's name, and a tag says nothing about the code behind it.
        gpus: accelerators for the steps that train, 0 for none.
        gpu_type: resource name of the accelerator; on Vertex AI its type, such as NVIDIA_L4.
        cluster: what the cluster asks of the steps.
        platform: vertex leaves out what only Kubernetes understands.
        shards: into how many parts the catalogue's texts are divided, which are embedded side by side.
        always_cache: the cache is kept apart by code already, as a local run's is.
    """

    image: str = IMAGE
    gpus: int = 0
    gpu_type: str = "nvidia.com/gpu"
    cluster: Cluster = field(default_factory=Cluster)
    platform: Platform = "kubeflow"
    shards: int = 1
    always_cache: bool = False

    def __post_init__(self) -> None:
        """Refuse times for steps that there are not.

        Raises:
            ClusterError: the cluster file names an unknown step.
        """
        if unknown := sorted(self.cluster.timeouts.keys() - PLACEMENTS.keys()):
            raise ClusterError(f"timeouts: there is no step {unknown[0]}; steps are {', '.join(PLACEMENTS)}.")

    @property
    def caches(self) -> bool:
        """Whether equal steps may be taken from earlier runs."""
        return self.always_cache or "sha256:" in self.image

    def place(self, task: PipelineTask) -> PipelineTask:
        """Give a task its image, size, retries, caching choice and its place in the cluster."""
        name = task.component_spec.name
        placement = PLACEMENTS[name]
        cpu, memory = placement.size.cpu, placement.size.memory
        task.set_container_image(self.image).set_caching_options(self.caches and placement.cached)
        task.set_cpu_request(cpu[0]).set_cpu_limit(cpu[1])
        task.set_memory_request(memory[0]).set_memory_limit(memory[1])
        seconds = self.cluster.timeouts.get(name, placement.seconds)
        handed = name == HANDED and self.platform == "kubeflow" and self.cluster.train_job is not None
        accelerated = placement.accelerated and not handed  # the job's nodes are, the step waits
        if accelerated and self.gpus:
            task.set_accelerator_type(self.gpu_type).set_accelerator_limit(self.gpus)
        if handed:
            order = self.cluster.order(self.image, self.gpus, self.gpu_type, seconds)
            task.set_env_variable(ORDER, order.model_dump_json())
        self._retry(task)
        if self.platform == "kubeflow":
            self.cluster.settle(task, accelerated=accelerated, keeps=placement.keeps, seconds=seconds)
            if name == EXIT:
                self.cluster.arm(task)
        return task

    def _retry(self, task: PipelineTask) -> None:
        """KFP retries whatever a step failed of; steps are idempotent, so that costs nothing but time."""
        retries = self.cluster.retries
        if retries.count:
            task.set_retry(retries.count, retries.backoff, retries.factor, retries.longest)
