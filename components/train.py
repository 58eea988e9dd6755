"""Step: train CAR and assemble everything that serving needs."""

from kfp.dsl import Artifact, Dataset, Input, Model, Output

from orchestration.step import step


@step
def train(
    *,
    dataset: Input[Dataset],
    codebook: Input[Artifact],
    catalogue: Input[Dataset],
    recipe: str,
    registry: str,
    champion: str,
    training: bool,
    warm_start: bool,
    checkpoints: str,
    bundle: Output[Model],
    curves: Output[Artifact],
) -> None:
    """Train CAR by `recipe` (settings as JSON, such as {"epochs": 5}; the rest keeps its default).

    With an order in CAR_TRAIN_JOB (`orchestration.train_job.spec`) a Kubeflow TrainJob trains instead.

    Args:
        champion: digest of the release in production; "" where there is none, and training starts cold.
        training: false carries the champion's weights on: new items are scored through their SIDs.
        warm_start: start from the champion's weights.
        checkpoints: folder that survives a killed run, to resume from; "" keeps none.
    """
    import json
    from pathlib import Path

    from car_model.bundle import Bundle
    from car_model.data.catalogue import Catalogue
    from car_model.data.dataset import Dataset as Ingested
    from car_model.evaluation.answer_profile import profiled
    from car_model.training.onboard import reuse_weights
    from car_model.training.recipe import parse_recipe
    from car_model.training.torchrun_job import Inputs
    from car_model.training.train_car import fit_car
    from orchestration.train_job.launch import hand_over
    from orchestration.train_job.spec import ordered
    from registry.releases.fetch import fetch_release
    from registry.store.open import open_store

    curves.path, parent = f"{curves.path}.json", None
    folder = Path(f"{curves.path}.champion")
    if champion and (warm_start or not training):
        fetch_release(open_store(registry), champion, folder)
        parent = Bundle.load(folder)
    given = Inputs(Path(dataset.path), Path(codebook.path), Path(catalogue.path), folder if parent else None)
    data, items = Ingested.load(given.dataset), Catalogue.load(given.catalogue)
    if parent and not training:
        made, losses = reuse_weights(parent, data, given.codebook, items), dict[str, list]()
    elif order := ordered():
        made, losses = hand_over(order, given, json.loads(recipe), Path(checkpoints) if checkpoints else None)
    else:
        settings = parse_recipe(json.loads(recipe))
        kept = Path(checkpoints) / "car" if checkpoints else None
        made, losses = fit_car(data, given.codebook, items, settings, checkpoint=kept, parent=parent)
    header = profiled(made, data.histories(made.catalogue.uids)).save(Path(bundle.path))
    Path(curves.path).write_text(json.dumps(losses))
    bundle.metadata.update({name: header[name] for name in ("model", "codebook", "catalogue", "data")})
