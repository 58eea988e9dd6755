"""Step: TorchServe rolls over to the release."""

from kfp.dsl import Input, Output

from orchestration import artifact_types
from orchestration.step import step


@step
def deploy(
    archive: Input[artifact_types.Archive],
    infra: Input[artifact_types.InfraReport],
    golden: Input[artifact_types.Golden],
    release: str,
    registry: str,
    channel: str,
    serving: str,
    deployment: Output[artifact_types.Deployment],
) -> None:
    """Serve the release that was just promoted, from the very archive that was validated.

    Never cached: a server may have been stopped since.

    Args:
        registry, channel: what the server answers for; one that answers for another is left alone.
        serving: folder of the TorchServe to roll over, started if it is down; "" leaves serving to
            the servers that follow the channel.
    """
    import dataclasses
    import json
    from pathlib import Path

    from serving.torchserve.rollover import roll_over
    from serving.torchserve.state_dir import ServedChannel, StateDir

    deployment.path = f"{deployment.path}.json"
    state: dict = {"release": release}
    if serving:
        validated_sha256 = json.loads(Path(infra.path).read_text())["archive_sha256"]
        rollover = roll_over(
            Path(archive.path),
            release,
            serving,
            Path(golden.path),
            validated_sha256=validated_sha256,
            served=ServedChannel.of(StateDir(serving), channel, registry),
        )
        state = dataclasses.asdict(rollover)
        deployment.metadata.update(version=rollover.version, url=rollover.url, changed=rollover.changed)
    Path(deployment.path).write_text(json.dumps(state, indent=2))
    deployment.metadata.update(release=release)
