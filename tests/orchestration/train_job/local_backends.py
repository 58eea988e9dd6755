"""Backends of Kubeflow Trainer for one machine: processes, and containers of a Docker engine.

They start the same `torchrun -m car_model.training.torchrun_job` as the Kubernetes backend does, but the SDK
takes a function here, whose source it writes to a file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from car_model.training.torchrun_job import FOLDER, PARENT
from common.code_digest import ROOT
from orchestration.train_job.backends import ENVIRONMENT
from orchestration.train_job.spec import TrainJobSpec

if TYPE_CHECKING:
    from kubeflow.trainer import TrainerClient

WORKSPACE = "/workspace"  # where the SDK's containers see the one folder they share


class WithoutPods:
    """Nothing keeps this machine's nodes from starting."""

    def obstacle(self, client: TrainerClient, name: str, nodes: int) -> None:
        """None."""

    def last_words(self, client: TrainerClient, name: str) -> str:
        """None either."""
        return ""


class ProcessBackend(WithoutPods):
    """One node, whose processes run on this machine."""

    poll_seconds = 0.5

    def connect(self) -> TrainerClient:
        """The SDK's client for processes."""
        from kubeflow.trainer import LocalProcessBackendConfig, TrainerClient

        return TrainerClient(LocalProcessBackendConfig())

    def start(self, client: TrainerClient, spec: TrainJobSpec, name: str, shared: Path, folder: Path) -> None:
        """Start torchrun in this environment."""
        from kubeflow.trainer import CustomTrainer
        from kubeflow.trainer.options import Name

        runtime = client.get_runtime(spec.runtime)
        runtime.trainer.framework = "python"  # one interpreter; torch's would be a torchrun installed anew
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        env = {**os.environ, **ENVIRONMENT, FOLDER: str(folder), PARENT: str(os.getpid()), "PYTHONPATH": path}
        env |= {"CAR_PYTHON": sys.executable, "CAR_PROCESSES": str(spec.processes)}
        trainer = CustomTrainer(func=_torchrun, env=env)
        client.train(runtime=runtime, trainer=trainer, options=[Name(name)])

    def remove(self, client: TrainerClient, name: str) -> None:
        """Delete the job, its processes and the SDK's folders."""
        with contextlib.suppress(Exception):
            client.delete_job(name)
        for child in psutil.Process().children(recursive=True):  # the job's: a step starts nothing else
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        for left in Path(tempfile.gettempdir()).glob(f"{name}*"):  # the SDK keeps it after a failure
            shutil.rmtree(left, ignore_errors=True)


class ContainerBackend(WithoutPods):
    """Nodes that are containers, one process each."""

    poll_seconds = 1.0

    def connect(self) -> TrainerClient:
        """The SDK's client for containers: built-in runtimes alone, nothing fetched."""
        from kubeflow.trainer import ContainerBackendConfig, TrainerClient
        from kubeflow.trainer.backends.container.types import TrainingRuntimeSource

        config = ContainerBackendConfig(
            pull_policy="Never",
            auto_remove=False,  # the shared folder is ours
            container_runtime="docker",
            runtime_source=TrainingRuntimeSource(sources=[]),
        )
        return TrainerClient(config)

    def start(self, client: TrainerClient, spec: TrainJobSpec, name: str, shared: Path, folder: Path) -> None:
        """Start the containers; the SDK mounts one folder, by a name of its own, which is linked to ours."""
        from kubeflow.trainer import CustomTrainer
        from kubeflow.trainer.options import Name

        link = _workdir(name)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(shared.resolve())
        for path in (shared, folder, folder / "failed"):
            path.chmod(0o777)  # the image's user is another
        env = {**ENVIRONMENT, FOLDER: str(Path(WORKSPACE) / folder.relative_to(shared))}
        trainer = CustomTrainer(func=_process, image=spec.image, num_nodes=spec.nodes, env=env)
        client.train(runtime=spec.runtime, trainer=trainer, options=[Name(name)])

    def remove(self, client: TrainerClient, name: str) -> None:
        """Delete the job and the link."""
        with contextlib.suppress(Exception):
            client.delete_job(name)
        _workdir(name).unlink(missing_ok=True)


BACKENDS = {"process": ProcessBackend, "container": ContainerBackend}


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
