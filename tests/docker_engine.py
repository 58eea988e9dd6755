"""For tests that need Docker: an engine and an image with this code, or a visible reason to skip.

CAR_DOCKER=required, as `make ci-containers` sets it, makes what would be skipped fail.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NoReturn

import pytest
from docker import DockerClient

from orchestration.local.docker import ContainerError, engine, find_image
from orchestration.step import IMAGE

docker = pytest.mark.docker


def _without(reason: str) -> NoReturn:
    if os.environ.get("CAR_DOCKER") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def client() -> Iterator[DockerClient]:
    """A client of this machine's engine; the test is skipped where none answers."""
    try:
        with engine() as found:
            yield found
    except ContainerError as error:
        _without(str(error))


@pytest.fixture
def image(client: DockerClient) -> str:
    """Id of the image with this very code; the test is skipped where it was not built."""
    try:
        return find_image(client, IMAGE)
    except ContainerError as error:
        _without(str(error))
