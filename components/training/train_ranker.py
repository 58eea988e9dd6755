"""Step: if the data has actions, train a ranker by action and add it to the bundle."""

from kfp.dsl import Input, Output

from orchestration import artifact_types
from orchestration.step import step


@step
def train_ranker(
    dataset: Input[artifact_types.Dataset],
    bundle: Input[artifact_types.Bundle],
    ranker: str,
    training: bool,
    checkpoints: str,
    ranked_bundle: Output[artifact_types.Bundle],
    ranker_summary: Output[artifact_types.RankerSummary],
) -> None:
    """Add a ranker by action to CAR's bundle; without actions the bundle stays as it is, byte for byte.

    Args:
        ranker: its settings as JSON, such as {"liked": 4}; the rest keeps its default. "off" trains none.
        training: false keeps the bundle's ranker, which is the champion's.
        checkpoints: folder that survives a killed run, to resume from; "" for none.
    """
    import shutil
    from dataclasses import replace
    from pathlib import Path

    from car_model.bundle import Bundle
    from car_model.data.dataset import Dataset as Ingested
    from car_model.evidence.training import RankerSummary
    from car_model.training.recipe import parse_ranker
    from car_model.training.train_ranker import fit_ranker
    from orchestration.step_folder import writable_folder

    ranker_summary.path = f"{ranker_summary.path}.json"
    before, recipe = Bundle.load(Path(bundle.path)), parse_ranker(ranker)
    if recipe is None:
        after, summary = replace(before, ranker=None), RankerSummary(trained=False, why="none was asked for.")
    elif not training:
        why = "nothing was trained, and production has none."
        after, summary = before, RankerSummary(trained=False, why=why)
    else:
        states = writable_folder(checkpoints)
        after, summary = fit_ranker(
            Ingested.load(Path(dataset.path)), before, recipe, states / "ranker" if states else None
        )
    if after.ranker is before.ranker:
        shutil.copytree(bundle.path, ranked_bundle.path, dirs_exist_ok=True)
    else:
        after.save(Path(ranked_bundle.path))
    summary.write(ranker_summary.path)
    about = {name: bundle.metadata[name] for name in ("model", "codebook", "catalogue", "data")}
    ranked_bundle.metadata.update(about, ranker=after.ranker is not None)
