"""Many small jobs at once: threads, because transfers wait for disks and networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any, TypeVar

WORKERS = 8  # of the 10 connections that the HTTP library keeps
R = TypeVar("R")


def in_parallel(work: Callable[..., R], jobs: Iterable[tuple[Any, ...]], workers: int = WORKERS) -> list[R]:
    """Results of `work(*job)` for every job, in order.

    The first failure is raised once nothing runs any more; jobs that had not begun by then are dropped, so
    that a store that is down costs one round of retries and not one for every object.
    """
    with ThreadPoolExecutor(max(1, workers)) as pool:
        futures = [pool.submit(work, *job) for job in jobs]
        wait(futures, return_when=FIRST_EXCEPTION)
        for future in futures:
            future.cancel()
    failed = (future.exception() for future in futures if not future.cancelled())
    for error in failed:
        if error is not None:
            raise error
    return [future.result() for future in futures]
