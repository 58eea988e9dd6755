"""The commands that serve releases: deploy, infra-validate, serve, status, start, stop, ask and the like."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from car_model.recommender.request import Request
from common.cli import PlainConsole, command_group, plain_table
from common.home import Home
from registry.channels.channel import find
from registry.cli.options import Registry, ReleaseOrChannel, Who, show_problems
from registry.releases.layout import PRODUCTION
from registry.store.open import open_store
from serving.torchserve.config import LOOPBACK, TORCH_THREADS
from serving.torchserve.state_dir import StateDir

Serving = Annotated[
    Path | None,
    typer.Option("--serving", help="The server's folder; default: the home's for the channel."),
]
OneChannel = Annotated[str, typer.Option("--channel", "-c", help="The channel that the server answers for.")]
EachChannel = Annotated[
    str, typer.Option("--channel", "-c", help="Only the server of this channel; default: all of the home.")
]
HELP = {name: field.description or "" for name, field in Request.model_fields.items()}
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
    serving: Serving = None,
    who: Who,
    follow: Annotated[float, typer.Option(min=0, help="Seconds between looks at the channel; 0: once.")] = 0,
) -> None:
    """Roll the channel's server, which is started if it is down, over to the channel's release."""
    from serving.deployment.deploy_channel import deploy_channel
    from serving.deployment.follow import Follower, TorchServeTarget
    from serving.torchserve.state_dir import ServedChannel

    store, state = open_store(registry), StateDir(_folder(serving, channel))
    if follow:
        ServedChannel.of(state, channel, store.url).check(state)
        target = TorchServeTarget(state.root, who)
        with state.watch(follower=True):
            Follower(store, channel, target, seconds=follow, report=typer.echo).run()
    typer.echo(deploy_channel(store, channel, state.root, who).sentence(channel))


@app.command("infra-validate")
def infra_validate_command(*, release: ReleaseOrChannel, registry: Registry, who: Who) -> None:
    """Prove again, with this code, that a release can be served as it was evaluated."""
    from serving.deployment.deploy_channel import validate_release

    store = open_store(registry)
    typer.echo(validate_release(store, find(store, release), who).summary())


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
    channel: OneChannel = PRODUCTION,
    serving: Serving = None,
    threads: Threads = 1,
) -> None:
    """Serve one archive without TorchServe, on loopback, until Ctrl-C."""
    from serving.asgi.app import serve_archive
    from serving.torchserve.state_dir import DeployedRelease

    if archive is None:
        state = StateDir(_folder(serving, channel))
        archive = DeployedRelease.load(state).verify_archive(state)
    serve_archive(archive, port, threads=threads)


@app.command()
def status(serving: Serving = None, channel: EachChannel = "") -> None:
    """Show what runs and which release it serves; exit code 1 if nothing runs."""
    from serving.deployment.deploy_channel import find_difference
    from serving.errors import ServingError
    from serving.torchserve.process import find_processes, supervisor_process
    from serving.torchserve.server import TorchServe
    from serving.torchserve.state_dir import DeployedRelease, ServedChannel

    problems, running = [], False
    for state in _servers(serving, channel):
        supervisor = supervisor_process(state)
        try:
            server = TorchServe.attach(state.root)
        except ServingError as error:
            soon = f"its supervisor (process {supervisor.pid}) starts it soon" if supervisor else ""
            problems.append(f"No TorchServe runs in {state.root}; {soon}." if soon else str(error))
            continue
        if running:
            console.print()
        running = True
        deployed, served = DeployedRelease.load_or_none(state), ServedChannel.load_or_none(state)
        rows = [
            ("server", str(state.root)),
            ("channel", f"{served.channel} of {served.registry}" if served else "none"),
            ("release", deployed.release if deployed else "none"),
            ("processes", ", ".join(str(process.pid) for process in find_processes(state))),
            ("supervisor", str(supervisor.pid) if supervisor else "none: deploy, or start, begins one"),
            *((f"{name} port", str(port)) for name, port in asdict(server.ports).items()),
        ]
        default = server.client.default_version()
        for version, workers in server.client.versions().items():
            role = " (default)" if version == default else ""
            rows.append(
                ("version", f"{version}{role}: {workers.ready_workers} ready, {workers.pending} waiting")
            )
        for name, text in [*rows, ("logs", str(state.logs))]:
            console.print(f"{name:16} {text}", soft_wrap=True)
        problems += find_difference(state)
    show_problems(problems)
    if not running:
        raise typer.Exit(1)


@app.command()
def start(serving: Serving = None, channel: EachChannel = "") -> None:
    """Start the home's servers again, each with the release that was deployed to it last."""
    from serving.torchserve.rollover import restore

    for state in _servers(serving, channel):
        with state.exclusive():
            server = restore(state.root)
        typer.echo(f"TorchServe answers on {server.client.prediction_url}.")


