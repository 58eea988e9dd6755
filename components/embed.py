"""Step: embed one shard of the item texts."""

from kfp.dsl import Artifact, Dataset, Input, Output

from orchestration.step import step


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

    from car_model.data.dataset import Dataset as Ingested
    from car_model.encoding.encoder import EncoderSpec, load
    from car_model.encoding.shards import Shard, write_shard

    encoder = load(EncoderSpec(**json.loads(Path(chosen.path).read_text())))
    mine = Shard(shard, shards, dataset.metadata["digest"], encoder.spec.digest())
    kept = Path(cache) / "vectors" if cache else None
    texts = write_shard(Path(part.path), encoder, Ingested.load(Path(dataset.path)).texts(), mine, kept)
    part.metadata.update(shard=shard, texts=texts)


@step
def choose_encoder(
    *,
    dataset: Input[Dataset],
    encoder: str,
    mode: str,
    registry: str,
    champion: str,
    chosen: Output[Artifact],
) -> None:
    """Settle precision and weights once: those of the champion's codebook, where that is taken over.

    Args:
        encoder: EncoderSpec as JSON.
        mode, registry, champion: as for tokenize.
    """
    import json
    from dataclasses import asdict
    from pathlib import Path

    from car_model.codebook.mode import check_mode
    from car_model.codebook.tokenize import Parent, encoder_for
    from car_model.data.dataset import Dataset as Ingested
    from car_model.encoding.encoder import EncoderSpec
    from registry.releases.fetch import fetch_release
    from registry.store.open import open_store

    chosen.path, parent = f"{chosen.path}.json", None
    if champion and check_mode(mode) != "fit":
        folder = Path(f"{chosen.path}.champion")
        fetch_release(open_store(registry), champion, folder)
        parent = Parent.load(folder)
    spec = encoder_for(Ingested.load(Path(dataset.path)), EncoderSpec(**json.loads(encoder)), parent).spec
    Path(chosen.path).write_text(json.dumps(asdict(spec)))
    chosen.metadata.update(encoder=spec.digest())


@step
def merge(*, parts: Input[list[Artifact]], vectors: Output[Artifact]) -> None:
    """Check that every shard is there once, and put their vectors together."""
    from pathlib import Path

    from car_model.encoding.shards import merge_shards

    made = merge_shards([Path(part.path) for part in parts], Path(vectors.path))
    vectors.metadata.update(shards=len(made), dataset=made[0].dataset, encoder=made[0].encoder)
