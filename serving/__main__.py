"""`python -m serving`: look after the server on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from serving.answering.openapi import as_yaml
from serving.archive.build import ArchiveError
from serving.errors import ServingError
from serving.torchserve.process import find_processes
from serving.torchserve.rollover import curl_line, restore
from serving.torchserve.server import TorchServe
from serving.torchserve.state_dir import DeployedRelease, StateDir

app = typer.Typer(help="Look after the TorchServe of this machine.", no_args_is_help=True)
console = Console()
State = Annotated[Path, typer.Option(help="The server's folder.")]
DEFAULT_STATE = Path(".car/serving")


@app.command()
def status(state: State = DEFAULT_STATE) -> None:
    """Say what runs and which release it serves; exit code 1 where nothing does."""
    server = TorchServe.attach(state)
    deployed = DeployedRelease.read(server.state)
    table = Table("what", Column("value", overflow="fold"), show_header=False)
    table.add_row("release", deployed.release if deployed else "none")
    table.add_row("processes", ", ".join(str(process.pid) for process in find_processes(server.state)))
    for name, port in server.ports.as_dict().items():
        table.add_row(f"{name} port", str(port))
    default = server.client.default_version()
    for version in server.client.versions().values():
        role = " (default)" if version.version == default else ""
        table.add_row(
            f"version {version.version}{role}", f"{version.ready_workers} ready, {version.pending} waiting"
        )
    table.add_row("logs", str(server.state.logs))
    console.print(table)


@app.command()
def start(state: State = DEFAULT_STATE) -> None:
    """Start the server again with the release that was deployed last."""
    folder = StateDir.at(state)
    with folder.exclusive():
        server = restore(folder.root)
    console.print(f"TorchServe answers on {server.client.prediction_url}.")


@app.command()
def stop(state: State = DEFAULT_STATE) -> None:
    """Stop the server and its workers; fine where none runs."""
    folder = StateDir.at(state)
    if not folder.root.is_dir():
        console.print(f"No server was ever started in {folder.root}.")
        return
    with folder.exclusive():
        ended = TorchServe.stop(folder.root)
    console.print(
        f"Stopped TorchServe ({ended} processes)." if ended else f"No server runs in {folder.root}."
    )


@app.command()
def ask(
    history: Annotated[str, typer.Option(help="Item ids, oldest first, separated by commas.")] = "",
    k: Annotated[int, typer.Option(help="How many items to recommend.")] = 10,
    thinking: Annotated[int | None, typer.Option(help="Semantic levels in the score; 0 is fast.")] = None,
    raw: Annotated[bool, typer.Option(help="Print the answer as JSON.")] = False,
    state: State = DEFAULT_STATE,
) -> None:
    """Ask for recommendations and print them with their reasons."""
    items = [item.strip() for item in history.split(",") if item.strip()]
    request = {"history": items, "k": k, "explain": True}
    if thinking is not None:
        request["thinking"] = thinking
    answer = TorchServe.attach(state).predict(request)
    if raw:
        console.print_json(json.dumps(answer))
        return
    table = Table("#", "item", "title", "score", "why", title=f"release {answer['release'][:12]}")
    for rank, item in enumerate(answer["items"], start=1):
        reasons = "\n".join(item.get("reasons", []))
        score = "" if item["score"] is None else f"{item['score']:.4g}"
        table.add_row(str(rank), item["item_id"], item["title"], score, reasons)
    console.print(table)
    if answer.get("skipped"):
        console.print(f"Unknown items were skipped: {', '.join(answer['skipped'])}.")
    if answer.get("fallback"):
        console.print("There is no known history, so these are popular items.")


@app.command()
def curl(history: str = "", k: int = 10, state: State = DEFAULT_STATE) -> None:
    """Print a curl line that asks the server; it reads the key from a private file."""
    items = [item.strip() for item in history.split(",") if item.strip()]
    typer.echo(curl_line(TorchServe.attach(state), {"history": items, "k": k}))


@app.command()
def asgi(
    archive: Annotated[Path | None, typer.Option(help="A model archive; default: the deployed one.")] = None,
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8080,
    state: State = DEFAULT_STATE,
    threads: Annotated[int, typer.Option(min=1, envvar="CAR_TORCH_THREADS", help="Threads of torch.")] = 1,
) -> None:
    """Serve the same answers without TorchServe, on loopback, until Ctrl-C."""
    from serving.asgi.app import serve

    serve(archive or deployed_archive(StateDir.at(state)), port, threads=threads)


@app.command()
def openapi() -> None:
    """Print the API as an OpenAPI 3.1 document."""
    typer.echo(as_yaml(), nl=False)


def deployed_archive(state: StateDir) -> Path:
    """The archive that was deployed last.

    Raises:
        ServingError: where nothing was, or it is damaged.
    """
    if DeployedRelease.read(state) is None:
        raise ServingError(f"Nothing was deployed to {state.root} yet; name an archive with --archive.")
    return DeployedRelease.load(state).verify_archive(state)


def main() -> None:
    """Run the command line; a serving error is one sentence on stderr and exit code 1."""
    try:
        app()
    except (ServingError, ArchiveError) as error:
        Console(stderr=True).print(str(error), style="red", markup=False, highlight=False)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
