"""Kubeflow Trainer's three clients behind one call: start the processes of a training in a shared folder.

All end up as `torchrun -m car_model.training.torchrun_job`, but the SDK takes other things: an image and a
command; in containers and on this machine a function, whose source it writes to a file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from car_model.training.torchrun_job import FOLDER, PARENT
from common.code_digest import ROOT
from orchestration.train_job.spec import Order

if TYPE_CHECKING:
    from kubeflow.trainer import TrainerClient

TORCHRUN = ["torch.distributed.run", "--module", "car_model.training.torchrun_job"]
WORKSPACE = "/workspace"  # where the SDK's containers see the one folder they share
QUIET = {"PYTHONUNBUFFERED": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def connect(order: Order) -> TrainerClient:
    """The SDK's client of an order's backend."""
    from kubeflow.common.types import KubernetesBackendConfig
    from kubeflow.trainer import ContainerBackendConfig, LocalProcessBackendConfig, TrainerClient
    from kubeflow.trainer.backends.container.types import TrainingRuntimeSource

    if order.backend == "process":
        return TrainerClient(LocalProcessBackendConfig())
    if order.backend == "container":
        # Built-in runtimes alone, nothing fetched; the shared folder is ours and not removed with a job.
        config = ContainerBackendConfig(
            pull_policy="Never",
            auto_remove=False,
            container_runtime="docker",
            runtime_source=TrainingRuntimeSource(sources=[]),
        )
        return TrainerClient(config)
    return TrainerClient(KubernetesBackendConfig())


def start(client: TrainerClient, order: Order, name: str, shared: Path, folder: Path) -> None:
    """Start a job by the name given.

    Args:
        shared: the folder that all nodes see.
        folder: of the training, below it.
    """
    starts: dict[str, Callable[..., None]] = {
        "kubernetes": _on_kubernetes,
        "container": _in_containers,
        "process": _here,
    }
    starts[order.backend](client, order, name, shared, folder)


def remove(client: TrainerClient, order: Order, name: str) -> None:
    """Remove a job, and end its processes where some still run."""
    with contextlib.suppress(Exception):  # what can't be removed is Kubeflow's to collect
        client.delete_job(name)
    if order.backend == "process":
        for child in psutil.Process().children(recursive=True):  # the job's: a step starts nothing else
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        for left in Path(tempfile.gettempdir()).glob(f"{name}*"):  # the SDK keeps it after a failure
            shutil.rmtree(left, ignore_errors=True)
    if order.backend == "container":
        _workdir(name).unlink(missing_ok=True)


def _on_kubernetes(client: Any, order: Order, name: str, shared: Path, folder: Path) -> None:
    from kubeflow.trainer import CustomTrainerContainer
    from kubeflow.trainer.options import ActiveDeadlineSeconds, Labels, Name, TrainerArgs, TrainerCommand

    options: list[Any] = [
        Name(name),
        Labels({"app.kubernetes.io/part-of": "car-on-kubeflow"}),
        TrainerCommand(["python", "-m"]),
        TrainerArgs([*TORCHRUN[:1], f"--nproc-per-node={order.processes}", *TORCHRUN[1:]]),
        _patch(order),
    ]
    options += [ActiveDeadlineSeconds(order.seconds)] if order.seconds else []
    trainer = CustomTrainerContainer(
        image=order.image,
        num_nodes=order.nodes,
        resources_per_node=order.resources or None,
        env={**QUIET, FOLDER: str(folder)},
    )
    client.train(runtime=order.runtime, trainer=trainer, options=options)


def _patch(order: Order) -> Any:
    """What the runtime does not know: the volume, the place, the user."""
    from kubeflow.trainer.options import (
        ContainerPatch,
        JobSetSpecPatch,
        JobSetTemplatePatch,
        JobSpecPatch,
        JobTemplatePatch,
        PodSpecPatch,
        PodTemplatePatch,
        ReplicatedJobPatch,
        RuntimePatch,
        TrainingRuntimeSpecPatch,
    )

    mount = [{"name": "car-shared", "mountPath": order.path}]
    pod = PodSpecPatch(
        volumes=[{"name": "car-shared", "persistentVolumeClaim": {"claimName": order.claim}}],
        containers=[ContainerPatch(name="node", volume_mounts=mount)],
        security_context={"runAsUser": order.user, "runAsNonRoot": True, "fsGroup": order.user},
        node_selector=order.selector or None,
        tolerations=[dict(one) for one in order.tolerations] or None,
        image_pull_secrets=[{"name": one} for one in order.pull_secrets] or None,
    )
    job = ReplicatedJobPatch("node", JobTemplatePatch(spec=JobSpecPatch(PodTemplatePatch(spec=pod))))
    jobs = JobSetTemplatePatch(spec=JobSetSpecPatch([job]))
    return RuntimePatch(training_runtime_spec=TrainingRuntimeSpecPatch(template=jobs))


def _in_containers(client: Any, order: Order, name: str, shared: Path, folder: Path) -> None:
    from kubeflow.trainer import CustomTrainer
    from kubeflow.trainer.options import Name

    # The SDK mounts one folder, by a name of its own: that name leads to ours.
    link = _workdir(name)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(shared.resolve())
    for place in (shared, folder, folder / "failed"):
        place.chmod(0o777)  # the image's user is not this one
    env = {**QUIET, FOLDER: str(Path(WORKSPACE) / folder.relative_to(shared))}
    trainer = CustomTrainer(func=_process, image=order.image, num_nodes=order.nodes, env=env)
    client.train(runtime=order.runtime, trainer=trainer, options=[Name(name)])


def _here(client: Any, order: Order, name: str, shared: Path, folder: Path) -> None:
    from kubeflow.trainer import CustomTrainer
    from kubeflow.trainer.options import Name

    runtime = client.get_runtime(order.runtime)
    runtime.trainer.framework = "python"  # one interpreter; torch's would be a torchrun installed anew
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    env = {**os.environ, **QUIET, FOLDER: str(folder), PARENT: str(os.getpid()), "PYTHONPATH": path}
    env |= {"CAR_PYTHON": sys.executable, "CAR_PROCESSES": str(order.processes)}
    client.train(runtime=runtime, trainer=CustomTrainer(func=_torchrun, env=env), options=[Name(name)])


def _workdir(name: str) -> Path:
    return Path.home() / ".kubeflow" / "trainer" / "containers" / name


def _process() -> None:
    # Its source is run by torchrun in a container, without what is around it here.
    import os

    from car_model.training.torchrun_job import main

    os.umask(0)
    main()


def _torchrun(_: object = None) -> None:
    # Its source is run by an empty environment's interpreter, which becomes this project's torchrun.
    import os

    python, processes = os.environ["CAR_PYTHON"], os.environ["CAR_PROCESSES"]
    words = ["--standalone", "--nproc-per-node", processes, "--module", "car_model.training.torchrun_job"]
    os.execv(python, [python, "-m", "torch.distributed.run", *words])  # noqa: S606
