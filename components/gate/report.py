"""Step: the report for people, whatever the gate decided."""

from kfp.dsl import HTML, Input, Output

from orchestration import artifact_types
from orchestration.step import step


@step
def report(
    dataset: Input[artifact_types.Dataset],
    bundle: Input[artifact_types.Bundle],
    evaluation: Input[artifact_types.Evaluation],
    verdict: Input[artifact_types.Verdict],
    recipe: str,
    run_id: str,
    git_commit: str,
    page: Output[HTML],
) -> None:
    """Draw evidence and verdict as one self-contained HTML page.

    Never cached: it names the run and its date.

    Args:
        recipe: record of the run's recipe.
    """
    import json
    from datetime import UTC, datetime
    from pathlib import Path

    from car_model.evidence.evaluation import Evaluation
    from car_model.evidence.training import RecipeRecord
    from car_model.evidence.verdict import Verdict
    from common.digests import file_digest
    from common.files import read_json_object
    from validation.report.report import ReportInputs, package_versions, render_report

    page.path = f"{page.path}.html"
    inputs = ReportInputs(
        evaluation=Evaluation.salvage(Evaluation.read_object(evaluation.path)),
        verdict=Verdict.read(verdict.path),
        dataset=read_json_object(Path(dataset.path) / "report.json"),
        bundle=read_json_object(Path(bundle.path) / "bundle.json"),
        recipe=RecipeRecord.from_object(json.loads(recipe), "the run's recipe"),
        run={"date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "run": run_id, "code commit": git_commit},
        packages=package_versions(),
    )
    render_report(inputs, Path(page.path))
    page.metadata.update(digest=file_digest(page.path), verdict=verdict.metadata["digest"])
