"""What a registry keeps about pipeline runs: the verdict of one that the gate refused, and how runs ended."""

from __future__ import annotations

from registry.errors import ObjectExists, ObjectMissing
from registry.store.base import ObjectStore

RUNS = "runs/"


def record_verdict(store: ObjectStore, run_id: str, verdict: bytes) -> None:
    """Keep the verdict (JSON) that refused a run's challenger. Raises ObjectExists if there is another."""
    store.create(f"{RUNS}{run_id}/verdict.json", verdict)


def read_verdict(store: ObjectStore, run_id: str) -> bytes | None:
    """The verdict that refused a run's challenger; None if no such run was refused."""
    try:
        return store.read(f"{RUNS}{run_id}/verdict.json")
    except ObjectMissing:
        return None


def record_ending(store: ObjectStore, run_id: str, summary: bytes) -> None:
    """Keep how a run ended (JSON). A run that was retried ends again: the last record counts."""
    while True:
        number = len(_endings(store, run_id)) + 1
        try:
            store.create(f"{RUNS}{run_id}/endings/{number:08d}.json", summary)
        except ObjectExists:  # another writer was faster
            continue
        return


def read_ending(store: ObjectStore, run_id: str) -> bytes | None:
    """How a run ended at last; None if it did not say so."""
    names = _endings(store, run_id)
    return store.read(names[-1]) if names else None


def _endings(store: ObjectStore, run_id: str) -> list[str]:
    return store.list(f"{RUNS}{run_id}/endings/")
