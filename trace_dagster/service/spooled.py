"""Answers that are made whole before they are sent: a client that reads slowly holds a file on disk, nothing else."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterable
from typing import IO

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from trace_dagster.errors import Cancelled, TooLate
from trace_dagster.service.connections import break_off
from trace_dagster.service.sending import AnswerSender

_IN_MEMORY_BYTES = 1 << 20
_PIECE_BYTES = 256 << 10
SEND_SECONDS = 600.0
"""A client must have taken the answer after so long: the file on disk is removed only then."""


class SpooledAnswer(Response):
    """Sends a JSON document of any size, with its length."""

    media_type = "application/json"

    def __init__(self, pieces: Iterable[bytes]) -> None:
        """Take all pieces of the document before this returns."""
        super().__init__()
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115 (__call__ closes it)
        try:
            for piece in pieces:
                self._file.write(piece)
        except BaseException:
            self._file.close()
            raise
        self._size = self._file.tell()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the document. A client that takes it too slowly is broken off."""
        sender = AnswerSender(send)
        sender.until = asyncio.get_running_loop().time() + SEND_SECONDS
        self._file.seek(0)
        try:
            await sender.start({"Content-Type": "application/json", "Content-Length": str(self._size)})
            while piece := await run_in_threadpool(self._file.read, _PIECE_BYTES):
                await sender.pieces(piece)
            await sender.end()
        except (Cancelled, TooLate):
            break_off(scope)
        finally:
            self._file.close()
