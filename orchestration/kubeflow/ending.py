"""How a run ended, in a sentence and as fields: from the registry, the gate's verdict and the run's pods.

The state that Kubeflow hands to an exit step does not say it: RUNNING may be a run whose step hit its
time limit or that a person ended, and its error is always empty.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from car_model.evidence.verdict import Verdict
from common.cli import DONE, FAILED, NOT_PROMOTED
from common.errors import UserError
from orchestration.kubeflow.run_pods import PodsError, RunPods, StepFailure
from orchestration.kubeflow.runs import CANCELLED_STATES, FAILED_STATE, failed_step, read_run
from registry.channels.channel import head, history
from registry.channels.log import Entry
from registry.errors import RegistryError
from registry.run_records import read_verdict
from registry.store.base import ObjectStore
from registry.store.open import open_store

REFUSING_STEP = "not-promoted"  # fails on purpose if the run requires a promotion
COMPLETE = ("COMPLETE", "SUCCEEDED")  # every step ended well: on Kubeflow, on Vertex AI
MAX_ERROR = 500  # characters of a step's sentence


class Ending(enum.StrEnum):
    """How a run ended."""

    PROMOTED = "promoted"
    IN_USE = "already in use"
    REFUSED = "refused by the gate"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    @property
    def exit_code(self) -> int:
        """Of a command that followed the run."""
        if self is Ending.REFUSED:
            return NOT_PROMOTED
        return DONE if self in (Ending.PROMOTED, Ending.IN_USE) else FAILED


class RunSummary(BaseModel):
    """How a run ended, as it is stored and posted. Chat services read `text`, programs the rest."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    ending: Ending
    """How the run ended."""
    step: str
    """The step that failed; "" if none did, or if it is unknown."""
    error: str
    """Why that step failed, in its own sentence, or else in the platform's; "" for neither."""
    failing: tuple[str, ...]
    """Conditions that the gate refused the release on, each with what was measured."""
    run_id: str
    """Id of the run in Kubeflow Pipelines."""
    git_commit: str
    """Commit of the code that asked for the run; "" if unknown."""
    channel: str
    """The channel that the run was to move."""
    promoted: bool
    """Whether this run moved the channel, whatever came after."""
    release: str
    """Digest of the release that the channel uses now; "" for none."""
    entry: int
    """Number of the channel's entry that says so; 0 for none."""
    text: str
    """All of it in one or two sentences."""


@dataclass(frozen=True)
class RunState:
    """What is known about a run's steps."""

    state: str  # that Kubeflow hands to the exit step
    failures: tuple[StepFailure, ...] = ()
    cancelled: bool = False
    unknown: tuple[str, ...] = ()  # what could not be asked, in a sentence each
    error: str = ""  # the platform's own account; Kubeflow gives none

    @classmethod
    def observe(cls, state: str, run_id: str, namespace: str = "") -> RunState:
        """Ask Kubernetes about the run's pods, which know why they failed; if it can't be asked, KFP's API.

        KFP's API names the failed step of a small run only: of a large one it stops reporting tasks.
        """
        failures: tuple[StepFailure, ...] = ()
        try:
            pods = RunPods(namespace)
            failures = tuple(pods.failures(pods.of_run(run_id)))
            return cls(state, failures, cancelled=pods.was_terminated(run_id))
        except PodsError as error:
            unknown = [str(error)]
        try:
            run = read_run(run_id)
        except UserError as error:
            return cls(state, failures, unknown=(*unknown, str(error)))
        if not failures and (step := failed_step(run)):
            failures = (StepFailure(step, ""),)
        return cls(state, failures, cancelled=run.state in CANCELLED_STATES, unknown=tuple(unknown))


def run_summary(run: RunState, *, run_id: str, registry: str, channel: str, git_commit: str) -> RunSummary:
    """Say how a run ended and what its channel uses now.

    A registry that can't be read becomes a sentence of the summary, not an error.
    """
    current, moved, verdict = None, None, None
    doubt = f"but nothing was promoted: did its steps see {registry}?"
    try:
        store = open_store(registry)
        current, moved = head(store, channel), _entry_of_run(store, channel, run_id)
        if stored := read_verdict(store, run_id):
            verdict = Verdict.model_validate_json(stored)
        usage = f"{channel} uses {_describe(current)}." if current else f"{channel} is empty."
    except (RegistryError, ValueError) as problem:
        usage, doubt = f"What {channel} uses is unknown: {problem}", "as far as is known."
    cancelled = run.cancelled or run.state in CANCELLED_STATES  # which kills the steps that run
    failures = [
        item for item in run.failures if not cancelled and not (verdict and item.step == REFUSING_STEP)
    ]
    failure = failures[0] if failures else StepFailure("", run.error)
    reason = " ".join(failure.sentence.split())[:MAX_ERROR]
    failing = tuple(f"{item.name}: {item.detail}" for item in verdict.blockers) if verdict else ()
    if cancelled:
        ending, text = Ending.CANCELLED, "was cancelled."
    elif failures:
        reason = reason or _unknown("It left no reason.", run)
        ending, text = Ending.FAILED, f"failed in the step {failure.step}: {reason}"
    elif verdict:
        ending, text = Ending.REFUSED, f"promoted nothing: the gate refused its release. {' '.join(failing)}"
    elif run.state == FAILED_STATE:
        silence = _unknown("failed; in which step could not be found out.", run)
        ending, text = Ending.FAILED, f"failed: {reason}" if reason else silence
    elif moved:
        ending, text = Ending.PROMOTED, "promoted its release."
    elif run.state in COMPLETE:
        in_use = (Ending.IN_USE, "made the release that is already in use.")
        ending, text = in_use if current else (Ending.UNKNOWN, f"ended well, {doubt}")
    else:
        text = f"ended, but how could not be found out. Kubeflow's state is {run.state}."
        ending, text = Ending.UNKNOWN, _unknown(text, run)
    if moved and ending is not Ending.PROMOTED:
        text += f" Before that it had promoted release {moved.release[:12]}."
    elif moved and current and moved.number < current.number:
        text += f" It was replaced since by {current.who}."
    return RunSummary(
        ending=ending,
        step=failure.step,
        error=failure.sentence,
        failing=failing,
        run_id=run_id,
        git_commit=git_commit,
        channel=channel,
        promoted=moved is not None,
        release=current.release if current else "",
        entry=current.number if current else 0,
        text=f"Pipeline run {run_id} {text} {usage}",
    )


def _entry_of_run(store: ObjectStore, channel: str, run_id: str) -> Entry | None:
    entries = [entry for entry in history(store, channel) if entry.who == f"pipeline run {run_id}"]
    return entries[-1] if entries else None


def _describe(entry: Entry) -> str:
    return f"release {entry.release[:12]} (no. {entry.number}, {entry.when:%Y-%m-%d %H:%M} UTC)"


def _unknown(text: str, run: RunState) -> str:
    return " ".join((text, *run.unknown))
