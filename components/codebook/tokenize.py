"""Step: item texts to semantic IDs."""

from kfp.dsl import Input, Metrics, Output

from orchestration import artifact_types
from orchestration.step import step


@step
def tokenize(
    dataset: Input[artifact_types.Dataset],
    encoder: str,
    n_levels: int,
    codebook_size: int,
    seed: int,
    mode: str,
    registry: str,
    champion: str,
    cache: str,
    codebook: Output[artifact_types.Codebook],
    catalogue: Output[artifact_types.Catalogue],
    health: Output[artifact_types.CodebookHealth],
    summary: Output[Metrics],
    vectors: Input[artifact_types.TextVectors] = None,
) -> None:
    """Embed the items, fit a codebook on them or take over the champion's, and encode them.

    Args:
        encoder: EncoderSpec as JSON, such as {"name": "sentence-transformers/sentence-t5-base"}.
        n_levels: semantic-ID levels.
        codebook_size: codes per level; 0 follows the catalogue's size.
        mode: fit a new codebook, reuse the champion's, or refresh it (fit anew from it, codes aligned);
            without a champion, all three fit.
        champion: digest of the release in production, whose UIDs stay; "" for none.
        cache: folder that survives runs, for text vectors; "" for none.
        vectors: what the shards embedded; without them, the texts are embedded here.
    """
    import json
    from pathlib import Path

    from car_model.codebook.mode import check_mode
    from car_model.codebook.residual_kmeans import CodebookConfig
    from car_model.codebook.semantic_ids import Parent
    from car_model.codebook.semantic_ids import tokenize as tokenize_items
    from car_model.data.dataset import Dataset as Ingested
    from car_model.encoding.encoder import EncoderSpec
    from orchestration.champion import fetch_champion
    from orchestration.step_folder import writable_folder

    champion_folder = fetch_champion(registry, champion, codebook.path)
    catalogue.path, health.path = f"{catalogue.path}.parquet", f"{health.path}.json"
    result = tokenize_items(
        Ingested.load(Path(dataset.path)),
        EncoderSpec(**json.loads(encoder)),
        CodebookConfig(n_levels=n_levels, codebook_size=codebook_size, seed=seed),
        Path(vectors.path) if vectors else writable_folder(cache, "vectors"),
        mode=check_mode(mode),
        parent=Parent.load(champion_folder) if champion_folder else None,
    )
    result.save(Path(codebook.path), Path(catalogue.path))
    result.health.write(health.path)
    codebook.metadata.update(version=result.codebook.version, dataset=dataset.metadata["digest"])
    catalogue.metadata.update(digest=result.catalogue.digest, codebook=result.codebook.version)
    for name in ("codebook_size", "n_levels", "usage_min", "perplexity_min_share", "collision_rate"):
        summary.log_metric(name, getattr(result.health, name))
    Path(summary.path).write_text(json.dumps(summary.metadata))  # a cache trusts only outputs that exist
