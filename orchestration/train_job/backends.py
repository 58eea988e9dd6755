"""How Kubeflow Trainer starts a training job: every process is `car_model.training.torchrun_job`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from car_model.training.torchrun_job import FOLDER
from orchestration.train_job.spec import TrainJobSpec

if TYPE_CHECKING:
    from kubeflow.trainer import TrainerClient

ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "OMP_WAIT_POLICY": "PASSIVE"}
VOLUME = "car-shared"


class KubernetesBackend:
    """A TrainJob on the cluster that this step runs in; the tests have others, for one machine."""

    poll_seconds = 10.0  # between looks at a running job

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
            image_pull_secrets=[{"name": secret} for secret in spec.pull_secrets] or None,
        )
        pod_template = options.PodTemplatePatch(spec=pod)
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

    def remove(self, client: TrainerClient, name: str) -> None:
        """Delete the TrainJob, if it is still there."""
        with contextlib.suppress(Exception):  # Kubeflow collects what can't be deleted now
            client.delete_job(name)