@app.command()
def stop(
    serving: Serving = None,
    channel: EachChannel = "",
    every: Annotated[bool, typer.Option("--all", help="The servers of all homes in this folder.")] = False,
) -> None:
    """Stop the home's servers, their workers and supervisors; it is fine if none runs."""
    from serving.torchserve.process import stop_supervisor
    from serving.torchserve.server import TorchServe

    problems = list[str]()
    states = list(map(StateDir, Home.all_servers(problems))) if every else _servers(serving, channel)
    stopped = 0
    for state in states:
        if not state.root.is_dir():
            if not every:
                typer.echo(f"No server was ever started in {state.root}.")
            continue
        stop_supervisor(state)  # it may hold the lock while it tries to reach a server that hangs
        with state.exclusive():
            count = TorchServe.stop(state.root)
        if count:
            typer.echo(f"Stopped TorchServe ({count} processes) in {state.root}.")
        elif not every:
            typer.echo(f"No server runs in {state.root}.")
        stopped += count
    if every and not stopped:
        typer.echo("No server runs.")
    show_problems(problems)


@app.command("supervise")
def supervise_command(
    serving: Annotated[Path, typer.Option("--serving", help="The server's folder.")],
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 15,
) -> None:
    """Start the server again whenever it died, until `stop`; every deployment starts this by itself."""
    from serving.deployment.follow import supervise

    supervise(StateDir(serving), seconds, typer.echo)


@app.command()
def ask(
    *,
    history: History = "",
    k: K = 10,
    thinking: Annotated[int | None, typer.Option(help=HELP["thinking"])] = None,
    exclude: Annotated[str, typer.Option(help=f"{HELP['exclude']} Separated by commas.")] = "",
    candidates: Annotated[str | None, typer.Option(help=f"{HELP['candidates']} Separated by commas.")] = None,
    explain: Annotated[bool, typer.Option(help=HELP["explain"])] = True,
    rank_by: Annotated[Literal["relevance", "action"], typer.Option(help=HELP["rank_by"])] = "relevance",
    actions: Annotated[
        str | None,
        typer.Option(
            help="What was done with each item of the history: 5,,3; nothing between commas: unknown."
        ),
    ] = None,
    raw: Annotated[bool, typer.Option(help="Print the answer as JSON.")] = False,
    channel: OneChannel = PRODUCTION,
    serving: Serving = None,
) -> None:
    """Ask for recommendations and print them with their reasons."""
    from serving.torchserve.server import TorchServe

    request = {
        "history": _item_ids(history),
        "k": k,
        "thinking": thinking,
        "exclude": _item_ids(exclude),
        "candidates": None if candidates is None else _item_ids(candidates),
        "explain": explain,
        "rank_by": rank_by,
        "actions": None if actions is None else _numbers(actions),
    }
    answer = TorchServe.attach(_folder(serving, channel)).predict(request)
    if raw:
        typer.echo(json.dumps(answer, indent=2, ensure_ascii=False))
        return
    columns = {"item": "item_id", "title": "title", "score": "score", "liked": "liked", "why": "reasons"}
    shown = {name: key for name, key in columns.items() if any(key in item for item in answer["items"])}
    table = plain_table("#", *shown)
    console.print(f"release {answer['release'][:12]}")
    for rank, item in enumerate(answer["items"], start=1):
        table.add_row(str(rank), *(_cell(item[key]) for key in shown.values()))
    console.print(table)
    if answer.get("skipped"):
        console.print(f"Unknown items were skipped: {', '.join(answer['skipped'])}.")
    if answer.get("skipped_candidates"):
        console.print(f"Candidates that are not offered: {', '.join(answer['skipped_candidates'])}.")
    if answer.get("fallback"):
        console.print("No item of the history is known, so these are popular items.")


@app.command()
def curl(
    *, history: History = "", k: K = 10, channel: OneChannel = PRODUCTION, serving: Serving = None
) -> None:
    """Print a curl line that asks the server; curl reads the key from a private file."""
    from serving.torchserve.rollover import curl_line
    from serving.torchserve.server import TorchServe

    server = TorchServe.attach(_folder(serving, channel))
    typer.echo(curl_line(server, {"history": _item_ids(history), "k": k}))


@app.command()
def openapi() -> None:
    """Print the API as an OpenAPI 3.1 document."""
    from serving.answering.openapi import as_yaml

    typer.echo(as_yaml(), nl=False)


def _item_ids(ids: str) -> list[str]:
    return [item.strip() for item in ids.split(",") if item.strip()]


def _numbers(actions: str) -> list[float | None]:
    try:
        return [float(action) if action.strip() else None for action in actions.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"{actions!r} is not a list of numbers such as 5,,3.") from error


def _cell(value: Any) -> str:
    """A value of an answer in a table."""
    if isinstance(value, list):
        return "\n".join(value)
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _folder(serving: Path | None, channel: str) -> Path:
    """The folder of the server that a command means."""
    return serving or Home.load().server(channel)


def _servers(serving: Path | None, channel: str) -> list[StateDir]:
    """The servers that a command means: the named one, the channel's, or all of the home."""
    if serving or channel:
        return [StateDir(_folder(serving, channel))]
    home = Home.load()
    return [StateDir(home.server(name)) for name in home.channels() or [PRODUCTION]]
