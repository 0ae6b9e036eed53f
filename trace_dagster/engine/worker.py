"""The engine worker: a process that only runs Cryo.

It reads requests from stdin, one JSON object per length-prefixed frame. It writes each answer to stdout as two frames:
a JSON header and an Arrow IPC stream. The RPC URL is only in the request, not in argv or the environment. Cryo's own
output goes to stderr, which the parent reads and redacts. When stdin closes, the process ends with ``os._exit``,
because a normal exit right after a fast call can crash (measured).
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import struct
import sys
import threading
from contextlib import suppress
from typing import IO, Any

HEADER = struct.Struct(">I")
MAX_FRAME_BYTES = 1 << 31
FOLDER_PREFIX = "trace-engine-"
_MOST_ERROR_CHARACTERS = 65_536
"""Much longer than what is shown of an error: the parent could not recognize a URL that is cut here."""

READY = b"ready"
"""The first frame. The worker sends it when it can serve calls."""

MARK = b"\x1ecall "
"""Begins a mark on stderr: begun, done or failed, and the call's id. What Cryo prints about a call is between two."""


def read_frame(source: IO[bytes]) -> bytes | None:
    """Return the next frame, or None at the end of the stream."""
    prefix = source.read(HEADER.size)
    if len(prefix) < HEADER.size:
        return None
    (length,) = HEADER.unpack(prefix)
    data = source.read(length)
    return data if len(data) == length else None


def write_frame(sink: IO[bytes], data: bytes) -> None:
    """Write one frame: the length as 4 bytes big-endian, then the data."""
    sink.write(HEADER.pack(len(data)))
    sink.write(data)


def main() -> None:
    """Serve calls until stdin closes."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of Cryo must not be read as a frame
    import cryo  # noqa: F401  (imported before the first call, so that a call's time does not include it)
    import polars  # noqa: F401
    import pyarrow  # noqa: F401

    write_frame(answers, READY)
    answers.flush()
    loop = asyncio.new_event_loop()
    threading.Thread(target=_read_requests, args=(loop, answers), daemon=True).start()
    loop.run_forever()


def _read_requests(loop: asyncio.AbstractEventLoop, answers: IO[bytes]) -> None:
    lock = threading.Lock()
    while (frame := read_frame(sys.stdin.buffer)) is not None:
        asyncio.run_coroutine_threadsafe(_serve(json.loads(frame), answers, lock), loop)
    with suppress(OSError):  # the parent cannot remove the folder if it was killed
        if os.path.basename(os.getcwd()).startswith(FOLDER_PREFIX):
            shutil.rmtree(os.getcwd())
    os._exit(0)


async def _serve(request: dict[str, Any], answers: IO[bytes], lock: threading.Lock) -> None:
    _mark(b"begun", request)
    try:
        payload = await _collect(request)
        header = {"id": request["id"], "ok": True}
        _mark(b"done", request)
    except BaseException as error:  # Cryo's panics are BaseExceptions
        payload = b""
        header = {
            "id": request["id"],
            "ok": False,
            "error": f"{type(error).__name__}: {error}"[:_MOST_ERROR_CHARACTERS],
        }
        _mark(b"failed", request)
    with lock:
        write_frame(answers, json.dumps(header).encode())
        write_frame(answers, payload)
        answers.flush()


def _mark(what: bytes, request: dict[str, Any]) -> None:
    """Write a mark to stderr in one piece, so that no other output gets into it."""
    os.write(2, b"%b%b %d\n" % (MARK, what, request["id"]))


async def _collect(request: dict[str, Any]) -> bytes:
    import cryo
    import pyarrow as pa

    frame = await cryo.async_collect(request["dataset"], **request["arguments"])
    wanted = request["columns"]
    missing = [name for name in wanted if name not in frame.columns]
    if missing:
        raise KeyError(f"columns missing: {', '.join(missing)}")
    table = frame.select(wanted).sort(request["order"], maintain_order=True).to_arrow()
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


if __name__ == "__main__":
    main()
