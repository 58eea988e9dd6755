"""A server's settings: loopback ports and the config.properties that TorchServe reads."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from serving.answering.request_body import MAX_BODY_BYTES
from serving.errors import ServingError
from serving.torchserve.state_dir import StateDir

LOAD_FAILURE = "The bundle does not load:"  # what a handler logs and the control side looks for


LOOPBACK = "127.0.0.1"
MINUTES_A_DAY = 24 * 60


FIXED = {
    # Archives run code: none from a URL (a pattern that no URL matches), none that installs packages.
    "allowed_urls": "file://none/.*",
    "install_py_dep_per_model": "false",
    "enable_model_api": "true",
    "enable_envvars_config": "false",
    "disable_token_authorization": "false",
    "number_of_gpu": 0,
    # The handler parses every body itself, so that broken JSON meets one set of limits and sentences.
    "decode_input_request": "false",
    "max_request_size": 4 * MAX_BODY_BYTES,
    "disable_system_metrics": "true",
    "metrics_mode": "prometheus",
    "metrics_config": Path(__file__).with_name("metrics.yaml"),
}


@dataclass(frozen=True)
class Ports:
    """TorchServe's five listeners, all on loopback."""

    inference: int
    management: int
    metrics: int
    grpc_inference: int
    grpc_management: int

    @classmethod
    def choose(cls, preferred: Mapping[str, int] | None = None) -> Ports:
        """Take free ports; a preferred port is used while it is free."""
        wanted = dict(preferred or {})
        with ExitStack() as held:
            return cls(**{field.name: _hold(held, wanted.get(field.name, 0)) for field in fields(cls)})

    def require_free(self) -> None:
        """Raise a ServingError naming the first port that another process listens on."""
        for name, port in self.as_dict().items():
            with ExitStack() as held:
                if _try_hold(held, port) is None:
                    raise ServingError(
                        f"Port {port} on {LOOPBACK} ({name}) is taken by another process; choose another."
                    )

    def as_dict(self) -> dict[str, int]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class ServerConfig:
    """What may differ between servers; the rest of config.properties is fixed by `render`."""

    heap_mb: int = 512
    netty_threads: int = 2
    workers: int = 1
    job_queue: int = 100
    response_timeout_s: int = 30
    token_minutes: float = MINUTES_A_DAY


def render(config: ServerConfig, ports: Ports, state: StateDir, load: str | None = None) -> str:
    """Write config.properties; `load` names an archive in the model store to bring up at the start."""
    values = {
        "inference_address": f"http://{LOOPBACK}:{ports.inference}",
        "management_address": f"http://{LOOPBACK}:{ports.management}",
        "metrics_address": f"http://{LOOPBACK}:{ports.metrics}",
        "grpc_inference_address": LOOPBACK,
        "grpc_inference_port": ports.grpc_inference,
        "grpc_management_address": LOOPBACK,
        "grpc_management_port": ports.grpc_management,
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
    return "".join(f"{key}={_escape(str(value))}\n" for key, value in (values | FIXED).items())


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\")


def _hold(held: ExitStack, preferred: int) -> int:
    port = _try_hold(held, preferred)
    return port if port is not None else _hold(held, 0)


def _try_hold(held: ExitStack, port: int) -> int | None:
    listener = held.enter_context(socket.socket())
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
    except (OSError, OverflowError):
        return None
    return int(listener.getsockname()[1])
