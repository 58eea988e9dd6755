"""Step: the report for people, whatever the gate decided."""

from kfp.dsl import HTML, Artifact, Dataset, Input, Model, Output

from orchestration.step import step


@step
def report(
    *,
    dataset: Input[Dataset],
    bundle: Input[Model],
    evaluation: Input[Artifact],
    verdict: Input[Artifact],
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
