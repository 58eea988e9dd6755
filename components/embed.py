"""Step: embed one shard of the item texts."""

from kfp.dsl import Artifact, Dataset, Input, Output

from components.base import step


@step
def embed(
    *,
    dataset: Input[Dataset],
    chosen: Input[Artifact],
    shard: int,
    shards: int,
    cache: str,
    part: Output[Artifact],
) -> None:
    """Embed the texts that belong to a shard.

    Args:
        chosen: the encoder's exact identity.
        shard: 0 to shards - 1.
        cache: folder that survives runs, for text vectors; "" keeps none.
    """
    import json
    from pathlib import Path

    from car_model.dataset import Dataset as Ingested
    from car_model.encoder import EncoderSpec, load
    from car_model.shards import Shard, write_shard

    encoder = load(EncoderSpec(**json.loads(Path(chosen.path).read_text())))
    mine = Shard(shard, shards, dataset.metadata["digest"], encoder.spec.digest())
    kept = Path(cache) / "vectors" if cache else None
    texts = write_shard(Path(part.path), encoder, Ingested.load(Path(dataset.path)).texts(), mine, kept)
    part.metadata.update(shard=shard, texts=texts)
