"""A question that is asked again while its answer is under way waits for that answer."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Key = TypeVar("Key")
Answer = TypeVar("Answer")


@dataclass(slots=True)
class _Pending(Generic[Answer]):
    task: asyncio.Task[Answer]
    waiting: int = 0


class SharedAnswers(Generic[Key, Answer]):
    """The answers under way in one event loop, each asked for once.

    What the asking raises is raised for all who wait for it. One who is cancelled leaves the others
    their answer; when all are, so is the asking.
    """

    def __init__(self) -> None:
        self._pending: dict[Key, _Pending[Answer]] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._pending

    async def get(self, key: Key, ask: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        """The answer under way, else that of ``ask``."""
        pending = self._pending.get(key)
        if pending is None:
            pending = self._pending[key] = _Pending(asyncio.create_task(ask()))
        pending.waiting += 1
        try:
            return await asyncio.shield(pending.task)
        finally:
            pending.waiting -= 1
            if not pending.waiting:
                del self._pending[key]
                pending.task.cancel()
