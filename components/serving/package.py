"""Step: the model archive that TorchServe loads."""

from kfp.dsl import Input, Output

from orchestration import artifact_types
from orchestration.step import step


@step
def package(bundle: Input[artifact_types.Bundle], archive: Output[artifact_types.Archive]) -> str:
    """Package a bundle under the digest that its release has; returns the digest."""
    from pathlib import Path

    from common.digests import file_digest
    from registry.releases.bundle_files import release_digest
    from serving.archive.build import build_archive

    release = release_digest(Path(bundle.path))
    archive.path = str(build_archive(Path(bundle.path), Path(archive.path), release))
    archive.metadata.update(digest=file_digest(archive.path), release=release)
    return release
