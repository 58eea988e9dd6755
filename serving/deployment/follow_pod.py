"""A pod that follows a channel: whatever release it moves to answers here, once it has proved itself."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from registry.channels.channel import head
from registry.channels.log import Entry
from registry.errors import ReleaseError
from registry.store.base import ObjectStore
from serving.answering.golden import Golden
from serving.asgi.app import load
from serving.asgi.server import Pod
from serving.deployment.deploy_channel import fetch_validated
from serving.deployment.follow import LONGEST_PAUSE, ErrorReporter, Tell


def follow(store: ObjectStore, channel: str, pod: Pod, seconds: float, tell: Tell) -> None:
    """Look where the channel is, every so many seconds, for ever; tell what changes and what fails.

    What fails is tried again, more and more seldom while the channel stays; whatever answered before still
    does. Any error but the process's end is better told than left to end this thread in silence.
    """
    trouble = ErrorReporter(tell)
    refused, pause, until = 0, 0.0, 0.0  # the entry that failed, and when it is tried again
    while True:
        try:
            entry = head(store, channel)
            if entry is None:
                raise ReleaseError(f"The channel {channel} in {store.url} is empty: promote a release to it.")
            if entry.release != pod.release and (entry.number != refused or time.monotonic() >= until):
                pause = min(2 * pause, LONGEST_PAUSE) if entry.number == refused else seconds
                refused, until = entry.number, time.monotonic() + pause
                bring_in(store, entry, pod)
                tell(f"{channel} is release {entry.release[:12]} (entry {entry.number}) and answers here.")
            if entry.release == pod.release:
                trouble.is_over(f"The pod is again where {channel} in {store.url} is.")
        except Exception as error:
            trouble.goes_on(error)
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
