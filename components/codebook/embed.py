"""Steps: embed the item texts in shards, side by side."""

from kfp.dsl import Artifact, Input, Output

from orchestration import artifact_types
from orchestration.step import step


@step
def embed(
    dataset: Input[artifact_types.Dataset],
    encoder: Input[artifact_types.Encoder],
    shard: int,
    shards: int,
    cache: str,
    vectors: Output[artifact_types.VectorShard],
) -> None:
    """Embed the texts that belong to a shard.

    Args:
        encoder: the encoder's exact identity.
        shard: 0 to shards - 1.
        cache: folder that survives runs, for text vectors; "" for none.
    """
    import json
    from pathlib import Path

    from car_model.data.dataset import Dataset as Ingested
    from car_model.encoding.encoder import EncoderSpec, load_encoder
    from car_model.encoding.shards import Shard, write_shard
    from orchestration.step_folder import writable_folder

    model = load_encoder(EncoderSpec(**json.loads(Path(encoder.path).read_text())))
    identity = Shard(shard, shards, dataset.metadata["digest"], model.spec.digest())
    texts = Ingested.load(Path(dataset.path)).texts()
    n_texts = write_shard(Path(vectors.path), model, texts, identity, writable_folder(cache, "vectors"))
    vectors.metadata.update(shard=shard, texts=n_texts)


@step
def choose_encoder(
    dataset: Input[artifact_types.Dataset],
    encoder: str,
    mode: str,
    registry: str,
    champion: str,
    resolved_encoder: Output[artifact_types.Encoder],
) -> None:
    """Fix the encoder's precision and weights for all shards; a codebook that is kept brings its own encoder.

    Args:
        encoder: EncoderSpec as JSON.
        mode, registry, champion: as for tokenize.
    """
    import json
    from dataclasses import asdict
    from pathlib import Path

    from car_model.codebook.mode import check_mode
    from car_model.codebook.semantic_ids import Parent, encoder_for
    from car_model.data.dataset import Dataset as Ingested
    from car_model.encoding.encoder import EncoderSpec
    from orchestration.champion import fetch_champion

    resolved_encoder.path, parent = f"{resolved_encoder.path}.json", None
    if check_mode(mode) != "fit" and (folder := fetch_champion(registry, champion, resolved_encoder.path)):
        parent = Parent.load(folder)
    spec = encoder_for(Ingested.load(Path(dataset.path)), EncoderSpec(**json.loads(encoder)), parent).spec
    Path(resolved_encoder.path).write_text(json.dumps(asdict(spec)))
    resolved_encoder.metadata.update(encoder=spec.digest())


@step
def merge(
    shards: Input[list[Artifact]],
    numbers: list,
    vectors: Output[artifact_types.TextVectors],
    earlier: Input[artifact_types.TextVectors] = None,
) -> None:
    """Check that every shard is there once, and merge their vectors.

    KFP does not support lists of custom artifact types, so the shards are plain artifacts.

    Args:
        numbers: the shards that these must be.
        earlier: the merged vectors of the shards before them; without it, these are the first.
    """
    import shutil
    from pathlib import Path

    from car_model.encoding.shards import ShardError, merge_shards

    merged = merge_shards([Path(shard.path) for shard in shards], Path(vectors.path), numbers)
    identity = {"dataset": merged[0].dataset, "encoder": merged[0].encoder}
    if earlier:
        if {name: earlier.metadata[name] for name in identity} != identity:
            raise ShardError("the shards come from several runs (dataset or encoder differ); embed again.")
        shutil.copytree(earlier.path, vectors.path, dirs_exist_ok=True)
    vectors.metadata.update(shards=len(merged) + (earlier.metadata["shards"] if earlier else 0), **identity)
