"""How a run ended, in a sentence and as figures, and the webhook that people hear of it by."""

from __future__ import annotations

import logging

import requests
from pydantic import BaseModel, ConfigDict
from tenacity import RetryError, Retrying, stop_after_attempt, wait_exponential

from registry.channels.channel import head
from registry.errors import RegistryError
from registry.store.open import open_store

ATTEMPTS = 3
TIMEOUT = 10  # seconds per attempt
SUCCEEDED = "SUCCEEDED"
MAX_ERROR = 500  # characters of an error's message


class RunSummary(BaseModel):
    """How a run ended, as it is stored and posted. Chat services read `text`, programs the rest."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    state: str
    """Of the run's steps: SUCCEEDED, FAILED or CANCELLED."""
    error: str
    """What the platform says about a failure; "" for none."""
    run_id: str
    """Id of the run in Kubeflow Pipelines."""
    git_commit: str
    """Commit of the code that asked for the run; "" if unknown."""
    channel: str
    """The channel that the run was to move."""
    promoted: bool
    """Whether the channel uses this run's release now."""
    release: str
    """Digest of the release that the channel uses now; "" for none."""
    entry: int
    """Number of the channel's entry that says so; 0 for none."""
    text: str
    """All of it in one or two sentences."""


def run_summary(
    state: str, error: str | None, *, run_id: str, registry: str, channel: str, git_commit: str
) -> RunSummary:
    """Say how a run ended and what its channel uses now.

    A registry that can't be read becomes a sentence of the summary, not an error.
    """
    entry = None
    try:
        entry = head(open_store(registry), channel)
        usage = (
            f"{channel} uses release {entry.release[:12]} (no. {entry.number}, "
            f"{entry.when:%Y-%m-%d %H:%M} UTC)."
            if entry
            else f"{channel} is empty."
        )
    except RegistryError as problem:
        usage = f"What {channel} uses is unknown: {problem}"
    promoted = entry is not None and entry.who == f"pipeline run {run_id}"
    if state == SUCCEEDED:
        ending = f"succeeded and {'promoted its release' if promoted else 'promoted nothing'}."
    else:
        reason = f": {' '.join(error.split())[:MAX_ERROR]}" if error else "."
        ending = f"ended as {state}{reason}"
    return RunSummary(
        state=state,
        error=error or "",
        run_id=run_id,
        git_commit=git_commit,
        channel=channel,
        promoted=promoted,
        release=entry.release if entry else "",
        entry=entry.number if entry else 0,
        text=f"Pipeline run {run_id} {ending} {usage}",
    )


def notify(url: str, summary: RunSummary) -> bool:
    """Post a summary to a webhook, in up to three attempts; False, and a warning, if none is accepted.

    The URL is a secret and never logged.
    """
    try:
        for attempt in Retrying(stop=stop_after_attempt(ATTEMPTS), wait=wait_exponential(max=5)):
            with attempt:
                requests.post(url, json=summary.model_dump(mode="json"), timeout=TIMEOUT).raise_for_status()
    except RetryError as error:
        problem = error.last_attempt.exception()
        answer = getattr(problem, "response", None)
        reason = f"status {answer.status_code}" if answer is not None else type(problem).__name__
        logging.getLogger(__name__).warning("The webhook did not accept the run's summary: %s.", reason)
        return False
    return True
