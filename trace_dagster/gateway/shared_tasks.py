"""Tasks that several callers wait for, such as several calls whose answers are joined to one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable

from trace_dagster.gateway.jsonrpc import Answer


class SharedTasks:
    """One task for all callers with the same key. A task that nobody waits for any more is cancelled."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[Answer]] = {}
        self._waiting: dict[Hashable, int] = {}

    async def result(self, key: Hashable, start: Callable[[], Coroutine[None, None, Answer]]) -> Answer:
        """Return the result of the task with this key. Start it if there is none."""
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.get_running_loop().create_task(start())
            self._waiting[key] = 0
        self._waiting[key] += 1
        try:
            return await asyncio.shield(task)
        finally:
            self._waiting[key] -= 1
            if not self._waiting[key] and self._tasks.get(key) is task:
                del self._tasks[key], self._waiting[key]
                task.cancel()  # no effect if it has ended
