"""Exit step: says how the run ended, whatever happened in it."""

from kfp.dsl import Artifact, Output, PipelineTaskFinalStatus

from orchestration.step import step


@step
def conclude(
    *,
    status: PipelineTaskFinalStatus,
    run_id: str,
    registry: str,
    channel: str,
    git_commit: str,
    ending: Output[Artifact],
) -> None:
    """Log and keep how the run ended and what the channel uses now, and tell the webhook in CAR_NOTIFY_URL.

    A webhook that does not answer is a warning in the log: it changes nothing about the run.
    """
    import json
    import os
    from pathlib import Path

    from orchestration.kubeflow.notify import conclusion, notify

    told = conclusion(
        status.state,
        status.error_message,
        run_id=run_id,
        registry=registry,
        channel=channel,
        commit=git_commit,
    )
    ending.path = f"{ending.path}.json"
    Path(ending.path).write_text(json.dumps(told, indent=2))
    ending.metadata.update(state=told["state"], promoted=told["promoted"], release=told["release"])
    print(told["text"])
    if url := os.environ.get("CAR_NOTIFY_URL", ""):
        notify(url, told)
