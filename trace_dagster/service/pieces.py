"""Reads the pieces of a stream in another thread, one ahead of the one that is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

SMALL_BYTES = 64 << 10
"""An answer up to this size is sent whole, so that its errors have a status of their own."""
HOLD_SECONDS = 0.25
"""The first bytes wait for so long at most to find out whether the answer is small."""


class PiecesAhead:
    """One stream. Close it when done."""

    def __init__(self, read: Callable[[], Awaitable[bytes | None]]) -> None:
        """``read`` returns the next piece, None at the end, or raises what broke the stream."""
        self._read = read
        self._reading: asyncio.Task[bytes | None] | None = None

    async def head(self) -> tuple[bytes, bool]:
        """Return the first bytes, and whether they are all there are."""
        found = bytearray(await self.next() or b"")
        until = asyncio.get_running_loop().time() + HOLD_SECONDS
        while found and len(found) < SMALL_BYTES:
            try:
                piece = await self.next(until - asyncio.get_running_loop().time())
            except TimeoutError:
                return bytes(found), False
            if piece is None:
                return bytes(found), True
            found += piece
        return bytes(found), not found

    async def next(self, seconds: float | None = None) -> bytes | None:
        """Return the next piece, None at the end. Raises TimeoutError if it is not there in time; it is not lost."""
        task = self._reading or self._read_on()
        done, _ = await asyncio.wait({task}, timeout=seconds and max(0.0, seconds))
        if not done:
            raise TimeoutError
        self._reading = None
        piece = task.result()
        if piece is not None:
            self._read_on()
        return piece

    async def close(self) -> None:
        """Wait until nothing reads any more. The query must have ended or been cancelled."""
        if self._reading is not None:
            await asyncio.wait({self._reading})
            if not self._reading.cancelled():
                self._reading.exception()

    def _read_on(self) -> asyncio.Task[bytes | None]:
        async def read() -> bytes | None:
            return await self._read()

        self._reading = asyncio.create_task(read())
        return self._reading
