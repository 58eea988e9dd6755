"""A pod that follows a channel: whatever release it moves to answers here, once it has proved itself."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from components.delivery import fetch_validated
from registry.channel import head
from registry.errors import ReleaseError
from registry.log import Entry
from registry.store import ObjectStore
from serving.asgi import load
from serving.golden import Golden
from serving.pod import Pod

Tell = Callable[[str], None]


def follow(store: ObjectStore, channel: str, pod: Pod, seconds: float, tell: Tell) -> None:
    """Look where the channel is, every so many seconds, for ever; tell what changes and what fails.

    What fails is tried again: whatever answered before still does, and any error but the process's end is
    better told than left to end this thread in silence.
    """
    while True:
        try:
            entry = head(store, channel)
            if entry is None:
                raise ReleaseError(f"The channel {channel} in {store.url} is empty: promote a release to it.")
            if entry.release != pod.release:
                bring_in(store, entry, pod)
                tell(f"{channel} is release {entry.release[:12]} (entry {entry.number}) and answers here.")
        except Exception as error:
            tell(f"{' '.join(str(error).split())} Trying again in {seconds:g} s.")
        time.sleep(seconds)


def bring_in(store: ObjectStore, entry: Entry, pod: Pod) -> None:
    """Let the release of an entry answer from a pod.

    Raises:
        DeployError: it was not validated with this code.
        RegistryError: it is missing or damaged.
        ServingError: it does not give the golden answers.
    """
    with tempfile.TemporaryDirectory(prefix="car-pod-") as place:
        archive, golden = fetch_validated(store, entry, Path(place))
        pod.use(load(archive), Golden.read(golden))
