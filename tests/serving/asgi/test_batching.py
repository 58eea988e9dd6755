"""What waits while others are answered goes next, together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from serving.asgi.batching import Batcher, QueueFullError


class Slow:
    """Answers with ten times the number, each batch only once `go` is set; remembers the batches."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun = threading.Event()
        self.batches: list[list[int]] = []

    def __call__(self, requests: Sequence[int]) -> list[int]:
        self.batches.append(list(requests))
        self.begun.set()
        assert self.go.wait(30)
        return [10 * request for request in requests]


async def begun(batcher: Batcher[int, int], slow: Slow, first: int = 0) -> asyncio.Task[int]:
    """The first one asked, under way."""
    task = asyncio.create_task(batcher.submit(first))
    await asyncio.to_thread(slow.begun.wait, 30)
    return task


def test_those_who_wait_are_answered_together_and_each_gets_its_own() -> None:
    async def run() -> None:
        slow = Slow()
        batcher = Batcher(slow, batch_size=3, queue=100)
        first = await begun(batcher, slow)
        tasks = [asyncio.create_task(batcher.submit(request)) for request in range(1, 6)]
        await asyncio.sleep(0)
        slow.go.set()
        assert await asyncio.gather(first, *tasks) == [0, 10, 20, 30, 40, 50]
        assert slow.batches == [[0], [1, 2, 3], [4, 5]]
        assert await batcher.submit(7) == 70

    asyncio.run(run())


def test_a_full_queue_refuses_all_but_those_who_always_may() -> None:
    async def run() -> None:
        slow = Slow()
        batcher = Batcher(slow, batch_size=8, queue=2)
        first = await begun(batcher, slow)
        tasks = [asyncio.create_task(batcher.submit(request)) for request in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError, match="2 requests wait already"):
            await batcher.submit(3)
        beat = asyncio.create_task(batcher.submit(4, force=True))
        await asyncio.sleep(0)
        slow.go.set()
        assert await asyncio.gather(first, *tasks, beat) == [0, 10, 20, 40]
        assert await batcher.submit(5) == 50

    asyncio.run(run())


def test_one_who_goes_away_costs_the_others_nothing() -> None:
    async def run() -> None:
        slow = Slow()
        batcher = Batcher(slow, batch_size=8, queue=100)
        first = await begun(batcher, slow)
        cancelled_task, stays = (asyncio.create_task(batcher.submit(request)) for request in (1, 2))
        await asyncio.sleep(0)
        cancelled_task.cancel()
        slow.go.set()
        assert await asyncio.gather(first, stays) == [0, 20]

    asyncio.run(run())


def test_a_batch_that_fails_leaves_nobody_waiting() -> None:
    def broken(requests: Sequence[int]) -> list[int]:
        if 1 in requests:
            raise ZeroDivisionError
        return list(requests)

    async def run() -> None:
        batcher = Batcher(broken, batch_size=8, queue=100)
        errors = await asyncio.gather(batcher.submit(1), batcher.submit(2), return_exceptions=True)
        assert [type(error) for error in errors] == [RuntimeError, RuntimeError]
        assert await batcher.submit(3) == 3

    asyncio.run(run())
