"""Commands about runs on Kubeflow: list them, follow one, read what a step wrote."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Argument, Option

from common.cli import INTERRUPTED, PlainConsole, command_group, plain_table
from common.errors import UserError
from orchestration import cli_options as options
from orchestration.cli_options import KubeflowOptions, with_kubeflow_options
from orchestration.kubeflow.client import Kubeflow
from orchestration.kubeflow.ending import Ending, RunSummary, run_summary
from orchestration.kubeflow.run_pods import RunPods
from orchestration.local.progress import Progress
from orchestration.runs.watch import Watch
from registry.errors import RegistryError
from registry.run_records import read_ending
from registry.store.open import open_store

app = command_group("Runs on Kubeflow.")


def watch_run(kubeflow: Kubeflow, run_id: str, registry: str, channel: str) -> None:
    """Follow a run to its end, print how it ended and exit with the code that says so."""
    try:
        state = Watch(kubeflow, run_id, Progress(0)).follow()
    except KeyboardInterrupt:
        typer.echo(f"The run goes on; 'car watch {run_id}' follows it again.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    summary = _recorded(registry, run_id) or run_summary(
        state, run_id=run_id, registry=registry, channel=channel, git_commit=""
    )
    console = PlainConsole(soft_wrap=True)
    good = summary.ending in (Ending.PROMOTED, Ending.IN_USE)
    console.print(f"\n{summary.text}", style="green" if good else "bold red")
    console.print(kubeflow.run_page(run_id))
    raise typer.Exit(summary.ending.exit_code)


@app.command()
@with_kubeflow_options
def watch(
    *,
    run_id: options.RunId,
    registry: options.RemoteRegistry,
    channel: Annotated[str, Option(help="The channel that the run is to move.")] = "production",
    kubeflow_options: KubeflowOptions,
) -> None:
    """Follow a run on Kubeflow to its end.

    Exit codes: 0 promoted or already in use, 1 failed, 2 wrong usage, 3 not promoted.
    """
    watch_run(kubeflow_options.kubeflow(), run_id, registry, channel)


@app.command()
@with_kubeflow_options
def runs(
    *,
    registry: Annotated[str, Option(help="Its registry, to say how each run ended.")] = "",
    count: Annotated[int, Option(min=1, max=100, help="How many of the latest runs.")] = 10,
    kubeflow_options: KubeflowOptions,
) -> None:
    """List the latest runs on Kubeflow, and with --registry how each ended."""
    table = plain_table("Run", "Started", "State", "Ending")
    for run in kubeflow_options.kubeflow().runs(count):
        summary = _recorded(registry, run.run_id) if registry else None
        started = f"{run.created_at:%Y-%m-%d %H:%M}" if run.created_at else ""
        table.add_row(run.run_id, started, run.state or "", str(summary.ending) if summary else "")
    PlainConsole().print(table)


@app.command()
def logs(
    *,
    run_id: options.RunId,
    step: Annotated[str, Argument(help="The step, such as train.")],
    namespace: Annotated[str, Option(help="Namespace (profile) of the run.")] = "kubeflow",
) -> None:
    """Print what a step of a run on Kubeflow wrote: every try, oldest first.

    Read from the step's pods with the kubeconfig, while Kubernetes keeps them.
    """
    reader = RunPods(namespace)
    pods = [pod for pod in reader.of_run(run_id) if not pod.driver]
    tries = [pod for pod in pods if pod.step == step]
    if not tries:
        steps = ", ".join(dict.fromkeys(pod.step for pod in pods))
        raise UserError(
            f"The run {run_id} has no pod of a step {step} in {namespace}; "
            + (f"there are: {steps}." if steps else "it has none at all: is the namespace right?")
        )
    for pod in tries:
        if len(tries) > 1:
            typer.echo(f"--- {pod.name}", err=True)
        if pod.phase == "Pending":
            typer.echo(f"{step} has not started: {pod.problem or 'its pod is being prepared.'}", err=True)
        else:
            typer.echo(reader.log(pod.name), nl=False)


def _recorded(registry: str, run_id: str) -> RunSummary | None:
    """How a run ended by its own exit step's account; None if that wrote none, or none can be read."""
    try:
        document = read_ending(open_store(registry), run_id)
        return RunSummary.model_validate_json(document) if document else None
    except (RegistryError, ValueError):
        return None
