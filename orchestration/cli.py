"""`python pipeline.py compile | submit`: the pipeline for a cluster, as a file or handed over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from kfp import compiler
from kfp.dsl.graph_component import GraphComponent

from common.cli import report_errors
from common.code_digest import code_digest
from orchestration import cli_options as asked
from orchestration.kubeflow.client import Access, Kubeflow, Schedule
from orchestration.kubeflow.cluster import load_cluster
from orchestration.resources import Options
from orchestration.run_request import Request
from orchestration.step import IMAGE
from registry.channels.channel import find
from registry.cli.options import DEFAULT_REGISTRY, AsJson, Registry, show_json
from registry.errors import ReleaseError
from registry.store.open import open_store


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
        with report_errors():
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
        with report_errors():
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


onboarding = typer.Typer()


@onboarding.command()
def onboard(
    items: Annotated[Path, typer.Argument(help="CSV, TSV, JSONL or Parquet: item_id, title, text columns.")],
    release: Annotated[str, typer.Option(help="The release to add them to, or its channel.")] = "production",
    registry: Registry = DEFAULT_REGISTRY,
    cache: Annotated[Path | None, typer.Option(help="Folder of text vectors kept between runs.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a release that offers new items too, scored through their semantic IDs; no channel moves."""
    from orchestration.onboard import onboard_items

    store = open_store(registry)
    try:
        made = onboard_items(store, find(store, release), items, cache)
    except ValueError as error:  # the model library's sentences
        raise ReleaseError(str(error)) from error
    if as_json:
        show_json({"release": made.manifest.release, "added": made.added, "known": made.known})
        return
    short, parent = made.manifest.release[:12], (made.manifest.parent or "")[:12]
    typer.echo(f"Wrote release {short}: {parent} with {made.added} new items ({made.known} were known).")
    typer.echo(f"Put it in use: python -m registry promote {short} --channel staging --reason '...'")
