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
    """Say how the run ended and what the channel uses now: in the log, to CAR_NOTIFY_URL, in the registry.

    A webhook that does not answer, or a registry that can't be written, is a warning in the log and changes
    nothing about the run.
    """
    import dataclasses
    import logging
    import os
    from pathlib import Path

    from orchestration.kubeflow.ending import RunState, run_summary
    from orchestration.kubeflow.webhook import notify
    from registry.errors import RegistryError
    from registry.run_records import record_ending
    from registry.store.open import open_store

    ending = run_summary(
        dataclasses.replace(RunState.observe(status.state, run_id), error=status.error_message or ""),
        run_id=run_id,
        registry=registry,
        channel=channel,
        git_commit=git_commit,
    )
    document = ending.model_dump_json(indent=2)
    summary.path = f"{summary.path}.json"
    Path(summary.path).write_text(document)
    summary.metadata.update(ending=str(ending.ending), promoted=ending.promoted, release=ending.release)
    try:
        record_ending(open_store(registry), run_id, document.encode())
    except RegistryError as error:
        logging.getLogger(__name__).warning("The registry does not keep how the run ended: %s", error)
    print(ending.text)
    if url := os.environ.get("CAR_NOTIFY_URL", ""):
        notify(url, ending)
