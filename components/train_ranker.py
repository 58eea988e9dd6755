"""Step: train a ranker by action beside CAR, where there are actions; otherwise the bundle passes through."""

from kfp.dsl import Artifact, Dataset, Input, Model, Output

from orchestration.step import step


@step
def train_ranker(
    *,
    dataset: Input[Dataset],
    bundle: Input[Model],
    ranker: str,
    training: bool,
    checkpoints: str,
    ranked: Output[Model],
    told: Output[Artifact],
) -> None:
    """Add a ranker by action to CAR's bundle; without actions the bundle stays as it is, byte for byte.

    Args:
        ranker: its settings as JSON, such as {"liked": 4}; the rest keeps its default. "off" trains none.
        training: false keeps what the bundle has, the champion's ranker carried on.
        checkpoints: folder that survives a killed run, to resume from; "" keeps none.
    """
    import shutil
    from dataclasses import replace
    from pathlib import Path

    from car_model.bundle import Bundle
    from car_model.data.dataset import Dataset as Ingested
    from car_model.evidence.training import RankerSummary
    from car_model.training.recipe import parse_ranker
    from car_model.training.train_ranker import fit_ranker

    told.path = f"{told.path}.json"
    given, recipe = Bundle.load(Path(bundle.path)), parse_ranker(ranker)
    if recipe is None:
        made, said = replace(given, ranker=None), RankerSummary(trained=False, why="none was asked for.")
    elif not training:
        why = "nothing was trained, and production has none."
        made, said = given, RankerSummary(trained=False, why=why)
    else:
        kept = Path(checkpoints) / "ranker" if checkpoints else None
        made, said = fit_ranker(Ingested.load(Path(dataset.path)), given, recipe, kept)
    if made.ranker is given.ranker:
        shutil.copytree(bundle.path, ranked.path, dirs_exist_ok=True)
    else:
        made.save(Path(ranked.path))
    said.write(told.path)
    ranked.metadata.update(bundle.metadata, ranker=made.ranker is not None)
