"""Step: challenger, champion and baselines on the same holdout."""

from kfp.dsl import Input, Output

from orchestration import artifact_types
from orchestration.step import step


@step
def evaluate(
    dataset: Input[artifact_types.Dataset],
    bundle: Input[artifact_types.Bundle],
    sasrec: Input[artifact_types.Baseline],
    health: Input[artifact_types.CodebookHealth],
    drift: Input[artifact_types.DataDrift],
    car_curves: Input[artifact_types.TrainingCurves],
    sasrec_curves: Input[artifact_types.TrainingCurves],
    ranker_summary: Input[artifact_types.RankerSummary],
    registry: str,
    champion: str,
    evaluation: Output[artifact_types.Evaluation],
    golden: Output[artifact_types.Golden],
) -> None:
    """Score every model by the same code, and record the challenger's answers to golden requests.

    Args:
        ranker_summary: how the ranker by action was trained.
        champion: digest of the release in production; "" for none.
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
    from car_model.weights import load_baseline
    from common.digests import file_digest
    from orchestration.champion import fetch_champion
    from registry.releases.bundle_files import release_digest

    evaluation.path, golden.path = f"{evaluation.path}.json", f"{golden.path}.json"
    data = Ingested.load(Path(dataset.path))
    challenger = Recommender.load(bundle.path)
    folder = fetch_champion(registry, champion, evaluation.path)
    production = Recommender.load(folder, champion) if folder else None
    baseline, sasrec_similarity = load_baseline(Path(sasrec.path))
    evidence = score(
        data,
        challenger,
        baseline,
        production,
        sasrec_similarity=sasrec_similarity,
        codebook=CodebookHealth.read(health.path),
        drift=DataDrift.read(drift.path),
        training={
            "challenger": TrainingCurves.read(car_curves.path),
            "sasrec": TrainingCurves.read(sasrec_curves.path),
        },
        ranker_summary=RankerSummary.read(ranker_summary.path),
        release=release_digest(Path(bundle.path)),
    )
    holdout = Holdout.of(data)
    evidence.write(evaluation.path)
    record_golden(challenger, holdout).write(golden.path)
    golden.metadata.update(digest=file_digest(golden.path), model=bundle.metadata["model"])
    evaluation.metadata.update(digest=file_digest(evaluation.path))
    evaluation.metadata.update(holdout=holdout.digest(challenger.catalogue.offered))
    evaluation.metadata.update(model=bundle.metadata["model"], sasrec=sasrec.metadata["digest"])
    evaluation.metadata.update(champion=champion, data=bundle.metadata["data"])
