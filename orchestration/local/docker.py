"""Run the steps of a local run in containers: kfp.local's DockerRunner, with reliable exit codes.

kfp.local lets the engine remove a container as soon as it ends, and takes a missing one for a success: a
step that fails at once can pass. Here a container is kept until its exit code is read. It gets no more than
the step needs: this user, no capabilities, a read-only system, and a network only if the step uses it.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from kfp import local
from kfp.dsl import Artifact
from kfp.dsl.graph_component import GraphComponent

from car_model.encoding.encoder import EMBEDDED
from car_model.evidence.verdict import Verdict
from common.code_digest import image_digest
from common.errors import UserError
from orchestration.local.runner import ENDED_WITHOUT, LocalRun
from orchestration.resources import CompileOptions
from registry.cli.options import this_user
from registry.store.open import open_store
from serving.deployment.deploy_channel import deploy_channel

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

CODE_LABEL = "car-on-kubeflow.code"  # label of the image: digest of the code in it
DRIVER = "car-on-kubeflow.driver"  # label: id of the process that waits for the container
SETTINGS: dict[str, Any] = {
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "read_only": True,
    "tmpfs": {"/tmp": "exec"},  # noqa: S108 - a file system of the container's own
    "init": True,  # forwards signals and reaps leftover processes
}
ENVIRONMENT = {"HOME": "/tmp", "USER": "car", "TQDM_MININTERVAL": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # noqa: S108


class ContainerError(UserError, RuntimeError):
    """Steps cannot run in containers here; the message is one sentence that says what to do."""


@dataclass(frozen=True)
class Containers:
    """What the containers of one run get."""

    image: str  # id of the image of all steps
    writable: tuple[Path, ...]  # folders to mount at the paths that they have here, as those that are
    readable: tuple[Path, ...] = ()
    network: bool = False  # steps may use the network

    @classmethod
    def prepare(cls, image: str, work: Path, arguments: Mapping[str, Any], encoder: str) -> Containers:
        """Find out which folders a run with these pipeline parameters needs, and whether it needs a network.

        Args:
            encoder: name or folder of the text encoder that the run will use.

        Raises:
            ContainerError: no engine answers, or the image is missing or holds other code.
        """
        with engine() as client:
            image_id = find_image(client, image)
            remove_orphans(client)
        stores = [str(arguments.get(name) or "") for name in ("registry", "cache", "checkpoints")]
        source = json.loads(arguments["source"])
        inputs = [source[part]["location"] for part in ("interactions", "items")]
        master = source.get("spark", {}).get("master", "") if source.get("engine") == "spark" else ""
        remote = any("://" in path for path in (*stores, *inputs, master))
        writable = (work.resolve(), *(Path(path) for path in stores if path and "://" not in path))
        readable = [Path(path).parent for path in inputs if "://" not in path]
        readable += [Path(encoder)] if Path(encoder).is_dir() else []
        needs_hub = encoder != EMBEDDED and not Path(encoder).is_dir()
        return cls(image_id, writable, tuple(dict.fromkeys(readable)), remote or needs_hub)

    def runner(self) -> local.DockerRunner:
        """kfp.local's runner with these folders and limits; missing writable folders are created."""
        from docker.types import Mount

        for folder in self.writable:
            folder.mkdir(parents=True, exist_ok=True)
        readable = [path for path in self.readable if not any(map(path.is_relative_to, self.writable))]
        read_only = dict.fromkeys(map(str, self.writable), False) | dict.fromkeys(map(str, readable), True)
        mounts = [Mount(path, path, type="bind", read_only=flag) for path, flag in read_only.items()]
        return local.DockerRunner(
            **SETTINGS,
            environment=ENVIRONMENT,
            labels={DRIVER: str(os.getpid())},
            mounts=mounts,
            network_mode="bridge" if self.network else "none",
            user=f"{os.getuid()}:{os.getgid()}",
        )

    @contextlib.contextmanager
    def patch_kfp(self) -> Iterator[None]:
        """Make kfp.local run containers by `run_container` within the block."""
        from kfp.local import docker_task_handler

        original = docker_task_handler.run_docker_container
        docker_task_handler.run_docker_container = run_container
        try:
            yield
        finally:
            docker_task_handler.run_docker_container = original


@contextlib.contextmanager
def engine() -> Iterator[DockerClient]:
    """A client of this machine's Docker engine; a ContainerError if none answers."""
    import docker

    try:
        client = docker.from_env()
        client.ping()
    except (docker.errors.DockerException, OSError) as error:
        address = os.environ.get("DOCKER_HOST") or "its usual socket"
        raise ContainerError(
            f"No Docker engine answers at {address}: start Docker, or name another engine in DOCKER_HOST."
        ) from error
    with contextlib.closing(client):
        yield client


