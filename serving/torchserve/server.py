"""Start, find and stop one TorchServe that outlives the process that started it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from serving.errors import ServingError
from serving.torchserve import process
from serving.torchserve.client import Client
from serving.torchserve.config import Ports, ServerConfig, render
from serving.torchserve.state_dir import StateDir, report_write_errors, write_private

START_SECONDS = 60
WORKER_SECONDS = 90


class ServerRecord(BaseModel):
    """The record server.json of the last start."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    pid: int
    """Process id of the front end; informative, see `torchserve.process`."""
    root: str = ""
    """The server's folder at its start; it may have been moved since."""
    ports: Ports
    """Ports of its listeners."""

    @classmethod
    def load(cls, state: StateDir) -> ServerRecord:
        """Read the record. Raises ServingError if it is missing or damaged."""
        try:
            return cls.model_validate_json(state.server.read_bytes())
        except (OSError, ValidationError) as error:
            raise ServingError(
                f"{state.server} is missing or damaged; stop the server and start it again."
            ) from error


@dataclass(frozen=True)
class TorchServe:
    """A running server: its folder, its ports and a client that holds its keys."""

    state: StateDir
    ports: Ports
    client: Client

    @classmethod
    def start(
        cls,
        state_dir: Path | str,
        config: ServerConfig | None = None,
        ports: Ports | None = None,
        load: str | None = None,
    ) -> TorchServe:
        """Start a server and wait until its APIs answer.

        Args:
            ports: by default those of the last start if they are free, else any free ones.
            load: name of an archive in the model store to load.

        Raises:
            ServingError: one runs already, a port is taken, Java is missing, or the process ends.
        """
        state = StateDir(state_dir)
        config = config or ServerConfig()
        if running := process.frontend_process(state):
            raise ServingError(
                f"A TorchServe (process {running.pid}) runs in {state.root} already; stop it first."
            )
        process.stop_processes(state)  # workers that a killed server left behind
        state.create()
        state.keys.unlink(missing_ok=True)
        if ports:
            ports.require_free()
        else:
            try:  # clients of the last start find the same ports
                ports = Ports.choose(asdict(ServerRecord.load(state).ports))
            except ServingError:
                ports = Ports.choose()
        write_private(state.config, render(config, ports, state, load))
        front_end = process.launch(state, config)
        write_private(
            state.server,
            ServerRecord(pid=front_end.pid, ports=ports, root=str(state.root)).model_dump_json(),
        )
        server = cls(state, ports, Client(state, ports))

        def answers() -> bool:
            if not process.is_living(front_end):
                raise ServingError(
                    f"TorchServe ended at its start; its log ends with:\n{process.log_tail(state)}"
                )
            try:
                server.client.versions()
            except (ServingError, KeyError):  # no keys yet, not listening yet
                return False
            return True

        try:
            if not process.wait_until(answers, START_SECONDS):
                raise ServingError(
                    f"TorchServe did not answer within {START_SECONDS} s and was stopped; its log ends "
                    f"with:\n{process.log_tail(state)}"
                )
        except ServingError:
            cls.stop(state.root, supervisor=False)
            raise
        server.client.refresh_header()
        return server

    @classmethod
    def attach(cls, state_dir: Path | str) -> TorchServe:
        """Find the server that runs in a folder. Raises ServingError if none does."""
        state = StateDir(state_dir)
        if not process.frontend_process(state) or not state.server.is_file():
            raise ServingError(f"No TorchServe runs in {state.root}; deploy a release, or start it again.")
        ports = ServerRecord.load(state).ports
        return cls(state, ports, Client(state, ports))

    @staticmethod
    def stop(state_dir: Path | str, *, supervisor: bool = True) -> int:
        """Stop the server of a folder with its workers, and what would start it again, the supervisor.

        Returns how many processes of the server ended; 0 if none ran.
        """
        state = StateDir(state_dir)
        places = [place for place in (state, _former_place(state)) if place]
        if supervisor:
            for place in places:
                process.stop_supervisor(place)
        count = sum(map(process.stop_processes, places))
        with report_write_errors(state.root):
            for path in (state.keys, state.header):
                path.unlink(missing_ok=True)
        shutil.rmtree(state.scratch, ignore_errors=True)
        return count

    def is_up(self) -> bool:
        """Whether the process lives and its front end answers; ask a golden request about the model."""
        if process.frontend_process(self.state) is None:
            return False
        try:
            return self.client.ping()
        except ServingError:
            return False

    def predict(self, request: Mapping[str, Any], version: str | None = None) -> dict[str, Any]:
        """Ask for recommendations; see `Client.predict`."""
        return self.client.predict(request, version)

    def wait_for_workers(self, version: str, since: int, seconds: float = WORKER_SECONDS) -> None:
        """Wait until a version has a worker that has loaded the model.

        `since` is `process.log_position` from before the workers started. Raises ServingError if a worker
        cannot load it, or none is ready in time.
        """

        def is_ready() -> bool:
            status = self.client.versions().get(version)
            if status is not None and status.ready_workers > 0:
                return True
            if reason := process.load_failure(self.state, since):
                raise ServingError(f"Version {version} does not load: {reason}")
            return False

        if not process.wait_until(is_ready, seconds):
            raise ServingError(
                f"Version {version} has no ready worker after {seconds:g} s; the log ends with:\n"
                f"{process.log_tail(self.state)}"
            )


def _former_place(state: StateDir) -> StateDir | None:
    """Where the server that this folder's record names was started, if the folder was moved since."""
    try:
        record = ServerRecord.load(state)
    except ServingError:
        return None
    former = StateDir(record.root or state.root)
    if former.root == state.root:
        return None
    # Another server may run in the former place by now: it has another process id.
    front_end = process.frontend_process(former)
    return former if front_end and front_end.pid == record.pid else None
