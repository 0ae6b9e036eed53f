"""Whether the service can answer: its registry, its object store and its processes, asked at most once a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from trace_dagster.errors import TraceError

_FRESH_SECONDS = 1.0
_ANSWER_SECONDS = 3.0
"""A part that has not answered by then is away."""


class Health:
    """Asks the parts of a service. It belongs to one event loop."""

    def __init__(self, parts: Mapping[str, Callable[[], object]]) -> None:
        """``parts`` has a function by the name of each part. It raises TraceError if the part is away."""
        self._parts = parts
        self._asking: dict[str, asyncio.Task[bool]] = {}
        self._checked_at = float("-inf")
        self._away: list[str] = []
        self._lock = asyncio.Lock()

    async def away(self) -> list[str]:
        """Return the names of the parts that do not answer now."""
        async with self._lock:
            clock = asyncio.get_running_loop().time
            if clock() - self._checked_at >= _FRESH_SECONDS:
                self._away = await self._ask()
                self._checked_at = clock()
            return self._away

    async def _ask(self) -> list[str]:
        """Ask every part at once. One that still owes the last answer is not asked again."""
        for name, ask in self._parts.items():
            if name not in self._asking:
                self._asking[name] = asyncio.create_task(_answers(ask))
        await asyncio.wait(self._asking.values(), timeout=_ANSWER_SECONDS)
        done = {name: task.result() for name, task in self._asking.items() if task.done()}
        self._asking = {name: task for name, task in self._asking.items() if name not in done}
        return [name for name in self._parts if not done.get(name, False)]


async def _answers(ask: Callable[[], object]) -> bool:
    try:
        await asyncio.to_thread(ask)
    except TraceError:
        return False
    return True
