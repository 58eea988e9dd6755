"""A server's settings: loopback ports and the config.properties that TorchServe reads."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from common.limits import MAX_BODY_BYTES
from serving.errors import ServingError
from serving.torchserve.state_dir import StateDir

LOAD_FAILURE = "The bundle does not load:"  # the handler logs it, and `process.load_failure` looks for it
LOOPBACK = "127.0.0.1"
TORCH_THREADS = "CAR_TORCH_THREADS"  # the variable that overrides WorkerConfig.torch_threads
MAX_REQUEST_BYTES = 4 * MAX_BODY_BYTES
# TCP connects to no broadcast address, so nobody reaches gRPC, which TorchServe cannot leave out.
UNREACHABLE = "127.255.255.255"
FIXED = {
    # Archives run code: load none from a URL (no URL matches this pattern), and let none install packages.
    "allowed_urls": "file://none/.*",
    "install_py_dep_per_model": "false",
    "enable_model_api": "true",
    "enable_envvars_config": "false",
    "disable_token_authorization": "false",
    "number_of_gpu": 0,
    # The handler parses every body itself, so that both servers apply the same limits to broken JSON.
    "decode_input_request": "false",
    "max_request_size": MAX_REQUEST_BYTES,
    "disable_system_metrics": "true",
    "metrics_mode": "prometheus",
    "metrics_config": Path(__file__).with_name("metrics.yaml"),
}


@dataclass(frozen=True)
class Ports:
    """TorchServe's three listeners, all on loopback; gRPC has none that anybody could reach."""

    inference: int
    management: int
    metrics: int

    @classmethod
    def choose(cls, preferred: Mapping[str, int] | None = None) -> Ports:
        """Pick free ports; a preferred port is used if it is free."""
        ports: dict[str, int] = {}
        with ExitStack() as sockets:  # all stay bound until all are picked, so no port is picked twice
            for field in fields(cls):
                port = _bind(sockets, (preferred or {}).get(field.name, 0))
                while port is None:
                    port = _bind(sockets, 0)
                ports[field.name] = port
        return cls(**ports)

    def require_free(self) -> None:
        """Raise a ServingError naming the first port that another process listens on."""
        for name, port in asdict(self).items():
            with ExitStack() as sockets:
                if _bind(sockets, port) is None:
                    raise ServingError(
                        f"Port {port} on {LOOPBACK} ({name}) is taken by another process; choose another."
                    )


def _bind(sockets: ExitStack, port: int, host: str = LOOPBACK) -> int | None:
    """Bind a port (0: any free one) until `sockets` closes; return its number, or None if it is taken."""
    listener = sockets.enter_context(socket.socket())
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError):
        return None
    return int(listener.getsockname()[1])


class ServerConfig(BaseModel):
    """The settings in which one TorchServe may differ from another; `render` fixes the others."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    heap_mb: int = Field(default=512, ge=1)
    """Java heap of the front end, MiB."""
    netty_threads: int = Field(default=2, ge=1)
    """Threads of the front end that talk to clients, and as many that talk to workers."""
    workers: int = Field(default=1, ge=1)
    """Workers of a model version whose archive names no number."""
    job_queue: int = Field(default=100, ge=1)
    """Requests of a version that may wait; more are refused with 503."""
    response_timeout_s: int = Field(default=30, ge=1)
    """Seconds after which TorchServe replaces a worker that does not answer."""
    connections: int = Field(default=400, ge=1)
    """Connections of clients at a time; further ones wait until another ends."""
    token_minutes: float = Field(default=365 * 24 * 60, gt=0)
    """Minutes after which the keys expire. A renewal ends the old key at once, also in callers' hands."""


def _grpc() -> dict[str, object]:
    """Settings that leave gRPC without callers: no way to the address, or (not Linux) short connections."""
    with ExitStack() as sockets:
        address = UNREACHABLE if _bind(sockets, 0, UNREACHABLE) else LOOPBACK
    settings = {"address": address, "port": 0, "max_connection_age_ms": 1, "max_connection_age_grace_ms": 1}
    apis = ("inference", "management")
    return {f"grpc_{api}_{name}": value for api in apis for name, value in settings.items()}


def render(config: ServerConfig, ports: Ports, state: StateDir, load: str | None = None) -> str:
    """Return the text of config.properties; `load` names an archive in the store to load at the start."""
    values = {
        "inference_address": f"http://{LOOPBACK}:{ports.inference}",
        "management_address": f"http://{LOOPBACK}:{ports.management}",
        "metrics_address": f"http://{LOOPBACK}:{ports.metrics}",
        **_grpc(),
        "model_store": state.store,
        "load_models": load or "",
        "token_expiration_min": config.token_minutes,
        "number_of_netty_threads": config.netty_threads,
        "netty_client_threads": config.netty_threads,
        "default_workers_per_model": config.workers,
        "default_response_timeout": config.response_timeout_s,
        "unregister_model_timeout": config.response_timeout_s,
        "job_queue_size": config.job_queue,
    }
    return "".join(f"{name}={_escape(str(value))}\n" for name, value in (values | FIXED).items())


def _escape(value: str) -> str:
    """A value as Java's Properties reads it: Latin-1, where anything else is \\uXXXX in units of UTF-16."""
    units = memoryview(value.encode("utf-16-le", "surrogatepass")).cast("H")
    return "".join(chr(unit) if 0x20 < unit < 0x7F and unit != 0x5C else f"\\u{unit:04x}" for unit in units)
