"""What a training job needs, passed to the train step as JSON in an environment variable."""

from __future__ import annotations

import os
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

VARIABLE = "CAR_TRAIN_JOB"
RUN_ID = "CAR_RUN_ID"  # of the step's pod, from its labels
SERVICE_ACCOUNT = "CAR_SERVICE_ACCOUNT"  # of the step's pod


class TrainJobSpec(BaseModel):
    """A training job of Kubeflow Trainer."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    nodes: int = Field(default=1, ge=1)
    """How many pods train."""
    processes: int = Field(default=1, ge=1)
    """Training processes per node; with accelerators one for each."""
    runtime: str = "torch-distributed"
    """The ClusterTrainingRuntime or TrainingRuntime to build on; it must be torch's."""
    image: str = ""
    """Container image of the nodes."""
    resources: dict[str, str] = {}
    """Per node, such as {"cpu": "8", "memory": "16Gi", "nvidia.com/gpu": "1"}."""
    claim: str = ""
    """PersistentVolumeClaim that nodes and step share."""
    path: str = ""
    """Where both mount the claim."""
    selector: dict[str, str] = {}
    """Node labels that the pods require."""
    tolerations: tuple[dict[str, Any], ...] = ()
    """Taints that the pods tolerate, as Kubernetes writes them."""
    pull_secrets: tuple[str, ...] = ()
    """Names of the Secrets to pull the image with."""
    annotations: dict[str, str] = {}
    """Annotations of the pods."""
    user: int = 10001
    """User id of the pods."""
    seconds: int = Field(default=0, ge=0)
    """Deadline of the job; 0 for none."""

    @property
    def world(self) -> int:
        """Processes of all nodes."""
        return self.nodes * self.processes


def spec_from_env() -> TrainJobSpec | None:
    """The job that shall train instead of this step; None if the step trains itself."""
    text = os.environ.get(VARIABLE, "")
    return TrainJobSpec.model_validate_json(text) if text else None
