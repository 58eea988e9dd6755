"""Find the image of all steps on this machine, and check that it holds this code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.code_digest import image_digest
from common.errors import UserError

if TYPE_CHECKING:
    from docker import DockerClient

CODE_LABEL = "car-on-kubeflow.code"


class ContainerError(UserError, RuntimeError):
    """Steps cannot run in containers here; the message is one sentence that says what to do."""


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
