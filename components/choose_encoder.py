"""Step: under which exact identity all shards embed."""

from kfp.dsl import Artifact, Dataset, Input, Output

from components.base import step


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

    from car_model.codebook_mode import check_mode
    from car_model.dataset import Dataset as Ingested
    from car_model.encoder import EncoderSpec
    from car_model.tokenization import Parent, encoder_for
    from registry.fetch import fetch_release
    from registry.store import open_store

    chosen.path, parent = f"{chosen.path}.json", None
    if champion and check_mode(mode) != "fit":
        folder = Path(f"{chosen.path}.champion")
        fetch_release(open_store(registry), champion, folder)
        parent = Parent.load(folder)
    spec = encoder_for(Ingested.load(Path(dataset.path)), EncoderSpec(**json.loads(encoder)), parent).spec
    Path(chosen.path).write_text(json.dumps(asdict(spec)))
    chosen.metadata.update(encoder=spec.digest())
