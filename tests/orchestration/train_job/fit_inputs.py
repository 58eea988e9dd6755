"""Small inputs of the train step: a dataset, a codebook and a catalogue as folders.

`python -m tests.orchestration.train_job.fit_inputs FOLDER CHECKPOINTS OUTPUT RECIPE BACKEND` runs the step on
them; BACKEND is kubernetes, process or container.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from kfp import dsl

from car_model.codebook.labels import label_codes
from car_model.codebook.residual_kmeans import CodebookConfig, fit
from car_model.data.catalogue import Catalogue
from car_model.encoding.encoder import EncoderSpec
from components.training.train import train
from orchestration.train_job import launch
from tests.car_model.builders import tiny_dataset
from tests.fixtures import ITEMS, tiny_texts, tiny_vectors
from tests.orchestration.train_job.local_backends import BACKENDS

RECIPE = {
    "d_model": 16,
    "n_layers": 1,
    "max_history": 10,
    "epochs": 6,
    "batch_size": 16,
    "threads": 1,
    "dropout": 0.0,
}


def write_inputs(folder: Path) -> Path:
    """Write them below a folder; no model is trained."""
    vectors, texts = tiny_vectors(), tiny_texts()
    codebook = fit(
        vectors, EncoderSpec(name="tiny"), "{title}", CodebookConfig(n_levels=3, codebook_size=4, seed=0)
    )
    sids = codebook.encode(vectors)
    codebook.save(folder / "codebook")
    label_codes(texts, sids, 4).save(folder / "codebook")
    names = [text.split(";")[0] for text in texts]
    Catalogue([f"i{i + 1}" for i in range(ITEMS)], names, sids).save(folder / "catalogue.parquet")
    dataset = tiny_dataset()
    (folder / "dataset").mkdir()
    dataset.interactions.to_parquet(folder / "dataset" / "interactions.parquet")
    dataset.items.to_parquet(folder / "dataset" / "items.parquet")
    (folder / "dataset" / "report.json").write_text(dataset.report.model_dump_json())
    return folder


def run_step(folder: Path, checkpoints: Path | str, output: Path, recipe: dict | None = None) -> Path:
    """Run the step here and return the folder of the bundle; the curves lie beside it."""
    output.mkdir(parents=True, exist_ok=True)
    train.python_func(
        dataset=dsl.Dataset(uri=str(folder / "dataset")),
        codebook=dsl.Artifact(uri=str(folder / "codebook")),
        catalogue=dsl.Dataset(uri=str(folder / "catalogue.parquet")),
        recipe=json.dumps(recipe or RECIPE), registry="", champion="", training=True, warm_start=False,
        checkpoints=str(checkpoints),
        bundle=dsl.Model(uri=str(output / "bundle")), curves=dsl.Artifact(uri=str(output / "curves")),
    )  # fmt: skip
    return output / "bundle"


if __name__ == "__main__":
    inputs, states, output, settings, backend = sys.argv[1:]
    if backend != "kubernetes":
        setattr(launch, "KubernetesBackend", BACKENDS[backend])  # noqa: B010
    run_step(Path(inputs), states, Path(output), json.loads(settings))
