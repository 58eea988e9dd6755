"""Step: the vectors of all shards in one folder."""

from kfp.dsl import Artifact, Input, Output

from components.base import step


@step
def merge(*, parts: Input[list[Artifact]], vectors: Output[Artifact]) -> None:
    """Check that every shard is there once, and put their vectors together."""
    from pathlib import Path

    from car_model.shards import merge_shards

    made = merge_shards([Path(part.path) for part in parts], Path(vectors.path))
    vectors.metadata.update(shards=len(made), dataset=made[0].dataset, encoder=made[0].encoder)
