"""Run many small transfers at once, in threads because they wait for disks and networks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

WORKERS = 8  # of the 10 connections that the HTTP library pools
R = TypeVar("R")


def in_parallel(work: Callable[..., R], jobs: Iterable[tuple[Any, ...]], workers: int = WORKERS) -> list[R]:
    """Return the results of `work(*job)` for every job, in order.

    After a failure no further job starts, so that a store that is down costs one round of retries and not
    one per object. The failure is raised when the running jobs have ended.
    """
    failed = threading.Event()

    def guarded(job: tuple[Any, ...]) -> R | None:
        if failed.is_set():
            return None
        try:
            return work(*job)
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(max(1, workers)) as pool:
        futures = [pool.submit(guarded, job) for job in jobs]
    return [cast(R, future.result()) for future in futures]  # raises the first failure
