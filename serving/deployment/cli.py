"""`python pipeline.py deploy | infra-validate | serve`: what a release may need after its run."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import typer

from common.cli import report_errors
from registry.channels.channel import find
from registry.cli.options import DEFAULT_REGISTRY, Registry, ReleaseOrChannel, Who
from registry.store.open import open_store
from serving.deployment.deploy_channel import deploy_channel, validate_release
from serving.deployment.follow import follow as follow_server
from serving.deployment.follow import said
from serving.torchserve.config import LOOPBACK

delivery = typer.Typer()
State = Annotated[Path, typer.Option("--serving", help="Folder of the server; started where it is down.")]


@delivery.command("deploy")
def deploy_command(
    *,
    channel: Annotated[str, typer.Argument(help="The channel whose release to serve.")] = "production",
    registry: Registry = DEFAULT_REGISTRY,
    serving: State = Path(".car/serving"),
    who: Who,
    follow: Annotated[
        float, typer.Option(min=0, help="Go on, looking every so many seconds where the channel is; 0: once.")
    ] = 0,
) -> None:
    """Roll the server of this machine over to the release that a channel uses."""
    with report_errors():
        store = open_store(registry)
        if follow:
            follow_server(store, channel, serving, who=who, seconds=follow, tell=typer.echo)
        typer.echo(said(deploy_channel(store, channel, serving, who), channel))


@delivery.command("serve")
def serve_command(
    *,
    channel: Annotated[str, typer.Argument(help="The channel to follow.")] = "production",
    registry: Registry = DEFAULT_REGISTRY,
    follow: Annotated[float, typer.Option(min=1, help="Seconds between looks at the channel.")] = 30,
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond loopback --keys is needed.")
    ] = LOOPBACK,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of requests and probes.")] = 8080,
    keys: Annotated[Path | None, typer.Option(help="File with the valid keys, one a line.")] = None,
    metrics_host: Annotated[str, typer.Option(help="Address of the metrics; they need no key.")] = LOOPBACK,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the metrics; none: no metrics.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, envvar="CAR_TORCH_THREADS", help="Threads of torch.")] = 1,
) -> None:
    """Serve the release that a channel uses without TorchServe, as a container on a cluster does."""
    from serving.asgi.api_keys import require_keys
    from serving.asgi.server import Pod
    from serving.asgi.server import serve as listen
    from serving.deployment.follow_pod import follow as follow_channel

    with report_errors():
        pod = Pod(require_keys(host, keys))
        arguments = (open_store(registry), channel, pod, follow, typer.echo)
        threading.Thread(target=follow_channel, args=arguments, daemon=True).start()
        listen(pod, host, port, (metrics_host, metrics_port) if metrics_port else None, threads)


@delivery.command("infra-validate")
def validate_command(*, release: ReleaseOrChannel, registry: Registry = DEFAULT_REGISTRY, who: Who) -> None:
    """Prove again, with this code, that a release can be served as it was evaluated."""
    with report_errors():
        store = open_store(registry)
        report = validate_release(store, find(store, release), who)
        typer.echo(
            f"Release {report.release[:12]} can be served as archive {report.archive_sha256[:12]}: "
            f"{report.golden.sentence()}, p99 {report.golden.p99_ms:g} ms."
        )
