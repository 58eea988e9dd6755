"""Step: write the release, move the channel."""

from kfp.dsl import HTML, Artifact, Input, Model, Output

from orchestration.step import step


@step
def release(
    *,
    bundle: Input[Model],
    evaluation: Input[Artifact],
    verdict: Input[Artifact],
    golden: Input[Artifact],
    infra: Input[Artifact],
    report: Input[HTML],
    data_docs: Input[HTML],
    profile: Input[Artifact],
    registry: str,
    channel: str,
    champion: str,
    entry: int,
    run_id: str,
    git_commit: str,
    promotion: Output[Artifact],
) -> str:
    """Store bundle and evidence as one release, stage it and put it in use; returns the release's digest.

    The archive is not stored: whoever deploys makes it of the bundle, and the infra report has its digest.
    Never cached: it changes the registry. Doing it again for the release in use changes nothing.

    Args:
        champion, entry: the release and channel entry that the gate compared with; where another run moved
            the channel since, nothing is promoted and the step says who did.
    """
    import json
    from pathlib import Path

    from registry.channels.channel import promote, stage
    from registry.releases.release import write_release
    from registry.store.open import open_store
    from serving.deployment.deploy_channel import record_validation

    evidence = {
        "evaluation.json": evaluation, "verdict.json": verdict, "golden.json": golden, "infra.json": infra,
        "report.html": report, "data_docs.html": data_docs, "data_profile.json": profile,
    }  # fmt: skip
    store = open_store(registry)
    manifest = write_release(
        store,
        Path(bundle.path),
        {name: Path(artifact.path) for name, artifact in evidence.items()},
        parent=champion or None,
        git_commit=git_commit,
        run_id=run_id,
    )
    who, why = f"pipeline run {run_id}", verdict.metadata["summary"]
    record_validation(store, manifest, Path(infra.path), who)
    stage(store, manifest.release, who=who, why=why)
    moved = promote(store, channel, manifest.release, who=who, why=why, expected=entry)
    promotion.path = f"{promotion.path}.json"
    Path(promotion.path).write_text(json.dumps(moved.model_dump(mode="json"), indent=2))
    promotion.metadata.update(release=moved.release, channel=channel, number=moved.number)
    return str(moved.release)
