"""Step: TorchServe rolls over to the release."""

from kfp.dsl import Artifact, Input, Output

from orchestration.step import step


@step
def deploy(
    *,
    archive: Input[Artifact],
    infra: Input[Artifact],
    golden: Input[Artifact],
    release: str,
    serving: str,
    deployment: Output[Artifact],
) -> None:
    """Serve the release that was just promoted, from the very archive that was validated.

    Never cached: a server may have been stopped since.

    Args:
        serving: folder of the TorchServe to roll over, started where it is down; "" leaves serving to
            whatever follows the channel.
    """
    import dataclasses
    import json
    from pathlib import Path

    from serving.torchserve.rollover import roll_over

    deployment.path = f"{deployment.path}.json"
    state: dict = {"release": release}
    if serving:
        validated = json.loads(Path(infra.path).read_text())["archive_sha256"]
        done = roll_over(Path(archive.path), release, serving, Path(golden.path), validated=validated)
        state = dataclasses.asdict(done)
        deployment.metadata.update(version=done.version, url=done.url, changed=done.changed)
    Path(deployment.path).write_text(json.dumps(state, indent=2))
    deployment.metadata.update(release=release)
