"""Decompresses a response that a server compressed without a request for it, part by part and within a size limit."""

from __future__ import annotations

import zlib

_GZIP_OR_ZLIB = 47
_RAW = -15
_NAMES = frozenset({"gzip", "x-gzip", "deflate"})


class CompressionError(Exception):
    """The data is not compressed as its header says, or not to its end."""


class Decompressor:
    """The decompressor of one response. No part of it holds more than ``most`` bytes at the same time."""

    def __init__(self, encoding: str, most: int) -> None:
        """Raise CompressionError if the encoding is not gzip or deflate."""
        if encoding.strip().lower() not in _NAMES:
            raise CompressionError(encoding)
        self._most = most
        self._begin = b""
        self._current: zlib._Decompress | None = None
        self.size = 0
        """Bytes that were decompressed; more than ``most`` if the response is too large."""

    def feed(self, data: bytes) -> bytes:
        """Return what the next part of the response contains, up to one byte beyond the limit.

        Raises CompressionError.
        """
        found = []
        data = self._begin + data
        self._begin = b""
        while data and self.size <= self._most:
            if self._current is None and len(data) == 1:  # a format shows in its first two bytes
                self._begin = data
                break
            self._current = self._current or zlib.decompressobj(wbits=_window(data))
            try:
                part = self._current.decompress(data, self._most - self.size + 1)
            except zlib.error as error:
                raise CompressionError(str(error)) from None
            found.append(part)
            self.size += len(part)
            data = self._current.unconsumed_tail
            if self._current.eof:
                data = self._next_member()
        return b"".join(found)

    def end(self) -> None:
        """Raise CompressionError if the response ended too early."""
        if self._current is None or not self._current.eof:
            raise CompressionError("cut short")

    def _next_member(self) -> bytes:
        """Return what follows the end of the data if it is another gzip member. Anything else is left out."""
        assert self._current is not None
        rest = self._current.unused_data
        if rest[:2] != b"\x1f\x8b":
            return b""
        self._current = None
        return rest


def _window(data: bytes) -> int:
    """Return zlib's window bits: some servers send "deflate" without zlib's header."""
    is_zlib = data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
    return _GZIP_OR_ZLIB if is_zlib or data[:2] == b"\x1f\x8b" else _RAW
