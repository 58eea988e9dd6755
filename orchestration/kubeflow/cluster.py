"""What a cluster asks of the steps, from a YAML file: nodes, secrets, volumes, times, retries.

Only Kubeflow reads it (kfp-kubernetes puts it into the platform part of the IR); a local run and Vertex AI
Pipelines run the same DAG without it. `deploy/cluster/cluster.yaml` is an example with every setting.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from kfp import kubernetes
from kfp.dsl import PipelineTask
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from common.errors import UserError
from orchestration.train_job.spec import Order

USER = 10001  # of the image


class ClusterError(UserError, ValueError):
    """The cluster file is wrong; the message names the setting."""


class Part(BaseModel):
    """A part of the file: no setting that is not known."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Toleration(Part):
    """A taint that steps may bear, as Kubernetes writes it; without an effect, every effect."""

    key: str | None = None
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str | None = None
    effect: Literal["NoExecute", "NoSchedule", "PreferNoSchedule"] | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> Toleration:
        if self.operator == "Exists" and self.value is not None:
            raise ValueError("an Exists toleration takes no value")
        if self.key is None and self.operator != "Exists":
            raise ValueError("a toleration without a key must be Exists")
        return self


class Nodes(Part):
    """Where steps may run."""

    selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()


class Secret(Part):
    """A Kubernetes Secret for every step: keys as environment variables, or all of it as files."""

    name: str = Field(min_length=1)
    env: dict[str, str] = {}  # key of the Secret -> environment variable
    path: str = ""  # folder to mount it at

    @model_validator(mode="after")
    def _is_used(self) -> Secret:
        if bool(self.env) == bool(self.path):
            raise ValueError(f"secret {self.name} needs either env or path")
        return self


class Cache(Part):
    """A volume that survives runs: fetched sources, text vectors and training checkpoints."""

    claim: str = Field(
        min_length=1
    )  # a PersistentVolumeClaim, ReadWriteMany where steps run on several nodes
    path: str = "/cache"

    @field_validator("path")
    @classmethod
    def _is_absolute(cls, path: str) -> str:
        if not path.startswith("/"):
            raise ValueError("the path of the cache must be absolute")
        return path.rstrip("/") or "/"


class Retries(Part):
    """How often a failed step is tried again, and how long to wait before: 30 s, 60 s, 120 s, ..."""

    count: int = Field(default=2, ge=0, le=10)
    backoff: str = Field(default="30s", pattern=r"^[0-9]+s$")
    factor: float = Field(default=2.0, ge=1)
    longest: str = Field(default="600s", pattern=r"^[0-9]+s$")


class Notify(Part):
    """The Secret that holds the URL of a webhook, which is told how each run ended."""

    secret: str = Field(min_length=1)
    key: str = "url"


class TrainJob(Part):
    """The Kubeflow TrainJob that trains CAR on several nodes, in place of the step."""

    nodes: int = Field(default=2, ge=1)
    processes: int = Field(default=1, ge=1)  # of a node; with accelerators one for each instead
    runtime: str = Field(default="torch-distributed", min_length=1)
    cpu: str = "8"  # of a node, as the memory
    memory: str = "16Gi"


class Cluster(Part):
    """Everything of the file; what is not said keeps its default."""

    nodes: Nodes = Nodes()  # of every step
    accelerated: Nodes = Nodes()  # of the steps that train, on top
    secrets: tuple[Secret, ...] = ()
    image_pull_secrets: tuple[str, ...] = ()
    annotations: dict[str, str] = {}
    cache: Cache | None = None
    retries: Retries = Retries()
    timeouts: dict[str, int] = {}  # seconds a try of a step may take, by step
    notify: Notify | None = None
    train_job: TrainJob | None = None

    @model_validator(mode="after")
    def _nodes_share_a_folder(self) -> Cluster:
        if self.train_job and not self.cache:
            raise ValueError("a train_job needs a cache: its nodes and the step share that volume")
        return self

    def kept(self, *parts: str) -> str:
        """A folder of the cache as steps see it; "" where there is no cache."""
        return str(Path(self.cache.path, *parts)) if self.cache else ""

    def settle(self, task: PipelineTask, *, accelerated: bool, keeps: bool, seconds: int) -> None:
        """Give one task what this cluster asks of it.

        Args:
            accelerated: it runs where the accelerators are.
            keeps: it reads and writes the cache.
            seconds: the time that a try may take.
        """
        kubernetes.set_timeout(task, seconds)
        kubernetes.set_security_context(task, run_as_user=USER, run_as_non_root=True)
        for nodes in (self.nodes, self.accelerated) if accelerated else (self.nodes,):
            _place(task, nodes)
        for secret in self.secrets:
            if secret.env:
                kubernetes.use_secret_as_env(task, secret.name, dict(secret.env))
            else:
                kubernetes.use_secret_as_volume(task, secret.name, secret.path)
        if self.image_pull_secrets:
            kubernetes.set_image_pull_secrets(task, list(self.image_pull_secrets))
        for name, value in self.annotations.items():
            kubernetes.add_pod_annotation(task, name, value)
        if self.cache and keeps:
            kubernetes.mount_pvc(task, self.cache.claim, self.cache.path)

    def order(self, image: str, gpus: int, gpu_type: str, seconds: int) -> Order:
        """What the step that trains is told, where the cluster has a train_job."""
        if not (job := self.train_job) or not self.cache:
            raise ClusterError("The cluster file has no train_job.")
        tolerations = (*self.nodes.tolerations, *self.accelerated.tolerations)
        return Order(
            nodes=job.nodes,
            processes=gpus or job.processes,
            runtime=job.runtime,
            image=image,
            resources={"cpu": job.cpu, "memory": job.memory, **({gpu_type: str(gpus)} if gpus else {})},
            claim=self.cache.claim,
            path=self.cache.path,
            selector=self.nodes.selector | self.accelerated.selector,
            tolerations=tuple(one.model_dump(exclude_none=True) for one in tolerations),
            pull_secrets=self.image_pull_secrets,
            user=USER,
            seconds=seconds,
        )

    def arm(self, task: PipelineTask) -> None:
        """Give the exit task the URL of the webhook."""
        if self.notify:
            kubernetes.use_secret_as_env(task, self.notify.secret, {self.notify.key: "CAR_NOTIFY_URL"})


def _place(task: PipelineTask, nodes: Nodes) -> None:
    for label, value in nodes.selector.items():
        kubernetes.add_node_selector(task, label, value)
    for one in nodes.tolerations:
        kubernetes.add_toleration(task, one.key, one.operator, one.value, one.effect)


def load_cluster(path: Path | str | None) -> Cluster:
    """The settings in a cluster file; the defaults without one.

    Raises:
        ClusterError: it is missing, no YAML, or holds a setting that is unknown or wrong.
    """
    if path is None:
        return Cluster()
    try:
        read = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterError(f"The cluster file {path} can't be read: {error}.") from error
    except yaml.YAMLError as error:
        raise ClusterError(f"The cluster file {path} is no YAML: {' '.join(str(error).split())}.") from error
    try:
        return Cluster.model_validate({} if read is None else read)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ClusterError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}.") from error
