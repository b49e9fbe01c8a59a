"""Dynamic batching: questions that arrive during a batch form the next one."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from schemas.errors import RetrailError

Q = TypeVar("Q")
A = TypeVar("A")


class Batcher(Generic[Q, A]):
    """Answers questions in batches, one batch at a time; belongs to one event loop.

    A question that finds no batch in progress is answered at once, alone: batching adds no delay.
    Under load batches grow, since all questions that arrived meanwhile are answered together. A
    question whose caller was cancelled before its batch started is dropped.

    Args:
        answer: returns the answers of a batch, in its order.
        largest: maximum number of questions in a batch.
        common: exceptions that concern a batch as a whole. After any other one its questions are
            asked one by one, so that only the bad one fails.

    Example::

        batcher = Batcher(encode, largest=64)
        vector = await batcher.ask("how to parse a date")
    """

    def __init__(
        self,
        answer: Callable[[list[Q]], Awaitable[Sequence[A]]],
        *,
        largest: int = 64,
        common: tuple[type[Exception], ...] = (RetrailError,),
    ) -> None:
        self._answer, self._largest, self._common = answer, largest, common
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._worker: asyncio.Task[None] | None = None
        self._closed = False

    async def ask(self, question: Q) -> A:
        """The answer, or what answering raised.

        Raises:
            RuntimeError: the batcher was closed.
        """
        if self._closed:
            raise RuntimeError("the batcher is closed")
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    async def close(self) -> None:
        """Accept no more questions, and answer the waiting ones."""
        self._closed = True
        if self._worker is not None:
            await self._worker

    async def _work(self) -> None:
        while self._waiting:
            wanted = [(q, future) for q, future in self._waiting if not future.cancelled()]
            batch, self._waiting = wanted[: self._largest], wanted[self._largest :]
            if batch:
                await self._serve(batch)

    async def _serve(self, batch: list[tuple[Q, asyncio.Future[A]]]) -> None:
        try:
            answers = await self._answer([question for question, _ in batch])
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, self._common):
                for one in batch:
                    await self._serve([one])
                return
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
