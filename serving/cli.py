"""The commands that serve releases: deploy, infra-validate, serve, status, start, stop, ask and the like."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from common.cli import PlainConsole, command_group, plain_table
from common.home import Home
from registry.channels.channel import find
from registry.cli.options import Registry, ReleaseOrChannel, Who
from registry.store.open import open_store
from serving.torchserve.config import LOOPBACK, TORCH_THREADS

Serving = Annotated[
    Path,
    typer.Option(
        "--serving",
        help="The server's folder.",
        default_factory=lambda: Path(Home.load().serving),
        show_default="the home's",
    ),
]
History = Annotated[str, typer.Option(help="Item ids, oldest first, separated by commas.")]
K = Annotated[int, typer.Option("--k", help="Number of items to recommend.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="Port of requests and probes.")]
Threads = Annotated[int, typer.Option(min=1, envvar=TORCH_THREADS, help="Threads of PyTorch.")]

app = command_group("Serve releases and look after the server of this machine.")
console = PlainConsole()


@app.command("deploy")
def deploy_command(
    *,
    channel: Annotated[str, typer.Argument(help="The channel whose release to serve.")] = "production",
    registry: Registry,
    serving: Serving,
    who: Who,
    follow: Annotated[float, typer.Option(min=0, help="Seconds between looks at the channel; 0: once.")] = 0,
) -> None:
    """Roll the server of this machine, which is started if it is down, over to a channel's release."""
    from serving.deployment.deploy_channel import deploy_channel
    from serving.deployment.follow import Follower, TorchServeTarget
    from serving.torchserve.state_dir import StateDir

    store = open_store(registry)
    if follow:
        target = TorchServeTarget(serving, who)
        with StateDir(serving).watch(follower=True):
            Follower(store, channel, target, seconds=follow, report=typer.echo).run()
    typer.echo(deploy_channel(store, channel, serving, who).sentence(channel))


@app.command("infra-validate")
def infra_validate_command(*, release: ReleaseOrChannel, registry: Registry, who: Who) -> None:
    """Prove again, with this code, that a release can be served as it was evaluated."""
    from serving.deployment.deploy_channel import validate_release

    store = open_store(registry)
    report = validate_release(store, find(store, release), who)
    typer.echo(
        f"Release {report.release[:12]} can be served as archive {report.archive_sha256[:12]}: "
        f"{report.replay.sentence()}, p99 {report.replay.p99_ms:g} ms."
    )


@app.command()
def serve(
    *,
    channel: Annotated[str, typer.Argument(help="The channel to follow.")] = "production",
    registry: Registry,
    follow: Annotated[float, typer.Option(min=1, help="Seconds between looks at the channel.")] = 30,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any other than loopback needs --keys.")
    ] = LOOPBACK,
    port: Port = 8080,
    keys: Annotated[Path | None, typer.Option(help="File with the valid keys, one per line.")] = None,
    metrics_host: Annotated[str, typer.Option(help="Address of the metrics; they need no key.")] = LOOPBACK,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the metrics; without it there are none.")
    ] = None,
    threads: Threads = 1,
) -> None:
    """Serve the release that a channel uses without TorchServe, as a container on a cluster does."""
    from serving.asgi.api_keys import require_keys

    valid_keys = require_keys(host, keys)
    from serving.asgi.server import Pod, serve_pod
    from serving.deployment.follow import Follower, PodTarget

    pod = Pod(valid_keys)
    follower = Follower(open_store(registry), channel, PodTarget(pod), seconds=follow, report=typer.echo)
    threading.Thread(target=follower.run, daemon=True).start()
    serve_pod(pod, host, port, (metrics_host, metrics_port) if metrics_port else None, threads)


@app.command()
def asgi(
    *,
    archive: Annotated[Path | None, typer.Option(help="A model archive; default: the deployed one.")] = None,
    port: Port = 8080,
    serving: Serving,
    threads: Threads = 1,
) -> None:
    """Serve one archive without TorchServe, on loopback, until Ctrl-C."""
    from serving.asgi.app import serve_archive
    from serving.torchserve.state_dir import DeployedRelease, StateDir

    if archive is None:
        state = StateDir(serving)
        archive = DeployedRelease.load(state).verify_archive(state)
    serve_archive(archive, port, threads=threads)


