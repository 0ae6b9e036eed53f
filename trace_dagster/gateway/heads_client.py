"""Reads the heads that a gateway streams, without waiting for more than the caller allows."""

from __future__ import annotations

import socket
import time
from urllib.parse import urlsplit

import msgspec

from trace_dagster.errors import Unavailable
from trace_dagster.rpc.heads import Head, UnreadHeads, head_of

OPEN_SECONDS = 3.0
SILENT_SECONDS = 15.0
"""Seconds without any byte after which the gateway counts as gone: it sends an empty line every 5."""

_MOST_BYTES = 1 << 20
_PART_BYTES = 1 << 16


class NoHeads(Exception):
    """The gateway runs, but has no subscriptions for the pool."""


class HeadStream:
    """One connection to the gateway."""

    def __init__(self, url: str) -> None:
        """Connect. Raises NoHeads, or Unavailable if the gateway does not answer."""
        parts = urlsplit(url)
        self._buffer = b""
        self._unread = UnreadHeads()
        self._taken: list[Head] = []
        """Heads to return next, the last first."""
        self.subscriptions = 0
        """Endpoints of the pool that push their heads now."""
        try:
            self._socket = socket.create_connection((parts.hostname, parts.port), OPEN_SECONDS)
            self._socket.sendall(f"GET {parts.path} HTTP/1.1\r\nhost: {parts.hostname}\r\n\r\n".encode())
        except OSError as error:
            raise _gone(type(error).__name__) from None
        self._heard_at = time.monotonic()
        try:
            self._read_status()
        except BaseException:
            self.close()
            raise

    def head(self, timeout_seconds: float) -> Head | None:
        """Return the next head, the highest first; None if none comes in this time, or if the number of
        subscriptions falls to 0.

        Raises Unavailable if the gateway is gone.
        """
        ends = time.monotonic() + timeout_seconds
        self._receive(0.0)
        while not self._unread and not self._taken and self.subscriptions and (left := ends - time.monotonic()) > 0:
            self._receive(left)
        if self._unread:  # what was taken before is older
            self._taken = self._unread.take()[::-1]
        return self._taken.pop() if self._taken else None

    def close(self) -> None:
        """Disconnect."""
        self._socket.close()

    def _read_status(self) -> None:
        """Read the response's status and headers, and the first line, which has the number of subscriptions."""
        head = self._until(b"\r\n\r\n")
        status = head.split(None, 2)[1:2]
        if status == [b"404"]:
            raise NoHeads
        if status != [b"200"]:
            raise _gone("status")
        self._buffer = self._until(b"\n") + b"\n" + self._buffer
        self._read_lines()

    def _until(self, mark: bytes) -> bytes:
        """Return what is received before a mark, within OPEN_SECONDS."""
        ends = self._heard_at + OPEN_SECONDS
        while mark not in self._buffer:
            if not self._fill(ends - time.monotonic()):
                raise _gone("silent")
        before, _, self._buffer = self._buffer.partition(mark)
        return before

    def _receive(self, seconds: float) -> None:
        """Read what arrived, or wait for it this long."""
        left = self._heard_at + SILENT_SECONDS - time.monotonic()
        if self._fill(min(seconds, max(left, 0.0))):
            self._read_lines()
        elif left <= 0:
            raise _gone("silent")

    def _fill(self, seconds: float) -> bool:
        """Add received bytes to the buffer; return whether there were some in this time."""
        self._socket.settimeout(max(seconds, 0.0))
        try:
            data = self._socket.recv(_PART_BYTES)
        except (TimeoutError, BlockingIOError):
            return False
        except OSError as error:
            raise _gone(type(error).__name__) from None
        self._heard_at = time.monotonic()
        self._buffer += data
        if not data or len(self._buffer) > _MOST_BYTES:
            raise _gone("closed")
        return True

    def _read_lines(self) -> None:
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in filter(None, lines):
            try:
                told = msgspec.json.decode(line)
            except msgspec.DecodeError:
                raise _gone("garbled") from None
            if "subscriptions" in told:
                self.subscriptions = int(told["subscriptions"])
            elif (head := head_of(told, told.get("endpoint", 0))) is not None:
                self._unread.add(head)


def _gone(reason: str) -> Unavailable:
    return Unavailable("the rpc gateway does not stream heads", reason=reason)
