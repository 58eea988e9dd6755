"""How a run ended, in a sentence and as figures, and how people hear of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import requests
from tenacity import RetryError, Retrying, stop_after_attempt, wait_exponential

from registry.channels.channel import head
from registry.channels.log import Entry
from registry.errors import RegistryError
from registry.store.open import open_store

TRIES = 3
LOOK = 10  # seconds a webhook may take
SUCCEEDED = "SUCCEEDED"
LONGEST = 500  # characters of an error's message


def conclusion(
    state: str, error: str | None, *, run_id: str, registry: str, channel: str, commit: str
) -> dict[str, Any]:
    """State, error, whether this run moved the channel, what the channel uses now, and all of it as `text`.

    Args:
        state: of the run's steps: SUCCEEDED, FAILED or CANCELLED.
        error: what the platform says of a failure; None or "" for nothing.

    A registry that can't be read is part of what is told, not an error.
    """
    used, unread = None, ""
    try:
        used = head(open_store(registry), channel)
    except RegistryError as unreadable:
        unread = str(unreadable)
    promoted = used is not None and used.who == f"pipeline run {run_id}"
    sentences = [
        _ended(state, error, run_id, promoted),
        _in_use(used, channel) if not unread else f"What {channel} uses can't be told: {unread}",
    ]
    return {
        "state": state,
        "error": error or "",
        "run_id": run_id,
        "git_commit": commit,
        "channel": channel,
        "promoted": promoted,
        "release": used.release if used else "",
        "entry": used.number if used else 0,
        "text": " ".join(sentences),
    }


def notify(url: str, told: Mapping[str, Any]) -> bool:
    """Post a conclusion to a webhook, three times at most; False, and a warning, where none was taken.

    Chat services read `text`, programs the rest. The URL is a secret and never logged.
    """
    try:
        for attempt in Retrying(stop=stop_after_attempt(TRIES), wait=wait_exponential(max=5)):
            with attempt:
                requests.post(url, json=dict(told), timeout=LOOK).raise_for_status()
    except RetryError as error:
        last = error.last_attempt.exception()
        answer = getattr(last, "response", None)
        why = f"status {answer.status_code}" if answer is not None else type(last).__name__
        logging.getLogger(__name__).warning("The webhook did not take how the run ended: %s.", why)
        return False
    return True


def _ended(state: str, error: str | None, run_id: str, promoted: bool) -> str:
    if state != SUCCEEDED:
        why = f": {' '.join(error.split())[:LONGEST]}" if error else "."
        return f"Pipeline run {run_id} ended as {state}{why}"
    return (
        f"Pipeline run {run_id} succeeded and {'promoted its release' if promoted else 'promoted nothing'}."
    )


def _in_use(used: Entry | None, channel: str) -> str:
    if used is None:
        return f"{channel} is empty."
    return f"{channel} uses release {used.release[:12]} (no. {used.number}, {used.when:%Y-%m-%d %H:%M} UTC)."
