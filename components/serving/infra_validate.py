"""Step: serve the archive for a moment; a model that cannot serve is not released."""

from kfp.dsl import Input, Output

from orchestration import artifact_types
from orchestration.step import step


@step
def infra_validate(
    archive: Input[artifact_types.Archive],
    golden: Input[artifact_types.Golden],
    release: str,
    infra: Output[artifact_types.InfraReport],
) -> None:
    """Load the archive in a real TorchServe, compare its answers with the evaluation's, measure latency."""
    from pathlib import Path

    from common.digests import file_digest
    from serving.torchserve.infra_validation import infra_validate as validate_archive

    server = Path(infra.path)  # the throw-away server's files, its logs among them
    infra.path = f"{infra.path}.json"
    report = validate_archive(Path(archive.path), Path(golden.path), release, server)
    Path(infra.path).write_text(report.model_dump_json(indent=2))
    infra.metadata.update(digest=file_digest(infra.path), release=release, archive=report.archive_sha256)
    infra.metadata.update(golden=golden.metadata["digest"], p99_ms=report.replay.p99_ms)
