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
    import json
    from pathlib import Path

    from car_model.data.dataset import Dataset as Ingested
    from car_model.evaluation.actions import action_evidence
    from car_model.evaluation.evaluate import Holdout, cold_recall
    from car_model.evaluation.evaluate import evaluate as score
    from car_model.evaluation.golden import golden as answers
    from car_model.recommender.recommender import Recommender
    from car_model.weights import load_sasrec
    from common.digests import file_digest
    from registry.releases.fetch import fetch_release
    from registry.store.open import open_store

    evaluation.path, golden.path = f"{evaluation.path}.json", f"{golden.path}.json"
    data = Ingested.load(Path(dataset.path))
    challenger, rival = Recommender.load(bundle.path), None
    if champion:
        folder = Path(f"{evaluation.path}.champion")
        fetch_release(open_store(registry), champion, folder)
        rival = Recommender.load(folder, champion)
    evidence = score(data, challenger, load_sasrec(Path(sasrec.path)), rival)
    holdout = Holdout.of(data)
    evidence["cold"] = cold_recall(challenger, holdout)
    evidence["action"] = action_evidence(data, challenger, json.loads(Path(ranker.path).read_text()))
    evidence["codebook"] = json.loads(Path(health.path).read_text())
    evidence["drift"] = json.loads(Path(drift.path).read_text())
    evidence["training"] = {
        "challenger": json.loads(Path(car_curves.path).read_text()),
        "sasrec": json.loads(Path(sasrec_curves.path).read_text()),
    }
    Path(evaluation.path).write_text(json.dumps(evidence, indent=1, allow_nan=False))
    Path(golden.path).write_text(json.dumps(answers(challenger, holdout), indent=1))
    golden.metadata.update(digest=file_digest(golden.path), model=bundle.metadata["model"])
    evaluation.metadata.update(digest=file_digest(evaluation.path), holdout=evidence["holdout"]["digest"])
    evaluation.metadata.update(model=bundle.metadata["model"], sasrec=sasrec.metadata["digest"])
    evaluation.metadata.update(champion=champion, data=bundle.metadata["data"])
