"""The cluster file (YAML): nodes, secrets, volumes, timeouts and retries that a cluster requires of steps.

Only Kubeflow reads them (kfp-kubernetes puts them into the platform part of the IR); a local run and Vertex
AI Pipelines run the same DAG without them. `deploy/cluster/cluster.yaml` is an example.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from kfp import kubernetes
from kfp.dsl import PipelineTask
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from common.errors import UserError, first_problem
from orchestration.train_job.spec import TrainJobSpec

USER = 10001  # of the image
CPU, BYTES = r"^\d+(\.\d+|m)?$", r"^\d+(Ki|Mi|Gi|Ti|k|M|G|T)?$"
PLACEMENT = 1800  # seconds that a pod may wait for a node


class ClusterError(UserError, ValueError):
    """The cluster file is wrong; the message names the setting."""


class Section(BaseModel):
    """A part of the file; unknown settings are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Toleration(Section):
    """A taint that steps tolerate, as Kubernetes writes it."""

    key: str | None = None
    """The taint's key; without one the operator must be Exists, which tolerates every taint."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """Whether the value must be equal, or the key merely exist."""
    value: str | None = None
    """The taint's value, for Equal."""
    effect: Literal["NoExecute", "NoSchedule", "PreferNoSchedule"] | None = None
    """The taint's effect; without one, every effect."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Toleration:
        if self.operator == "Exists" and self.value is not None:
            raise ValueError("an Exists toleration takes no value")
        if self.key is None and self.operator != "Exists":
            raise ValueError("a toleration without a key must be Exists")
        return self


class Nodes(Section):
    """Which nodes steps may run on."""

    selector: dict[str, str] = {}
    """Labels that a node must have."""
    tolerations: tuple[Toleration, ...] = ()
    """Taints that a node may have."""


class Secret(Section):
    """A Kubernetes Secret for every step: either keys as environment variables, or all of it as files."""

    name: str = Field(min_length=1)
    """The Secret's name."""
    env: dict[str, str] = {}
    """Environment variable of each key of the Secret."""
    path: str = ""
    """Folder to mount the Secret at."""

    @model_validator(mode="after")
    def _is_used(self) -> Secret:
        if bool(self.env) == bool(self.path):
            raise ValueError(f"secret {self.name} needs either env or path")
        return self


class Cache(Section):
    """A volume that survives runs: fetched sources, text vectors and training checkpoints."""

    claim: str = Field(min_length=1)
    """A PersistentVolumeClaim; ReadWriteMany if steps run on several nodes."""
    path: str = "/cache"
    """Absolute path to mount it at."""

    @field_validator("path")
    @classmethod
    def _is_absolute(cls, path: str) -> str:
        if not path.startswith("/"):
            raise ValueError("the path of the cache must be absolute")
        return path.rstrip("/") or "/"


class Retries(Section):
    """How often a step whose pod was lost is tried again, and how long to wait before: 30 s, 60 s, ...

    Kubeflow Pipelines doesn't try a step again that failed or ran into its time limit.
    """

    count: int = Field(default=2, ge=0, le=10)
    """Retries after the first try."""
    backoff: str = Field(default="30s", pattern=r"^[0-9]+s$")
    """Seconds before the first retry."""
    factor: int = Field(default=2, ge=1, le=10)
    """Each wait is this many times the previous one, a whole number."""

    def window(self, seconds: int) -> int:
        """Seconds since a step's first start in which a try may begin, if each takes up to `seconds`.

        Argo gives a step up after them, however many tries are left.
        """
        first = int(self.backoff.removesuffix("s"))
        waits = sum(first * self.factor**retry for retry in range(self.count))
        return self.count * (seconds + PLACEMENT) + waits


class Size(Section):
    """How large the pod of a step is, in Kubernetes' units; what is left out keeps its default.

    Kubeflow Pipelines has no setting for the size of a pod's disk.
    """

    cpu: str | None = Field(default=None, pattern=CPU)
    """CPUs that are reserved for it, such as `"1"` or `500m`."""
    cpu_limit: str | None = Field(default=None, pattern=CPU)
    """CPUs that it may use."""
    memory: str | None = Field(default=None, pattern=BYTES)
    """Memory that is reserved for it, such as `4Gi`."""
    memory_limit: str | None = Field(default=None, pattern=BYTES)
    """Memory at which it is ended."""
    gpus: int | None = Field(default=None, ge=0)
    """Accelerators of a step that trains, instead of `--gpu`."""


class Notify(Section):
    """The Secret that holds the URL of a webhook, to which each run's summary is posted."""

    secret: str = Field(min_length=1)
    """The Secret's name."""
    key: str = "url"
    """The key that holds the URL."""


