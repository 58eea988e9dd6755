"""Step: train CAR and assemble everything that serving needs."""

from kfp.dsl import Input, Output

from orchestration import artifact_types
from orchestration.step import step


@step
def train(
    dataset: Input[artifact_types.Dataset],
    codebook: Input[artifact_types.Codebook],
    catalogue: Input[artifact_types.Catalogue],
    recipe: str,
    registry: str,
    champion: str,
    training: bool,
    warm_start: bool,
    checkpoints: str,
    bundle: Output[artifact_types.Bundle],
    curves: Output[artifact_types.TrainingCurves],
) -> None:
    """Train CAR by `recipe` (settings as JSON, such as {"epochs": 5}; the rest keeps its default).

    If CAR_TRAIN_JOB holds a TrainJobSpec, a Kubeflow TrainJob trains, and this step waits for it.

    Args:
        champion: digest of the release in production; "" for none, and training starts cold.
        training: false keeps the champion's weights: new items are scored through their SIDs.
        warm_start: start from the champion's weights.
        checkpoints: folder that survives a killed run, to resume from; "" for none.
    """
    import json
    from pathlib import Path

    from car_model.bundle import Bundle
    from car_model.data.catalogue import Catalogue
    from car_model.data.dataset import Dataset as Ingested
    from car_model.evaluation.answer_profile import add_answer_profile
    from car_model.evidence.training import TrainingCurves
    from car_model.training.onboard import reuse_weights
    from car_model.training.recipe import parse_recipe
    from car_model.training.torchrun_job import Inputs
    from car_model.training.train_car import fit_car
    from orchestration.champion import fetch_champion
    from orchestration.step_folder import writable_folder
    from orchestration.train_job.launch import run_train_job
    from orchestration.train_job.spec import spec_from_env

    curves.path = f"{curves.path}.json"
    folder = fetch_champion(registry, champion, curves.path) if warm_start or not training else None
    parent = Bundle.load(folder) if folder else None
    inputs = Inputs(Path(dataset.path), Path(codebook.path), Path(catalogue.path), folder)
    states = None if parent and not training else writable_folder(checkpoints)
    data, items = Ingested.load(inputs.dataset), Catalogue.load(inputs.catalogue)
    if parent and not training:
        trained, losses = reuse_weights(parent, data, inputs.codebook, items), TrainingCurves()
    elif spec := spec_from_env():
        trained, losses = run_train_job(spec, inputs, json.loads(recipe), states)
    else:
        settings, state = parse_recipe(json.loads(recipe)), states / "car" if states else None
        trained, losses = fit_car(data, inputs.codebook, items, settings, checkpoint=state, parent=parent)
    header = add_answer_profile(trained, data.histories(trained.catalogue.uids)).save(Path(bundle.path))
    losses.write(Path(curves.path))
    bundle.metadata.update(header.model_dump(include={"model", "codebook", "catalogue", "data"}))
