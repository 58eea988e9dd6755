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
    git_commit: str,
    page: Output[HTML],
) -> None:
    """Draw evidence and verdict as one self-contained HTML page."""
    import json
    from pathlib import Path

    from common.digests import file_digest
    from validation.report.report import ReportInputs, render_report

    def read(path: Path) -> dict:
        return json.loads(path.read_text())

    page.path = f"{page.path}.html"
    inputs = ReportInputs(
        evaluation=read(Path(evaluation.path)),
        verdict=read(Path(verdict.path)),
        dataset=read(Path(dataset.path) / "report.json"),
        bundle=read(Path(bundle.path) / "bundle.json"),
        run={"git commit": git_commit},
    )
    render_report(inputs, Path(page.path))
    page.metadata.update(digest=file_digest(page.path), verdict=verdict.metadata["digest"])
