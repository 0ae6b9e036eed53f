"""A door to an S3 server that adds a fixed time to every request, and counts requests and bytes.

Signatures hold through it: the server checks them against the Host header, which passes unchanged.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.request import urlopen

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Traffic:
    """What passed since the start."""

    requests: int
    bytes_read: int
    """Bytes from the server, headers included."""

    def since(self, earlier: Traffic) -> Traffic:
        """Return what passed after ``earlier``."""
        return Traffic(self.requests - earlier.requests, self.bytes_read - earlier.bytes_read)


@dataclass(frozen=True, slots=True)
class Door:
    """The address of a running door."""

    endpoint: str
    counters: str

    def traffic(self) -> Traffic:
        """Ask the door for its counters."""
        with urlopen(self.counters) as answer:
            return Traffic(**json.load(answer))


@contextmanager
def door(server: str, seconds: float) -> Iterator[Door]:
    """Run a door in front of ``server`` (host:port) that adds ``seconds`` to each request."""
    child = subprocess.Popen(
        [sys.executable, "-m", "bench.slow_s3", server, str(seconds)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        port, counters = child.stdout.readline().split()
        yield Door(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{counters}")
    finally:
        child.kill()
        child.wait()


class _Counts:
    def __init__(self) -> None:
        self.requests = 0
        self.bytes_read = 0


async def _serve(server: str, seconds: float) -> None:
    counts = _Counts()
    host, _, port = server.rpartition(":")

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection(host, int(port), limit=_CHUNK)
        is_new = asyncio.Event()
        is_new.set()
        answers = asyncio.create_task(_answers(theirs, writer, counts, is_new))
        with suppress(ConnectionError):
            while data := await reader.read(_CHUNK):
                if is_new.is_set():  # the first bytes after an answer are the next request
                    is_new.clear()
                    counts.requests += 1
                    await asyncio.sleep(seconds)
                ours.write(data)
                await ours.drain()
        ours.close()
        answers.cancel()
        writer.close()

    async def asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps(vars(counts)).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    main = await asyncio.start_server(connected, "127.0.0.1", 0, limit=_CHUNK)
    side = await asyncio.start_server(asked, "127.0.0.1", 0)
    print(main.sockets[0].getsockname()[1], side.sockets[0].getsockname()[1], flush=True)
    await main.serve_forever()


async def _answers(
    theirs: asyncio.StreamReader, writer: asyncio.StreamWriter, counts: _Counts, is_new: asyncio.Event
) -> None:
    with suppress(ConnectionError):
        while data := await theirs.read(_CHUNK):
            counts.bytes_read += len(data)
            is_new.set()
            writer.write(data)
            await writer.drain()
    writer.close()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], float(sys.argv[2])))
