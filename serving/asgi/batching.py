"""Requests that wait while others are answered go next, together: what TorchServe's batches are to it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from anyio import CapacityLimiter, to_thread

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class FullError(RuntimeError):
    """So many requests wait that another would wait too long."""


class Batcher(Generic[Asked, Answer]):
    """Answers in a thread of its own, one batch after the other; nobody waits for a batch to fill.

    Args:
        answer: answers a batch, in its order; must not raise.
        most: requests of a batch.
        queue: requests that may wait.
    """

    def __init__(self, answer: Callable[[Sequence[Asked]], Sequence[Answer]], most: int, queue: int) -> None:
        self.answer = answer
        self.most = most
        self.queue = queue
        self._waiting: deque[tuple[Asked, asyncio.Future[Answer]]] = deque()
        self._thread = CapacityLimiter(1)
        self._work: asyncio.Task[None] | None = None

    async def ask(self, asked: Asked, always: bool = False) -> Answer:
        """The answer, once it is there.

        Args:
            always: wait however many wait already.

        Raises:
            FullError: too many wait.
        """
        if len(self._waiting) >= self.queue and not always:
            raise FullError(f"{self.queue} requests wait already.")
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        if self._work is None:
            self._work = asyncio.create_task(self._until_none_waits())
        return await future

    async def _until_none_waits(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self.most, len(self._waiting)))]
            try:
                answers = await to_thread.run_sync(
                    self.answer, [asked for asked, _ in batch], limiter=self._thread
                )
            except BaseException as error:
                self._fail(batch, error)
                raise
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():  # who asked may have gone
                    future.set_result(answer)
        self._work = None

    def _fail(self, batch: Sequence[tuple[Asked, asyncio.Future[Answer]]], error: BaseException) -> None:
        """Nobody waits for ever: neither those of this batch nor those behind it."""
        self._work = None
        for _, future in [*batch, *self._waiting]:
            if not future.done():
                future.set_exception(RuntimeError(f"the batch failed: {error!r}"))
        self._waiting.clear()