class TrainJob(Section):
    """The Kubeflow TrainJob that trains CAR on several nodes, instead of the train step."""

    nodes: int = Field(default=2, ge=1)
    """How many pods train."""
    processes: int = Field(default=1, ge=1)
    """Processes per node; with accelerators one for each instead."""
    runtime: str = Field(default="torch-distributed", min_length=1)
    """The ClusterTrainingRuntime to build on."""
    cpu: str = "8"
    """CPUs per node."""
    memory: str = "16Gi"
    """Memory per node."""


class Cluster(Section):
    """The whole file; every setting has a default."""

    nodes: Nodes = Nodes()
    """Nodes of every step."""
    accelerated: Nodes = Nodes()
    """Further conditions for the steps that train."""
    secrets: tuple[Secret, ...] = ()
    """Secrets of every step."""
    image_pull_secrets: tuple[str, ...] = ()
    """Secrets to pull the image with."""
    annotations: dict[str, str] = {}
    """Annotations of every step's pod."""
    cache: Cache | None = None
    """The volume that survives runs."""
    retries: Retries = Retries()
    """Retries of every step."""
    timeouts: dict[str, int] = {}
    """Seconds that one try may take, by step name."""
    sizes: dict[str, Size] = {}
    """CPU, memory and accelerators, by step name."""
    notify: Notify | None = None
    """Webhook for run summaries."""
    train_job: TrainJob | None = None
    """Training on several nodes; needs a cache."""

    @model_validator(mode="after")
    def _nodes_share_a_folder(self) -> Cluster:
        if self.train_job and not self.cache:
            raise ValueError("a train_job needs a cache: its nodes and the step share that volume")
        return self

    def cache_path(self, *parts: str) -> str:
        """A folder of the cache as steps see it; "" without a cache."""
        return str(Path(self.cache.path, *parts)) if self.cache else ""

    def apply_to_task(
        self, task: PipelineTask, *, accelerated: bool, uses_cache: bool, uses_webhook: bool, seconds: int
    ) -> None:
        """Give one task what this cluster requires of it; `seconds` is the time that one try may take."""
        kubernetes.set_timeout(task, seconds)
        kubernetes.set_security_context(task, run_as_user=USER, run_as_non_root=True)
        for nodes in (self.nodes, self.accelerated) if accelerated else (self.nodes,):
            for label, value in nodes.selector.items():
                kubernetes.add_node_selector(task, label, value)
            for item in nodes.tolerations:
                kubernetes.add_toleration(task, item.key, item.operator, item.value, item.effect)
        for secret in self.secrets:
            if secret.env:
                kubernetes.use_secret_as_env(task, secret.name, dict(secret.env))
            else:
                kubernetes.use_secret_as_volume(task, secret.name, secret.path)
        if self.image_pull_secrets:
            kubernetes.set_image_pull_secrets(task, list(self.image_pull_secrets))
        for name, value in self.annotations.items():
            kubernetes.add_pod_annotation(task, name, value)
        if self.cache and uses_cache:
            kubernetes.mount_pvc(task, self.cache.claim, self.cache.path)
        if self.notify and uses_webhook:
            kubernetes.use_secret_as_env(task, self.notify.secret, {self.notify.key: "CAR_NOTIFY_URL"})

    def train_job_spec(self, image: str, gpus: int, gpu_type: str, seconds: int) -> TrainJobSpec | None:
        """The training job that the train step starts; None if it trains itself."""
        if not (job := self.train_job) or not self.cache:
            return None
        tolerations = (*self.nodes.tolerations, *self.accelerated.tolerations)
        return TrainJobSpec(
            nodes=job.nodes,
            processes=gpus or job.processes,
            runtime=job.runtime,
            image=image,
            resources={"cpu": job.cpu, "memory": job.memory, **({gpu_type: str(gpus)} if gpus else {})},
            claim=self.cache.claim,
            path=self.cache.path,
            selector=self.nodes.selector | self.accelerated.selector,
            tolerations=tuple(item.model_dump(exclude_none=True) for item in tolerations),
            pull_secrets=self.image_pull_secrets,
            annotations=self.annotations,
            user=USER,
            seconds=seconds,
        )


def load_cluster(path: Path | str | None) -> Cluster:
    """The settings in a cluster file; the defaults without one.

    Raises:
        ClusterError: the file is missing, not YAML, or holds a setting that is unknown or wrong.
    """
    if path is None:
        return Cluster()
    try:
        settings = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        return Cluster.model_validate({} if settings is None else settings)
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterError(f"The cluster file {path} can't be read: {error}.") from error
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise ClusterError(f"The cluster file {path} is not valid YAML: {problem}.") from error
    except ValidationError as error:
        raise ClusterError(f"{path}: {first_problem(error)}") from error
