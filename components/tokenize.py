"""Step: item texts to semantic IDs."""

from kfp.dsl import Artifact, Dataset, Input, Metrics, Output

from orchestration.step import step


@step
def tokenize(
    *,
    dataset: Input[Dataset],
    encoder: str,
    levels: int,
    codes: int,
    seed: int,
    mode: str,
    registry: str,
    champion: str,
    cache: str,
    codebook: Output[Artifact],
    catalogue: Output[Dataset],
    health: Output[Artifact],
    summary: Output[Metrics],
    vectors: Input[Artifact] = None,
) -> None:
    """Embed the items, fit a codebook on them or take over the champion's, and encode them.

    Args:
        encoder: EncoderSpec as JSON, such as {"name": "sentence-transformers/sentence-t5-base"}.
        codes: codes a level; 0 follows the catalogue's size.
        mode: fit a new codebook, reuse the champion's, or refresh it (fit anew from it, codes aligned);
            where there is no champion, all three fit.
        champion: digest of the release in production, whose UIDs stay; "" where there is none.
        cache: folder that survives runs, for text vectors; "" keeps none.
        vectors: what the shards have embedded, where there are shards; else all is embedded here.
    """
    import json
    from pathlib import Path

    from car_model.codebook.mode import check_mode
    from car_model.codebook.residual_kmeans import CodebookConfig
    from car_model.codebook.tokenize import Parent
    from car_model.codebook.tokenize import tokenize as make
    from car_model.data.dataset import Dataset as Ingested
    from car_model.encoding.encoder import EncoderSpec
    from registry.releases.fetch import fetch_release
    from registry.store.open import open_store

    parent, folder = None, Path(f"{codebook.path}.champion")
    if champion:
        fetch_release(open_store(registry), champion, folder)
        parent = Parent.load(folder)
    catalogue.path, health.path = f"{catalogue.path}.parquet", f"{health.path}.json"
    made = make(
        Ingested.load(Path(dataset.path)),
        EncoderSpec(**json.loads(encoder)),
        CodebookConfig(levels=levels, codes=codes, seed=seed),
        Path(vectors.path) if vectors else Path(cache) / "vectors" if cache else None,
        mode=check_mode(mode),
        parent=parent,
    )
    made.save(Path(codebook.path), Path(catalogue.path))
    made.health.write(health.path)
    codebook.metadata.update(version=made.codebook.version, dataset=dataset.metadata["digest"])
    catalogue.metadata.update(digest=made.catalogue.digest, codebook=made.codebook.version)
    for name in ("codebook_size", "n_levels", "usage_min", "perplexity_min_share", "collision_rate"):
        summary.log_metric(name, getattr(made.health, name))
    Path(summary.path).write_text(json.dumps(summary.metadata))  # a cache trusts only outputs that exist