@app.command()
def status(serving: Serving) -> None:
    """Show what runs and which release it serves; exit code 1 if nothing runs."""
    from serving.errors import ServingError
    from serving.torchserve.process import find_processes, supervisor_process
    from serving.torchserve.server import TorchServe
    from serving.torchserve.state_dir import DeployedRelease, StateDir

    supervisor = supervisor_process(StateDir(serving))
    try:
        server = TorchServe.attach(serving)
    except ServingError as error:
        if supervisor:
            raise ServingError(
                f"No TorchServe runs in {serving}; its supervisor (process {supervisor.pid}) starts it soon."
            ) from error
        raise
    deployed = DeployedRelease.load(server.state) if server.state.deployed.is_file() else None
    table = plain_table("property", "value")
    table.columns[1].overflow = "fold"
    table.add_row("release", deployed.release if deployed else "none")
    table.add_row("processes", ", ".join(str(process.pid) for process in find_processes(server.state)))
    table.add_row("supervisor", str(supervisor.pid) if supervisor else "none: deploy, or start, begins one")
    for name, port in asdict(server.ports).items():
        table.add_row(f"{name} port", str(port))
    default = server.client.default_version()
    for version, workers in server.client.versions().items():
        role = " (default)" if version == default else ""
        table.add_row(f"version {version}{role}", f"{workers.ready_workers} ready, {workers.pending} waiting")
    table.add_row("logs", str(server.state.logs))
    console.print(table)


@app.command()
def start(serving: Serving) -> None:
    """Start the server again with the release that was deployed last."""
    from serving.torchserve.rollover import restore
    from serving.torchserve.state_dir import StateDir

    state = StateDir(serving)
    with state.exclusive():
        server = restore(state.root)
    typer.echo(f"TorchServe answers on {server.client.prediction_url}.")


@app.command()
def stop(
    serving: Serving,
    every: Annotated[bool, typer.Option("--all", help="The servers of all homes in this folder.")] = False,
) -> None:
    """Stop the server, its workers and its supervisor; it is fine if none runs."""
    from serving.torchserve.process import stop_supervisor
    from serving.torchserve.server import TorchServe
    from serving.torchserve.state_dir import StateDir

    folders = list(dict.fromkeys(Path(home.serving) for home in Home.all())) if every else [serving]
    for state in map(StateDir, folders or [serving]):
        if not state.root.is_dir():
            typer.echo(f"No server was ever started in {state.root}.")
            continue
        stop_supervisor(state)  # it may hold the lock while it tries to reach a server that hangs
        with state.exclusive():
            count = TorchServe.stop(state.root)
        stopped = f"Stopped TorchServe ({count} processes) in {state.root}."
        typer.echo(stopped if count else f"No server runs in {state.root}.")


@app.command("supervise")
def supervise_command(
    serving: Serving,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 15,
) -> None:
    """Start the server again whenever it died, until `stop`; every deployment starts this by itself."""
    from serving.deployment.follow import supervise
    from serving.torchserve.state_dir import StateDir

    supervise(StateDir(serving), seconds, typer.echo)


@app.command()
def ask(
    *,
    history: History = "",
    k: K = 10,
    thinking: Annotated[
        int | None, typer.Option(help="Semantic-ID levels in the score; 0 is fastest, default: all.")
    ] = None,
    raw: Annotated[bool, typer.Option(help="Print the answer as JSON.")] = False,
    serving: Serving,
) -> None:
    """Ask for recommendations and print them with their reasons."""
    from serving.torchserve.server import TorchServe

    request = {"history": _item_ids(history), "k": k, "explain": True}
    if thinking is not None:
        request["thinking"] = thinking
    answer = TorchServe.attach(serving).predict(request)
    if raw:
        typer.echo(json.dumps(answer, indent=2, ensure_ascii=False))
        return
    table = plain_table("#", "item", "title", "score", "why")
    console.print(f"release {answer['release'][:12]}")
    for rank, item in enumerate(answer["items"], start=1):
        reasons = "\n".join(item.get("reasons", []))
        score = "" if item["score"] is None else f"{item['score']:.4g}"
        table.add_row(str(rank), item["item_id"], item["title"], score, reasons)
    console.print(table)
    if answer.get("skipped"):
        console.print(f"Unknown items were skipped: {', '.join(answer['skipped'])}.")
    if answer.get("fallback"):
        console.print("No item of the history is known, so these are popular items.")


@app.command()
def curl(*, history: History = "", k: K = 10, serving: Serving) -> None:
    """Print a curl line that asks the server; curl reads the key from a private file."""
    from serving.torchserve.rollover import curl_line
    from serving.torchserve.server import TorchServe

    typer.echo(curl_line(TorchServe.attach(serving), {"history": _item_ids(history), "k": k}))


@app.command()
def openapi() -> None:
    """Print the API as an OpenAPI 3.1 document."""
    from serving.answering.openapi import as_yaml

    typer.echo(as_yaml(), nl=False)


def _item_ids(history: str) -> list[str]:
    return [item.strip() for item in history.split(",") if item.strip()]
