"""Exit step: says how the run ended, whatever happened in it."""

from kfp.dsl import Output, PipelineTaskFinalStatus

from orchestration import artifact_types
from orchestration.step import step


@step
def conclude(
    status: PipelineTaskFinalStatus,
    run_id: str,
    registry: str,
    channel: str,
    git_commit: str,
    summary: Output[artifact_types.RunSummary],
) -> None:
    """Log and record how the run ended and what the channel uses now, and post it to CAR_NOTIFY_URL.

    A webhook that does not answer is a warning in the log and changes nothing about the run.
    """
    import os
    from pathlib import Path

    from orchestration.kubeflow.webhook import notify, run_summary

    ending = run_summary(
        status.state,
        status.error_message,
        run_id=run_id,
        registry=registry,
        channel=channel,
        git_commit=git_commit,
    )
    summary.path = f"{summary.path}.json"
    Path(summary.path).write_text(ending.model_dump_json(indent=2))
    summary.metadata.update(state=ending.state, promoted=ending.promoted, release=ending.release)
    print(ending.text)
    if url := os.environ.get("CAR_NOTIFY_URL", ""):
        notify(url, ending)
