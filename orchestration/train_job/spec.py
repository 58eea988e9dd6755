"""What a cluster asks of a training job, as the train step is told it: JSON in an environment variable."""

from __future__ import annotations

import os
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

ORDER = "CAR_TRAIN_JOB"


class Order(BaseModel):
    """A training job of Kubeflow Trainer.

    Attributes:
        backend: kubernetes in production; process and container for one machine, as the SDK's clients are.
        nodes, processes: how many, and of each node how many; process has one node, container one a node.
        runtime: the ClusterTrainingRuntime or TrainingRuntime to build on; it must be torch's.
        image: of the nodes; on this machine's own processes, none.
        resources: of a node, such as {"cpu": "8", "memory": "16Gi", "nvidia.com/gpu": "1"}.
        claim, path: the volume that nodes and step share, and where both mount it.
        selector, tolerations, pull_secrets: where nodes run and what they may pull, as Kubernetes writes it.
        user: what nodes run as.
        seconds: the time a job may take; 0 for any.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backend: Literal["kubernetes", "process", "container"] = "kubernetes"
    nodes: int = Field(default=1, ge=1)
    processes: int = Field(default=1, ge=1)
    runtime: str = "torch-distributed"
    image: str = ""
    resources: dict[str, str] = {}
    claim: str = ""
    path: str = ""
    selector: dict[str, str] = {}
    tolerations: tuple[dict[str, Any], ...] = ()
    pull_secrets: tuple[str, ...] = ()
    user: int = 10001
    seconds: int = Field(default=0, ge=0)

    @property
    def world(self) -> int:
        """Processes of all nodes."""
        return self.nodes * self.processes


def ordered() -> Order | None:
    """The order for this step, if it shall hand its training over."""
    told = os.environ.get(ORDER, "")
    return Order.model_validate_json(told) if told else None
