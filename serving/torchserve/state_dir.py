"""The folder of a server on this machine: its paths, its lock and the records in it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, field_validator

from common.digests import file_digest
from common.files import write_atomic
from serving.errors import ServingError

ROOM_BYTES = 64 * 1024  # a start writes less: settings, keys and sockets
SOCKET_PATH_LIMIT = 100  # a Unix socket's path may have 107 bytes; TorchServe appends a number


class StateDir:
    """The folder of one server (nothing is created); every path in it has one name, here."""

    def __init__(self, folder: Path | str) -> None:
        self.root = root = Path(folder).expanduser().resolve()
        self.config = root / "config.properties"  # TorchServe's settings, written at every start
        self.keys = root / "key_file.json"  # TorchServe writes its three keys here, as it runs in this folder
        self.header = root / "inference.header"  # the key of predictions, as `curl -H @file` reads it
        self.store = root / "model-store"  # the only folder that archives are loaded from
        self.logs = root / "logs"  # server.log, access.log and the console output of the start
        self.server = root / "server.json"  # process and ports of the running server
        self.deployed = root / "deployed.json"  # the release that a start loads: a `DeployedRelease`
        self.channel = root / "channel.json"  # what the server answers for: a `ServedChannel`
        # Unpacked archives and worker sockets; outside the folder if a socket's path would be too long.
        self.scratch = root / "tmp"
        if len(os.fsencode(f"{self.scratch}/.ts.sock.99999")) > SOCKET_PATH_LIMIT:
            name = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
            self.scratch = Path(tempfile.gettempdir()).resolve() / f"car-serving-{name}"

    def create(self) -> None:
        """Make the folders, readable by their owner only."""
        with report_write_errors(self.root):
            for folder in (self.root, self.store, self.logs, self.scratch):
                folder.mkdir(parents=True, exist_ok=True)
            self.root.chmod(0o700)
            self.scratch.chmod(0o700)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the folder's lock, so that no other process starts, deploys or stops at the same time."""
        self.create()
        with report_write_errors(self.root):
            handle = (self.root / "lock").open("w")
        with handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    @contextmanager
    def watch(self, *, follower: bool) -> Iterator[bool]:
        """Look after the server alone: a follower all the time, the supervisor while there is no follower.

        Yields whether it may: to a follower always, to the supervisor if no follower runs.
        """
        self.create()
        with report_write_errors(self.root):
            handle = (self.root / "watch").open("w")
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH if follower else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def require_room(self) -> None:
        """Raise a ServingError if a start would fail because the disk is full or cannot be written to."""
        probe = self.root / ".room.probe"
        try:
            write_private(probe, " " * ROOM_BYTES)
        finally:
            probe.unlink(missing_ok=True)


@contextmanager
def report_write_errors(folder: Path) -> Iterator[None]:
    """Turn an OSError of the block into a ServingError that says what cannot be written."""
    try:
        yield
    except OSError as error:
        path = error.filename2 or error.filename or folder
        raise ServingError(
            f"{path} cannot be written: {error.strerror or error}. Make room or give the rights in {folder}, "
            "and try again."
        ) from error


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step; only its owner may read it. Raises ServingError if that fails."""
    with report_write_errors(path.parent):
        write_atomic(path, text, mode=0o600)


class DeployedRelease(BaseModel):
    """The record deployed.json: what was deployed last, and so what a start loads."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    release: Annotated[str, StringConstraints(min_length=1)]
    """Full digest of the release."""
    version: Annotated[str, StringConstraints(min_length=1)]
    """The release's model version in TorchServe."""
    archive: Annotated[str, StringConstraints(min_length=1)]
    """Name of the archive's file in the model store."""
    sha256: Annotated[str, StringConstraints(min_length=1)]
    """Digest of the archive."""

    @field_validator("archive")
    @classmethod
    def _is_in_the_store(cls, name: str) -> str:
        if Path(name).name != name:
            raise ValueError("the archive must be a file name, not a path")
        return name

    @classmethod
    def load(cls, state: StateDir) -> DeployedRelease:
        """Read the record. Raises ServingError if nothing was deployed or the file is damaged."""
        try:
            return cls.model_validate_json(state.deployed.read_bytes())
        except FileNotFoundError as error:
            raise ServingError(
                f"Nothing was deployed to {state.root} yet; run the pipeline or deploy a release."
            ) from error
        except OSError as error:
            raise ServingError(f"{state.deployed} cannot be read: {error.strerror}.") from error
        except ValidationError as error:
            raise ServingError(f"{state.deployed} is damaged; deploy the release again.") from error

    @classmethod
    def load_or_none(cls, state: StateDir) -> DeployedRelease | None:
        """Read the record; None if nothing was deployed or the file is damaged."""
        try:
            return cls.load(state)
        except ServingError:
            return None

    def write(self, state: StateDir) -> None:
        """Replace the record in one step."""
        write_private(state.deployed, self.model_dump_json(indent=2) + "\n")

    def verify_archive(self, state: StateDir) -> Path:
        """Return the stored archive's path. Raises ServingError if its digest has changed."""
        archive = state.store / self.archive
        try:
            intact = file_digest(archive) == self.sha256
        except OSError:
            intact = False
        if not intact:
            raise ServingError(f"{archive} is missing or not what was deployed; deploy the release again.")
        return archive


class ServedChannel(BaseModel):
    """The record channel.json: the channel of a registry that a server answers for, and no other."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    channel: str
    """Name of the channel."""
    registry: str
    """A folder, or gs://bucket/prefix."""
    relative: str
    """The folder from the server's folder on: both may be moved together."""

    @classmethod
    def of(cls, state: StateDir, channel: str, registry: str) -> ServedChannel:
        """The record of a server that answers for a channel of a registry (URL)."""
        registry = registry.removeprefix("file://")
        if "://" in registry:
            return cls(channel=channel, registry=registry, relative=registry)
        folder = Path(registry).expanduser().resolve()
        return cls(channel=channel, registry=str(folder), relative=os.path.relpath(folder, state.root))

    @classmethod
    def load_or_none(cls, state: StateDir) -> ServedChannel | None:
        """Read the record; None if nothing was deployed from a channel, or the file is damaged."""
        try:
            return cls.model_validate_json(state.channel.read_bytes())
        except (OSError, ValidationError):
            return None

    def url(self, state: StateDir) -> str:
        """The registry as `open_store` takes it, also after a move."""
        moved = (state.root / self.relative).resolve()
        return str(moved) if "://" not in self.registry and moved.is_dir() else self.registry

    def matches(self, other: ServedChannel) -> bool:
        """Whether both are of one channel; server and registry may have been moved, together or alone."""
        same_place = other.registry == self.registry or other.relative == self.relative
        return other.channel == self.channel and same_place

    def check(self, state: StateDir) -> None:
        """Raise a ServingError if the folder's server answers for another channel or registry."""
        owner = self.load_or_none(state)
        if owner is None or not state.deployed.is_file():
            return
        if not self.matches(owner):
            raise ServingError(
                f"The server in {state.root} answers for {owner.channel} of {owner.registry}, and not for "
                f"{self.channel} of {self.registry}: name another folder with --serving."
            )

    def write(self, state: StateDir) -> None:
        """Record that the server answers for this channel. Raises ServingError like `check`."""
        self.check(state)
        write_private(state.channel, self.model_dump_json(indent=2) + "\n")
