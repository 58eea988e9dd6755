"""CAR on Kubeflow: the pipeline, from a source to a served release, and the door to its command line."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl.graph_component import GraphComponent

from components.codebook.embed import choose_encoder, embed, merge
from components.codebook.tokenize import tokenize
from components.conclude import conclude
from components.data.ingest import ingest
from components.data.resolve_source import resolve_source
from components.data.validate import validate
from components.gate.evaluate import evaluate
from components.gate.gate import gate
from components.gate.not_promoted import not_promoted
from components.gate.report import report
from components.gate.resolve_champion import resolve_champion
from components.serving.deploy import deploy
from components.serving.infra_validate import infra_validate
from components.serving.package import package
from components.serving.release import release
from components.training.resolve_recipe import resolve_recipe
from components.training.train import train
from components.training.train_baseline import train_baseline
from components.training.train_ranker import train_ranker
from orchestration import artifact_types
from orchestration.cli import command_line
from orchestration.resources import CompileOptions

NAME = "car-on-kubeflow"
DESCRIPTION = "Interactions and a catalogue in, a gated release served out."
PRODUCTION_ENCODER = '{"name": "sentence-transformers/sentence-t5-base"}'  # the paper's


class PipelineOutputs(NamedTuple):
    """What a run leaves, whether or not the gate lets the challenger through."""

    dataset: artifact_types.Dataset
    data_docs: dsl.HTML
    bundle: artifact_types.Bundle
    evaluation: artifact_types.Evaluation
    golden: artifact_types.Golden
    verdict: artifact_types.Verdict
    report: dsl.HTML
    recipe: str


def build(options: CompileOptions | None = None) -> GraphComponent:
    """The pipeline: every step from a source to a served release."""
    options = options or CompileOptions()
    configure = options.configure  # image, resources, retries and caching of a task

    @dsl.pipeline(name=NAME, description=DESCRIPTION)
    def car_on_kubeflow(
        source: str,
        source_digest: str,
        registry: str,
        channel: str = "production",
        new_channel: bool = False,
        data_policy: str = "{}",
        encoder: str = PRODUCTION_ENCODER,
        recipe: str = "champion",
        changes: str = "{}",
        codebook_mode: str = "reuse",
        training: bool = True,
        warm_start: bool = False,
        gate_policy: str = "",
        bootstrap: bool = False,
        require_promotion: bool = False,
        serving: str = "",
        cache: str = "",
        checkpoints: str = "",
        git_commit: str = "",
    ) -> PipelineOutputs:
        """Turn a source into a served release.

        Args:
            source: what to ingest, a DatasetConfig as JSON.
            source_digest: digest of the source's settings and content; empty for what is there.
            registry: releases and channels, a folder or gs://bucket/prefix.
            channel: the channel to compare with and to promote to.
            new_channel: make the channel if it is not there.
            data_policy: rules that the data must keep, a DataPolicy as JSON.
            encoder: text encoder of a recipe that names none, an EncoderSpec as JSON.
            recipe: "champion" starts from the recipe of the channel's release, "default" from the default
                one; or settings as JSON, and the rest keeps its default.
            changes: single settings on top as JSON, such as {"d_model": 96, "ranker.liked": 4}.
            codebook_mode: fit a new codebook, reuse the champion's, or refresh it (codes aligned).
            training: false releases today's catalogue with the champion's weights.
            warm_start: train from the champion's weights.
            gate_policy: text of a gate policy in YAML; empty for the project's own.
            bootstrap: let a first release through, which has no champion to be compared with.
            require_promotion: end the run as failed if the gate refuses the challenger.
            serving: folder of the TorchServe to roll over; empty if servers follow the channel.
            cache: folder that survives runs (fetched sources, text vectors); empty for none.
            checkpoints: folder that survives a killed run, to resume training from; empty for none.
            git_commit: commit of the code that asks for the run.
        """
        champion_task = configure(
            resolve_champion(registry=registry, channel=channel, new_channel=new_channel)
        )
        champion = champion_task.outputs["release"]

        recipe_task = configure(
            resolve_recipe(
                registry=registry,
                champion=champion,
                recipe=recipe,
                changes=changes,
                encoder=encoder,
                mode=codebook_mode,
                training=training,
            )
        )
        settings = recipe_task.outputs

        source_task = configure(resolve_source(source=source, source_digest=source_digest))
        ingest_task = configure(ingest(source=source, source_digest=source_task.output, cache=cache))
        dataset = ingest_task.output
        validate_task = configure(
            validate(dataset=dataset, policy=data_policy, registry=registry, champion=champion)
        )

        if options.shards == 1:
            tokenize_task = configure(
                tokenize(
                    dataset=dataset,
                    encoder=settings["encoder"],
                    n_levels=settings["n_levels"],
                    codebook_size=settings["codebook_size"],
                    seed=settings["seed"],
                    mode=codebook_mode,
                    registry=registry,
                    champion=champion,
                    cache=cache,
                )
            ).after(validate_task)
        else:  # embed the texts side by side first
            choose_encoder_task = configure(
                choose_encoder(
                    dataset=dataset,
                    encoder=settings["encoder"],
                    mode=codebook_mode,
                    registry=registry,
                    champion=champion,
                )
            ).after(validate_task)
            merge_tasks: list[dsl.PipelineTask] = []
            for numbers in options.shard_groups():
                with dsl.ParallelFor(numbers, name="shards", parallelism=options.parallelism) as shard:
                    embed_task = configure(
                        embed(
                            dataset=dataset,
                            encoder=choose_encoder_task.output,
                            shard=shard,
                            shards=options.shards,
                            cache=cache,
                        )
                    )
                    if options.parallelism:  # of all groups together
                        embed_task.after(*merge_tasks[-1:])
                shards = dsl.Collected(embed_task.output)
                earlier = {"earlier": merge_tasks[-1].output} if merge_tasks else {}
                merge_tasks.append(configure(merge(shards=shards, numbers=numbers, **earlier)))
            tokenize_task = configure(
                tokenize(
                    dataset=dataset,
                    vectors=merge_tasks[-1].output,
                    encoder=settings["encoder"],
                    n_levels=settings["n_levels"],
                    codebook_size=settings["codebook_size"],
                    seed=settings["seed"],
                    mode=codebook_mode,
                    registry=registry,
                    champion=champion,
                    cache=cache,
                )
            ).after(validate_task)
        catalogue = tokenize_task.outputs["catalogue"]

        train_task = configure(
            train(
                dataset=dataset,
                codebook=tokenize_task.outputs["codebook"],
                catalogue=catalogue,
                recipe=settings["car"],
                registry=registry,
                champion=champion,
                training=training,
                warm_start=warm_start,
                checkpoints=checkpoints,
            )
        )
        train_baseline_task = configure(
            train_baseline(
                dataset=dataset, catalogue=catalogue, recipe=settings["car"], checkpoints=checkpoints
            )
        )
        train_ranker_task = configure(
            train_ranker(
                dataset=dataset,
                bundle=train_task.outputs["bundle"],
                ranker=settings["ranker"],
                training=training,
                checkpoints=checkpoints,
            )
        )
        bundle = train_ranker_task.outputs["ranked_bundle"]

        evaluate_task = configure(
            evaluate(
                dataset=dataset,
                bundle=bundle,
                sasrec=train_baseline_task.outputs["sasrec"],
                health=tokenize_task.outputs["health"],
                drift=validate_task.outputs["drift"],
                car_curves=train_task.outputs["curves"],
                sasrec_curves=train_baseline_task.outputs["curves"],
                ranker_summary=train_ranker_task.outputs["ranker_summary"],
                registry=registry,
                champion=champion,
            )
        )
        evaluation, golden = evaluate_task.outputs["evaluation"], evaluate_task.outputs["golden"]
        gate_task = configure(
            gate(
                evaluation=evaluation,
                policy=gate_policy,
                bootstrap=bootstrap,
                forced=champion_task.outputs["forced"],
            )
        )
        verdict = gate_task.outputs["verdict"]
        report_task = configure(
            report(
                dataset=dataset,
                bundle=bundle,
                evaluation=evaluation,
                verdict=verdict,
                recipe=settings["record"],
                run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
                git_commit=git_commit,
            )
        )

        with dsl.If(gate_task.outputs["Output"] == True, name="blessed"):  # noqa: E712 - KFP builds the condition
            package_task = configure(package(bundle=bundle))
            archive = package_task.outputs["archive"]
            infra_validate_task = configure(
                infra_validate(archive=archive, golden=golden, release=package_task.outputs["Output"])
            )
            release_task = configure(
                release(
                    bundle=bundle,
                    evaluation=evaluation,
                    verdict=verdict,
                    golden=golden,
                    infra=infra_validate_task.output,
                    report=report_task.output,
                    data_docs=validate_task.outputs["data_docs"],
                    profile=validate_task.outputs["profile"],
                    recipe=settings["record"],
                    registry=registry,
                    channel=channel,
                    champion=champion,
                    entry=champion_task.outputs["entry"],
                    run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
                    git_commit=git_commit,
                )
            )
            configure(
                deploy(
                    archive=archive,
                    infra=infra_validate_task.output,
                    golden=golden,
                    release=release_task.outputs["Output"],
                    registry=registry,
                    channel=channel,
                    serving=serving,
                )
            )
        with dsl.If(gate_task.outputs["Output"] == False, name="refused"):  # noqa: E712 - KFP builds the condition
            configure(
                not_promoted(
                    verdict=verdict,
                    registry=registry,
                    run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
                    require_promotion=require_promotion,
                )
            )

        return PipelineOutputs(
            dataset=dataset,
            data_docs=validate_task.outputs["data_docs"],
            bundle=bundle,
            evaluation=evaluation,
            golden=golden,
            verdict=verdict,
            report=report_task.output,
            recipe=settings["record"],
        )

    return car_on_kubeflow


def build_for_cluster(options: CompileOptions) -> GraphComponent:
    """The same pipeline inside an exit handler, which reports how the run ended; it has no outputs."""
    pipeline = build(options)

    def car_on_kubeflow(
        source: str,
        source_digest: str,
        registry: str,
        channel: str = "production",
        new_channel: bool = False,
        data_policy: str = "{}",
        encoder: str = PRODUCTION_ENCODER,
        recipe: str = "champion",
        changes: str = "{}",
        codebook_mode: str = "reuse",
        training: bool = True,
        warm_start: bool = False,
        gate_policy: str = "",
        bootstrap: bool = False,
        require_promotion: bool = False,
        serving: str = "",
        cache: str = "",
        checkpoints: str = "",
        git_commit: str = "",
    ) -> None:
        conclude_task = options.configure(
            conclude(
                run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
                registry=registry,
                channel=channel,
                git_commit=git_commit,
            )
        )
        with dsl.ExitHandler(conclude_task, name="run"):
            pipeline(
                source=source, source_digest=source_digest, registry=registry, channel=channel,
                new_channel=new_channel, data_policy=data_policy, encoder=encoder, recipe=recipe,
                changes=changes, codebook_mode=codebook_mode, training=training, warm_start=warm_start,
                gate_policy=gate_policy, bootstrap=bootstrap, require_promotion=require_promotion,
                serving=serving, cache=cache, checkpoints=checkpoints, git_commit=git_commit,
            )  # fmt: skip

    car_on_kubeflow.__doc__ = pipeline.pipeline_func.__doc__  # KFP takes the parameters' help from it
    return dsl.pipeline(name=NAME, description=DESCRIPTION)(car_on_kubeflow)


app = command_line(build, build_for_cluster, NAME)

if __name__ == "__main__":
    app()
