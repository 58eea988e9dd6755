"""The webhook that people hear of a run's end by."""

from __future__ import annotations

import logging

import requests
from tenacity import RetryError, Retrying, stop_after_attempt, wait_exponential

from orchestration.kubeflow.ending import RunSummary

ATTEMPTS = 3
TIMEOUT = 10  # seconds per attempt


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