def find_image(client: DockerClient, name: str) -> str:
    """The id (sha256:...) of an image, which a run and its cache keep to.

    Raises:
        ContainerError: there is none, or it was built from other code than this checkout's.
    """
    import docker

    try:
        image = client.images.get(name)
    except docker.errors.ImageNotFound as error:
        raise ContainerError(
            f"There is no image {name} here: build it with 'make image IMAGE={name}'."
        ) from error
    built_from, current = (image.labels or {}).get(CODE_LABEL, "unknown"), image_digest()
    if built_from != current:
        raise ContainerError(
            f"The image {name} was built from other code ({built_from}) than this checkout's ({current}): "
            "build it again with 'make image'."
        )
    return str(image.id)


def run_container(
    client: DockerClient, image: str, command: list[str], volumes: dict[str, Any], **settings: Any
) -> int:
    """Run a container to its end, print its output and return its exit code; 1 if the engine fails.

    It has the signature of kfp.local's function for this.
    """
    import docker

    try:
        container = client.containers.create(image, command, volumes=volumes, **settings)
    except docker.errors.DockerException as error:
        print(f"{ENDED_WITHOUT}its container could not be made: {_reason(error)}")
        return 1
    try:
        container.start()
        for line in lines(_log(container)):
            print(line)
        code = int(container.wait()["StatusCode"])
        container.reload()
    except docker.errors.DockerException as error:
        print(f"{ENDED_WITHOUT}the Docker engine failed: {_reason(error)}")
        return 1
    else:
        if container.attrs["State"]["OOMKilled"]:
            print(f"{ENDED_WITHOUT}its container needed more memory than it may have.")
        return code
    finally:
        with contextlib.suppress(docker.errors.DockerException):
            container.remove(force=True, v=True)


def remove_orphans(client: DockerClient) -> list[str]:
    """Remove containers whose run was killed; returns their names."""
    import docker

    removed = []
    for container in client.containers.list(all=True, filters={"label": DRIVER}):
        driver = int(container.labels[DRIVER])
        if driver == os.getpid() or not psutil.pid_exists(driver):
            with contextlib.suppress(docker.errors.NotFound):
                container.remove(force=True, v=True)
                removed.append(str(container.name))
    return removed


def lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Split a log that arrives in chunks into lines; a chunk may end within a line or a UTF-8 character.

    Each update of a progress bar (after a carriage return) is a line, as in a process' output.
    """
    letters = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")("replace"), translate=True)
    rest = ""
    for chunk in chunks:
        *whole, rest = (rest + letters.decode(chunk)).split("\n")
        yield from whole
    *whole, rest = (rest + letters.decode(b"", final=True)).split("\n")
    yield from whole
    if rest:
        yield rest


def _log(container: Container) -> Iterator[bytes]:
    """A container's output while it runs, then the rest: following can miss an unfinished last line."""
    size = 0
    for chunk in container.logs(stream=True, follow=True):
        size += len(chunk)
        yield chunk
    container.wait()
    yield container.logs()[size:]


def _reason(error: Exception) -> str:
    return str(getattr(error, "explanation", None) or error)


def run_in_containers(
    build: Callable[[CompileOptions], GraphComponent],
    arguments: Mapping[str, Any],
    image: str,
    work: Path,
    shards: int = 1,
) -> dict[str, Artifact]:
    """Run the pipeline with every step in a container of `image`; returns its outputs.

    A server started by the deploy step would end with that step's container. So the step gets no server, and
    this process rolls this machine's server (`serving`, "" for none) over from the registry afterwards.

    Raises:
        ContainerError: no engine answers, or the image is missing or holds other code.
        StepError: at the first step that fails.
        ServingError, RegistryError: the run succeeded, but the server does not serve its release.
    """
    from orchestration.recipe import encoder_of_run  # imports torch

    containers = Containers.prepare(image, work, arguments, encoder_of_run(arguments))
    local = LocalRun.prepare(work, build(CompileOptions(image=containers.image, shards=shards)))
    with containers.patch_kfp():
        outputs = local.run({**arguments, "serving": ""}, containers.runner())
    if arguments["serving"] and Verdict.read(outputs["verdict"].path).blessed:
        store = open_store(arguments["registry"])
        deploy_channel(store, arguments["channel"], arguments["serving"], this_user())
    return outputs
