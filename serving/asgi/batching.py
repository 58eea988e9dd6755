"""Answer requests that arrive while others are answered together in the next batch, as TorchServe does."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from anyio import CapacityLimiter, to_thread

RequestT = TypeVar("RequestT")
AnswerT = TypeVar("AnswerT")


class QueueFullError(RuntimeError):
    """So many requests wait that another would wait too long."""


class Batcher(Generic[RequestT, AnswerT]):
    """Answers batches one after the other in a thread of its own; no request waits for a batch to fill.

    `answer` answers a batch, in its order, and must not raise; `queue` requests may wait.
    """

    def __init__(
        self, answer: Callable[[Sequence[RequestT]], Sequence[AnswerT]], batch_size: int, queue: int
    ) -> None:
        self.answer = answer
        self.batch_size = batch_size
        self.queue = queue
        self._waiting: deque[tuple[RequestT, asyncio.Future[AnswerT]]] = deque()
        self._thread = CapacityLimiter(1)
        self._work: asyncio.Task[None] | None = None

    async def submit(self, request: RequestT, force: bool = False) -> AnswerT:
        """Return the answer once it is there. Raises QueueFullError if the queue is full, unless `force`."""
        if len(self._waiting) >= self.queue and not force:
            raise QueueFullError(f"{self.queue} requests wait already.")
        future: asyncio.Future[AnswerT] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._work is None:
            self._work = asyncio.create_task(self._answer_waiting())
        return await future

    async def _answer_waiting(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self.batch_size, len(self._waiting)))]
            try:
                answers = await to_thread.run_sync(
                    self.answer, [request for request, _ in batch], limiter=self._thread
                )
            except BaseException as error:  # leave nobody waiting, in this batch or behind it
                self._work = None
                for _, future in [*batch, *self._waiting]:
                    if not future.done():
                        future.set_exception(RuntimeError(f"the batch failed: {error!r}"))
                self._waiting.clear()
                raise
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():  # the client may have gone away
                    future.set_result(answer)
        self._work = None
