"""Runs the steps of a local run in containers: kfp.local's DockerRunner, with ends that can be trusted.

kfp.local lets the engine remove a container as soon as it ended, and takes one that is gone for a success: a
step that fails at once can pass. Here a container is kept until its exit code was read. It gets what the step
needs and no more: this user, no capabilities, a read-only system, no network unless something lies beyond it.
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
from kfp.dsl.graph_component import GraphComponent

from car_model.encoding.encoder import EMBEDDED
from car_model.evidence.verdict import Verdict
from orchestration.local.image import ContainerError, find_image
from orchestration.local.runner import ENDED_WITHOUT, LocalRun
from orchestration.resources import CompileOptions
from registry.cli.options import this_user
from registry.store.open import open_store
from serving.deployment.deploy_channel import deploy_channel

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container


DRIVER = "car-on-kubeflow.driver"  # label: the process that waits for the container
LOOK = 10  # seconds that the engine may take to answer at first
SETTINGS: dict[str, Any] = {
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "read_only": True,
    "tmpfs": {"/tmp": "exec"},  # noqa: S108 - a file system of the container's own
    "init": True,  # passes signals on and reaps what a step leaves behind
}
ENVIRONMENT = {"HOME": "/tmp", "USER": "car", "TQDM_MININTERVAL": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # noqa: S108


@dataclass(frozen=True)
class Containers:
    """How the steps of one run get into containers.

    Attributes:
        image: id of the image of all steps.
        writable, readable: folders that steps see under the paths that they have here.
        network: whether steps reach beyond their container.
    """

    image: str
    writable: tuple[Path, ...]
    readable: tuple[Path, ...] = ()
    network: bool = False

    @classmethod
    def prepare(cls, image: str, work: Path, arguments: Mapping[str, Any]) -> Containers:
        """What a run with these pipeline parameters needs below and beside the folder `work`.

        Raises:
            ContainerError: no engine answers, or the image is missing or holds other code.
        """
        with engine() as client:
            found = find_image(client, image)
            remove_orphans(client)
        named = [str(arguments.get(name) or "") for name in ("registry", "cache", "checkpoints")]
        source = json.loads(arguments["source"])
        encoder = json.loads(arguments["encoder"])["name"]
        places = [source[part]["location"] for part in ("interactions", "items")]
        master = source.get("spark", {}).get("master", "") if source.get("engine") == "spark" else ""
        beyond = [place for place in (*named, *places, master) if "://" in place]
        writable = (work.resolve(), *(Path(place) for place in named if place and "://" not in place))
        readable = [Path(place).parent for place in places if "://" not in place]
        readable += [Path(encoder)] if Path(encoder).is_dir() else []
        needs_hub = encoder != EMBEDDED and not Path(encoder).is_dir()
        return cls(found, writable, tuple(dict.fromkeys(readable)), bool(beyond) or needs_hub)

    def runner(self) -> local.DockerRunner:
        """kfp.local's runner with these folders and limits."""
        return local.DockerRunner(
            **SETTINGS,
            environment=ENVIRONMENT,
            labels={DRIVER: str(os.getpid())},
            mounts=self._mounts(),
            network_mode="bridge" if self.network else "none",
            user=f"{os.getuid()}:{os.getgid()}",
        )

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Let kfp.local run containers by `run_container` for a while."""
        from kfp.local import docker_task_handler

        before = docker_task_handler.run_docker_container
        docker_task_handler.run_docker_container = run_container
        try:
            yield
        finally:
            docker_task_handler.run_docker_container = before

    def _mounts(self) -> list[Any]:
        from docker.types import Mount

        for folder in self.writable:
            folder.mkdir(parents=True, exist_ok=True)
        seen = [folder for folder in self.readable if not any(map(folder.is_relative_to, self.writable))]
        wanted = {str(path): False for path in self.writable} | {str(path): True for path in seen}
        return [Mount(path, path, type="bind", read_only=only) for path, only in wanted.items()]


@contextlib.contextmanager
def engine() -> Iterator[DockerClient]:
    """A client of this machine's Docker engine.

    Raises:
        ContainerError: none answers.
    """
    import docker

    try:
        client = docker.from_env()
        client.ping()
    except (docker.errors.DockerException, OSError) as error:
        where = os.environ.get("DOCKER_HOST") or "its usual socket"
        raise ContainerError(
            f"No Docker engine answers at {where}: start Docker, or name another engine in DOCKER_HOST."
        ) from error
    with contextlib.closing(client):
        yield client


def run_container(
    client: DockerClient, image: str, command: list[str], volumes: dict[str, Any], **settings: Any
) -> int:
    """Run a container to its end, print what it writes, and return its exit code, whatever became of it.

    Called as kfp.local's function of this purpose is. An engine that fails is a step that fails.
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
    """End containers whose run was killed and can't wait for them any more; their names."""
    import docker

    removed = []
    for one in client.containers.list(all=True, filters={"label": DRIVER}):
        driver = int(one.labels[DRIVER])
        if driver != os.getpid() and psutil.pid_exists(driver):
            continue
        with contextlib.suppress(docker.errors.NotFound):
            one.remove(force=True, v=True)
            removed.append(str(one.name))
    return removed


def lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Lines of a log that comes in pieces, which may end within a line or a letter.

    A bar that moves in place (by carriage returns) is a line each time, as it is in a process' output.
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
    """What a container writes, while it does, and to the end: following can miss an unfinished line."""
    seen = 0
    for chunk in container.logs(stream=True, follow=True):
        seen += len(chunk)
        yield chunk
    container.wait()
    yield container.logs()[seen:]


def _reason(error: Exception) -> str:
    return str(getattr(error, "explanation", None) or error)


def run_in_containers(
    build: Callable[[CompileOptions], GraphComponent],
    arguments: Mapping[str, Any],
    image: str,
    work: Path,
    shards: int = 1,
) -> dict[str, Any]:
    """Run the pipeline with every step in a container of `image`; return its outputs.

    A server that the deploy step started would end with the step's container. So that step is given no
    server, which makes it leave serving to whatever follows the channel: here that is this process, which
    afterwards rolls over this machine's server (`serving`, "" for none) from the registry.

    Raises:
        ContainerError: no engine answers, or the image is missing or holds other code.
        StepError: at the first step that fails.
        ServingError, RegistryError: the run went well, but its release is not what the server serves now.
    """
    containers = Containers.prepare(image, work, arguments)
    local = LocalRun.prepare(work, build(CompileOptions(image=containers.image, shards=shards)))
    with containers.watching():
        outputs = local.run({**arguments, "serving": ""}, containers.runner())
    if arguments["serving"] and Verdict.read(outputs["verdict"].path).blessed:
        store = open_store(arguments["registry"])
        deploy_channel(store, arguments["channel"], arguments["serving"], this_user())
    return outputs
