"""Step: the model archive that TorchServe loads."""

from kfp.dsl import Artifact, Input, Model, Output

from components.base import step


@step
def package(bundle: Input[Model], archive: Output[Artifact]) -> str:
    """Package a bundle under the digest that its release has; returns the digest."""
    from pathlib import Path

    from car_model.digests import file_digest
    from registry.bundle import release_digest
    from serving.archive import build_archive

    release = release_digest(Path(bundle.path))
    archive.path = str(build_archive(Path(bundle.path), Path(archive.path), release))
    archive.metadata.update(digest=file_digest(archive.path), release=release)
    return release
