"""Step: train CAR and assemble everything that serving needs."""

from kfp.dsl import Artifact, Dataset, Input, Model, Output

from components.base import step


@step
def train(
    *,
    dataset: Input[Dataset],
    codebook: Input[Artifact],
    catalogue: Input[Dataset],
    recipe: str,
    checkpoints: str,
    bundle: Output[Model],
    curves: Output[Artifact],
) -> None:
    """Train CAR by `recipe` (settings as JSON, such as {"epochs": 5}; the rest keeps its default).

    Args:
        checkpoints: folder that survives a killed run, to resume from; "" keeps none.
    """
    import json
    from pathlib import Path

    from car_model.catalogue import Catalogue
    from car_model.dataset import Dataset as Ingested
    from car_model.fitting import fit_car
    from car_model.recipe import parse_recipe

    curves.path = f"{curves.path}.json"
    made, losses = fit_car(
        Ingested.load(Path(dataset.path)),
        Path(codebook.path),
        Catalogue.load(Path(catalogue.path)),
        parse_recipe(json.loads(recipe)),
        Path(checkpoints) / "car" if checkpoints else None,
    )
    header = made.save(Path(bundle.path))
    Path(curves.path).write_text(json.dumps(losses))
    bundle.metadata.update({name: header[name] for name in ("model", "codebook", "catalogue", "data")})
