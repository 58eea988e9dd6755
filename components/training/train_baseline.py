"""Step: train SASRec, the baseline, with the same budget."""

from kfp.dsl import Input, Output

from orchestration import artifact_types
from orchestration.step import step


@step
def train_baseline(
    dataset: Input[artifact_types.Dataset],
    catalogue: Input[artifact_types.Catalogue],
    recipe: str,
    checkpoints: str,
    sasrec: Output[artifact_types.Baseline],
    curves: Output[artifact_types.TrainingCurves],
) -> None:
    """Train SASRec by the same `recipe` as CAR.

    Args:
        checkpoints: folder that survives a killed run, to resume from; "" for none.
    """
    import json
    from pathlib import Path

    from car_model.data.catalogue import Catalogue
    from car_model.data.dataset import Dataset as Ingested
    from car_model.training.recipe import parse_recipe
    from car_model.training.train_car import fit_sasrec
    from common.digests import tree_digest
    from orchestration.step_folder import writable_folder

    curves.path = f"{curves.path}.json"
    states = writable_folder(checkpoints)
    losses = fit_sasrec(
        Ingested.load(Path(dataset.path)),
        Catalogue.load(Path(catalogue.path)),
        parse_recipe(json.loads(recipe)),
        Path(sasrec.path),
        states / "sasrec" if states else None,
    )
    losses.write(Path(curves.path))
    sasrec.metadata.update(digest=tree_digest(sasrec.path), data=dataset.metadata["digest"])
