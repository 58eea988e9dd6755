"""Where a server keeps its files, and how those files are written whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from common.digests import file_digest
from serving.errors import ServingError

ROOM_BYTES = 64 * 1024  # settings, keys and sockets of a start, with room to spare
SOCKET_PATH_LIMIT = 100  # a unix socket's path may have 107 bytes; TorchServe appends a number


@dataclass(frozen=True)
class StateDir:
    """The folder of one server; every path in it has one name, here."""

    root: Path

    @classmethod
    def at(cls, folder: Path | str) -> StateDir:
        """Name a state folder by its absolute path (nothing is created)."""
        return cls(Path(folder).expanduser().resolve())

    @property
    def config(self) -> Path:
        """TorchServe's settings, written at every start."""
        return self.root / "config.properties"

    @property
    def keys(self) -> Path:
        """TorchServe's three keys; it writes them here because it runs in this folder."""
        return self.root / "key_file.json"

    @property
    def header(self) -> Path:
        """The Authorization header for predictions, in the form that `curl -H @file` reads."""
        return self.root / "inference.header"

    @property
    def store(self) -> Path:
        """The model store: the only place that archives are loaded from."""
        return self.root / "model-store"

    @property
    def logs(self) -> Path:
        """server.log, access.log and the console output of the start."""
        return self.root / "logs"

    @property
    def server(self) -> Path:
        """Process and ports of the running server."""
        return self.root / "server.json"

    @property
    def deployed(self) -> Path:
        """The release that a start brings back."""
        return self.root / "deployed.json"

    @property
    def scratch(self) -> Path:
        """Unpacked archives and worker sockets; elsewhere where a socket's path would be too long."""
        inside = self.root / "tmp"
        if len(os.fsencode(f"{inside}/.ts.sock.99999")) <= SOCKET_PATH_LIMIT:
            return inside
        name = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        return Path(tempfile.gettempdir()).resolve() / f"car-serving-{name}"

    def create(self) -> None:
        """Make the folders, readable by their owner only."""
        with writing(self.root):
            for folder in (self.root, self.store, self.logs, self.scratch):
                folder.mkdir(parents=True, exist_ok=True)
            self.root.chmod(0o700)
            self.scratch.chmod(0o700)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the folder against another process that would start, deploy or stop at the same time."""
        self.create()
        with writing(self.root):
            handle = (self.root / "lock").open("w")
        with handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def require_room(self) -> None:
        """Raise a ServingError where a start would fail for want of room or rights to write."""
        probe = self.root / ".room.probe"
        try:
            write_private(probe, " " * ROOM_BYTES)
        finally:
            probe.unlink(missing_ok=True)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Say in a sentence that a folder cannot be written to."""
    try:
        yield
    except OSError as error:
        what = error.filename2 or error.filename or folder
        raise ServingError(
            f"{what} cannot be written: {error.strerror or error}. Make room or give the rights in {folder}, "
            "and try again."
        ) from error


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step; only its owner may read it. Raises ServingError where it can't."""
    partial = path.with_name(f".{path.name}.partial")
    with writing(path.parent):
        partial.unlink(missing_ok=True)
        try:
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
                handle.write(text)
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object, or None where there is no such file.

    Raises:
        ServingError: where the file is there and is not a JSON object, or cannot be read.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ServingError(f"{path} is not JSON ({error}); deploy again, or stop and start.") from error
    except OSError as error:
        raise ServingError(f"{path} cannot be read: {error.strerror}; give the rights to.") from error
    if not isinstance(value, dict):
        raise ServingError(f"{path} does not hold a JSON object; deploy again, or stop and start.")
    return value


@dataclass(frozen=True)
class DeployedRelease:
    """What deployed.json says.

    Attributes:
        release: full digest.
        version: TorchServe's name of it.
        archive: file name within the model store.
        sha256: of that archive.
    """

    release: str
    version: str
    archive: str
    sha256: str

    @classmethod
    def read(cls, state: StateDir) -> DeployedRelease | None:
        """Read the note; None where nothing was deployed.

        Raises:
            ServingError: where the file is damaged.
        """
        found = read_json(state.deployed)
        if found is None:
            return None
        values = {field.name: found.get(field.name) for field in fields(cls)}
        texts = {name: value for name, value in values.items() if isinstance(value, str) and value}
        if len(texts) < len(values) or Path(texts["archive"]).name != texts["archive"]:
            raise ServingError(f"{state.deployed} is damaged; deploy the release again.")
        return cls(**texts)

    @classmethod
    def load_or_none(cls, state: StateDir) -> DeployedRelease | None:
        """Read the note; None also where it is damaged, for those who are about to write it anew."""
        try:
            return cls.read(state)
        except ServingError:
            return None

    @classmethod
    def load(cls, state: StateDir) -> DeployedRelease:
        """Read the note; a ServingError where there is none or it is damaged."""
        found = cls.read(state)
        if found is None:
            raise ServingError(
                f"Nothing was deployed to {state.root} yet; run the pipeline or deploy a release."
            )
        return found

    def write(self, state: StateDir) -> None:
        """Replace the note in one step."""
        write_private(state.deployed, json.dumps(asdict(self), indent=2) + "\n")

    def verify_archive(self, state: StateDir) -> Path:
        """The archive in the model store, hashed again.

        Raises:
            ServingError: where it is missing, cannot be read or is not what was deployed.
        """
        archive = state.store / self.archive
        try:
            whole = file_digest(archive) == self.sha256
        except OSError:
            whole = False
        if not whole:
            raise ServingError(f"{archive} is missing or not what was deployed; deploy the release again.")
        return archive
