"""Step: challenger, champion and baselines on the same holdout."""

from kfp.dsl import Artifact, Dataset, Input, Model, Output

from orchestration.step import step


@step
def evaluate(
    *,
    dataset: Input[Dataset],
    bundle: Input[Model],
    sasrec: Input[Model],
    health: Input[Artifact],
    drift: Input[Artifact],
    car_curves: Input[Artifact],
    sasrec_curves: Input[Artifact],
    ranker: Input[Artifact],
    registry: str,
    champion: str,
    evaluation: Output[Artifact],
    golden: Output[Artifact],
) -> None:
    """Score every model by the same code, and record the challenger's answers to golden requests.

    Args:
        ranker: what training the ranker by action had to tell.
        champion: digest of the release in production; "" where there is none.
    """
    from pathlib import Path

    from car_model.data.dataset import Dataset as Ingested
    from car_model.evaluation.evaluate import Holdout
    from car_model.evaluation.evaluate import evaluate as score
    from car_model.evaluation.golden import record_golden
    from car_model.evidence.codebook import CodebookHealth
    from car_model.evidence.drift import DataDrift
    from car_model.evidence.training import RankerSummary, TrainingCurves
    from car_model.recommender.recommender import Recommender
    from car_model.weights import load_sasrec
    from common.digests import file_digest
    from registry.releases.fetch import fetch_release
    from registry.store.open import open_store

    evaluation.path, golden.path = f"{evaluation.path}.json", f"{golden.path}.json"
    data = Ingested.load(Path(dataset.path))
    challenger, production = Recommender.load(bundle.path), None
    if champion:
        folder = Path(f"{evaluation.path}.champion")
        fetch_release(open_store(registry), champion, folder)
        production = Recommender.load(folder, champion)
    evidence = score(
        data,
        challenger,
        load_sasrec(Path(sasrec.path)),
        production,
        codebook=CodebookHealth.read(health.path),
        drift=DataDrift.read(drift.path),
        training={
            "challenger": TrainingCurves.read(car_curves.path),
            "sasrec": TrainingCurves.read(sasrec_curves.path),
        },
        ranker_summary=RankerSummary.read(ranker.path),
    )
    holdout = Holdout.of(data)
    evidence.write(evaluation.path)
    record_golden(challenger, holdout).write(golden.path)
    golden.metadata.update(digest=file_digest(golden.path), model=bundle.metadata["model"])
    evaluation.metadata.update(digest=file_digest(evaluation.path), holdout=holdout.digest)
    evaluation.metadata.update(model=bundle.metadata["model"], sasrec=sasrec.metadata["digest"])
    evaluation.metadata.update(champion=champion, data=bundle.metadata["data"])
