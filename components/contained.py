"""A local run whose steps are containers, from the image to the server that is rolled over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kfp.dsl.graph_component import GraphComponent

from components.containers import Containers
from components.delivery import deploy_channel
from components.local import LocalRun
from components.options import Options
from registry.options import this_user
from registry.store import open_store
from validation.gate import load_verdict


def run_in_containers(
    build: Callable[[Options], GraphComponent],
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
    local = LocalRun.prepare(work, build(Options(containers.image, shards=shards)))
    with containers.watching():
        outputs = local.run({**arguments, "serving": ""}, containers.runner())
    if arguments["serving"] and load_verdict(Path(outputs["verdict"].path)).blessed:
        store = open_store(arguments["registry"])
        deploy_channel(store, arguments["channel"], arguments["serving"], this_user())
    return outputs
