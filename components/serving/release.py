"""Step: write the release, move the channel."""

from kfp.dsl import HTML, Input, Output

from orchestration import artifact_types
from orchestration.step import step


@step
def release(
    bundle: Input[artifact_types.Bundle],
    evaluation: Input[artifact_types.Evaluation],
    verdict: Input[artifact_types.Verdict],
    golden: Input[artifact_types.Golden],
    infra: Input[artifact_types.InfraReport],
    report: Input[HTML],
    data_docs: Input[HTML],
    profile: Input[artifact_types.DataProfile],
    recipe: str,
    registry: str,
    channel: str,
    champion: str,
    entry: int,
    run_id: str,
    git_commit: str,
    promotion: Output[artifact_types.Promotion],
) -> str:
    """Store bundle and evidence as one release and put it in use; returns the release's digest.

    A run on another channel than production leaves staging alone: it is what production takes its releases
    from.
    The archive is not stored: deploying builds it again from the bundle, and the infra report has its digest.
    Never cached: it changes the registry. Releasing the release in use again changes nothing.

    Args:
        recipe: record of the run's recipe, which the next run on the channel starts from.
        champion, entry: the release and channel entry that the gate compared with; if another run moved the
            channel since, nothing is promoted and the step says who moved it.
    """
    import json
    from pathlib import Path

    from registry.channels.channel import promote, stage
    from registry.releases.gate import add_verdict
    from registry.releases.layout import PRODUCTION
    from registry.releases.recipe import RECIPE
    from registry.releases.release import write_release
    from registry.store.open import open_store
    from serving.deployment.deploy_channel import record_validation

    evidence = {
        "evaluation.json": evaluation, "verdict.json": verdict, "golden.json": golden, "infra.json": infra,
        "report.html": report, "data_docs.html": data_docs, "data_profile.json": profile,
    }  # fmt: skip
    record = Path(f"{promotion.path}.{RECIPE}")
    record.write_text(recipe)
    store = open_store(registry)
    manifest = write_release(
        store,
        Path(bundle.path),
        {RECIPE: record} | {name: Path(artifact.path) for name, artifact in evidence.items()},
        parent=champion or None,
        git_commit=git_commit,
        run_id=run_id,
    )
    who, why = f"pipeline run {run_id}", verdict.metadata["summary"]
    record_validation(store, manifest, Path(infra.path), who)
    add_verdict(store, manifest, Path(verdict.path))
    if channel == PRODUCTION:
        stage(store, manifest.release, who=who, why=why)
    promoted = promote(store, channel, manifest.release, who=who, why=why, expected=entry)
    promotion.path = f"{promotion.path}.json"
    Path(promotion.path).write_text(json.dumps(promoted.model_dump(mode="json"), indent=2))
    promotion.metadata.update(release=promoted.release, channel=channel, number=promoted.number)
    return str(promoted.release)
