"""How Kubeflow Trainer starts a training job: every process is `car_model.training.torchrun_job`."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from car_model.training.torchrun_job import FOLDER
from orchestration.train_job.obstacles import Obstacle, find_obstacle, last_words
from orchestration.train_job.spec import SERVICE_ACCOUNT, TrainJobSpec

if TYPE_CHECKING:
    from kubeflow.trainer import TrainerClient

ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "OMP_WAIT_POLICY": "PASSIVE"}
VOLUME = "car-shared"


class KubernetesBackend:
    """A TrainJob on the cluster that this step runs in; the tests have others, for one machine."""

    poll_seconds = 10.0  # between looks at a running job

    def __init__(self) -> None:
        self._unseen: set[str] = set()  # what this account may not list

    def connect(self) -> TrainerClient:
        """A client of the cluster's Kubeflow Trainer."""
        from kubeflow.common.types import KubernetesBackendConfig
        from kubeflow.trainer import TrainerClient

        return TrainerClient(KubernetesBackendConfig())

    def start(self, client: TrainerClient, spec: TrainJobSpec, name: str, shared: Path, folder: Path) -> None:
        """Create a TrainJob; the runtime is patched with the volume, the nodes and the rights.

        Args:
            shared: the folder that all nodes see.
            folder: of the training, below `shared`.
        """
        from kubeflow.trainer import CustomTrainerContainer, options

        pod = options.PodSpecPatch(
            volumes=[{"name": VOLUME, "persistentVolumeClaim": {"claimName": spec.claim}}],
            containers=[
                options.ContainerPatch(
                    name="node",
                    volume_mounts=[{"name": VOLUME, "mountPath": spec.path}],
                    security_context={"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                )
            ],
            security_context={
                "runAsUser": spec.user,
                "runAsNonRoot": True,
                "fsGroup": spec.user,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            node_selector=spec.selector or None,
            tolerations=[dict(toleration) for toleration in spec.tolerations] or None,
            service_account_name=os.environ.get(SERVICE_ACCOUNT) or None,
            image_pull_secrets=[{"name": secret} for secret in spec.pull_secrets] or None,
        )
        pod_template = options.PodTemplatePatch(
            metadata={"annotations": dict(spec.annotations)} if spec.annotations else None, spec=pod
        )
        job = options.ReplicatedJobPatch(
            "node", options.JobTemplatePatch(spec=options.JobSpecPatch(pod_template))
        )
        job_set = options.JobSetTemplatePatch(spec=options.JobSetSpecPatch([job]))
        arguments = ["torch.distributed.run", f"--nproc-per-node={spec.processes}"]
        arguments += ["--module", "car_model.training.torchrun_job"]
        settings = [
            options.Name(name),
            options.Labels({"app.kubernetes.io/part-of": "car-on-kubeflow"}),
            options.TrainerCommand(["python", "-m"]),
            options.TrainerArgs(arguments),
            options.RuntimePatch(training_runtime_spec=options.TrainingRuntimeSpecPatch(template=job_set)),
        ]
        if spec.seconds:
            settings.append(options.ActiveDeadlineSeconds(spec.seconds))
        trainer = CustomTrainerContainer(
            image=spec.image,
            num_nodes=spec.nodes,
            resources_per_node=spec.resources or None,
            env={**ENVIRONMENT, FOLDER: str(folder)},
        )
        client.train(runtime=spec.runtime, trainer=trainer, options=settings)

    def obstacle(self, client: Any, name: str, nodes: int) -> Obstacle | None:
        """What keeps a job of so many nodes from training now; None if nothing does, or it can't be seen."""
        return find_obstacle(nodes, self._pods(client, name), self._warnings(client, name))

    def last_words(self, client: Any, name: str) -> str:
        """What Kubernetes says about a pod of the job that failed, in a sentence; "" for nothing."""
        return last_words(self._pods(client, name))

    def _pods(self, client: Any, name: str) -> list[Any]:
        label = f"jobset.sigs.k8s.io/jobset-name={name}"
        return self._items(client, "pods", client.backend.core_api.list_namespaced_pod, label_selector=label)

    def _warnings(self, client: Any, name: str) -> list[Any]:
        """Events about the job's Jobs and pods, which the SDK leaves out."""
        call = client.backend.core_api.list_namespaced_event
        events = self._items(client, "events", call, field_selector="type=Warning")
        return [event for event in events if event["involvedObject"]["name"].startswith(f"{name}-")]

    def _items(self, client: Any, kind: str, call: Callable[..., Any], **selector: str) -> list[Any]:
        try:
            answer = call(client.backend.namespace, _preload_content=False, _request_timeout=30, **selector)
            return list(json.loads(answer.data)["items"])
        except Exception as error:  # the job goes on; what it lacks will be known later, or by its deadline
            if getattr(error, "status", None) == 403 and kind not in self._unseen:
                self._unseen.add(kind)
                logging.getLogger(__name__).warning(
                    "The %s of the training job can't be seen, so what keeps it from starting can't be "
                    "told: the service account needs the rights in deploy/cluster/trainer.yaml.",
                    kind,
                )
            return []

    def remove(self, client: TrainerClient, name: str) -> None:
        """Delete the TrainJob, if it is still there."""
        with contextlib.suppress(Exception):  # Kubeflow collects what can't be deleted now
            client.delete_job(name)
