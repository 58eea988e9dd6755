"""`python pipeline.py compile | submit`: the pipeline for a cluster, as a file or handed over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from kfp import compiler
from kfp.dsl.graph_component import GraphComponent

from components import asked
from components.access import Access
from components.arguments import Request
from components.base import IMAGE
from components.cluster import load_cluster
from components.code import code_digest
from components.options import Options
from components.submit import Kubeflow, Schedule
from components.told import told


def for_clusters(build: Callable[[Options], GraphComponent], name: str, downloads: Path) -> typer.Typer:
    """The two commands for a pipeline.

    Args:
        build: makes the pipeline for a set of options.
        name: of the pipeline, and of the experiment that its runs are filed under.
        downloads: where fetched and converted sources are kept.
    """
    commands = typer.Typer()

    @commands.command("compile")
    def compile_command(
        *,
        output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")] = Path(
            "pipeline.yaml"
        ),
        image: asked.Image = IMAGE,
        gpu: asked.Gpu = 0,
        gpu_type: asked.GpuType = Options.gpu_type,
        cluster: asked.ClusterFile = None,
        platform: asked.PlatformName = "kubeflow",
        shards: asked.Shards = 1,
    ) -> None:
        """Compile the pipeline to IR YAML."""
        with told():
            options = Options(image, gpu, gpu_type, load_cluster(cluster), platform, shards)
            if output.suffix != ".yaml":
                raise typer.BadParameter(f"{output} must end with .yaml.", param_hint="--output")
            output.parent.mkdir(parents=True, exist_ok=True)
            compiler.Compiler().compile(build(options), str(output))
            typer.echo(f"Wrote {output}.")

    @commands.command()
    def submit(
        *,
        registry: asked.RemoteRegistry,
        data_dir: asked.RemoteData,
        host: asked.Host = "",
        namespace: asked.Namespace = "kubeflow",
        experiment: asked.Experiment = name,
        auth: asked.HowToProve = None,
        token: asked.Token = "",
        cookie: asked.Cookie = "",
        secret_file: asked.SecretFile = None,
        ca: asked.Certificates = "",
        service_account: asked.ServiceAccount = "",
        schedule: asked.Cron = "",
        channel: asked.Channel = "production",
        bootstrap: asked.Bootstrap = False,
        epochs: asked.Epochs = None,
        levels: asked.Levels = None,
        codes: asked.Codes = None,
        encoder: asked.Encoder = "",
        recipe: asked.Recipe = "{}",
        ranker: asked.Ranker = "{}",
        seed: asked.Seed = 0,
        codebook: asked.Mode = "reuse",
        train: asked.Training = True,
        warm_start: asked.WarmStart = False,
        gate_policy: asked.Policy = "",
        image: asked.Image = IMAGE,
        gpu: asked.Gpu = 0,
        gpu_type: asked.GpuType = Options.gpu_type,
        cluster: asked.ClusterFile = None,
        shards: asked.Shards = 1,
    ) -> None:
        """Hand the pipeline to Kubeflow Pipelines: for one run, or for a recurring run."""
        with told():
            asks = load_cluster(cluster)
            request = Request(
                "custom", data_dir, downloads, registry, channel, encoder, levels, codes, epochs, recipe,
                seed, gate_policy, bootstrap, codebook_mode=codebook, training=train, warm_start=warm_start,
                cache=asks.kept(), checkpoints=asks.kept("checkpoints", code_digest()), ranker=ranker,
            )  # fmt: skip
            pipeline = build(Options(image, gpu, gpu_type, asks, shards=shards))
            access = Access.of(auth, token, cookie, secret_file, ca)
            kubeflow = Kubeflow(host, namespace, access, service_account)
            arguments = request.arguments(remote=True)
            if schedule:  # what the source holds then can't be named now
                when = Schedule(f"{experiment} {channel}", schedule)
                made = kubeflow.schedule(pipeline, arguments | {"source_digest": ""}, experiment, when)
                typer.echo(f"Scheduled recurring run {made} at {schedule}.")
            else:
                typer.echo(f"Submitted run {kubeflow.submit(pipeline, arguments, experiment)}.")

    return commands
