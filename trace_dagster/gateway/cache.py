"""A cache of answers, bounded by the bytes that it holds."""

from __future__ import annotations

from collections import OrderedDict

from trace_dagster.gateway.cacheable import CHAIN_ID, CacheableCall, last_block
from trace_dagster.gateway.rate_limiter import Clock

CHAIN_ID_SECONDS = 30.0
_ENTRY_BYTES = 400
"""Bytes that an entry uses in addition to its answer."""

Key = tuple[str, CacheableCall]
"""The endpoint's fingerprint and the call."""


class AnswerCache:
    """Cache of the most recently used answers of all endpoints."""

    def __init__(self, most_bytes: int, clock: Clock) -> None:
        self._most_bytes = most_bytes
        self._clock = clock
        self._answers: OrderedDict[Key, tuple[bytes, float]] = OrderedDict()
        self.bytes = 0

    def get(self, key: Key) -> bytes | None:
        """Return the cached result, or None."""
        found = self._answers.get(key)
        if found is None:
            return None
        if found[1] and found[1] <= self._clock():
            self._drop(key)
            return None
        self._answers.move_to_end(key)
        return found[0]

    def has(self, key: Key) -> bool:
        """Return whether a result is cached and not too old."""
        return key in self._answers

    def put(self, key: Key, result: bytes) -> None:
        """Store a result, and evict the least recently used ones if the cache is too large."""
        if len(result) + _ENTRY_BYTES > self._most_bytes:
            return
        if key in self._answers:
            self._drop(key)
        ends = self._clock() + CHAIN_ID_SECONDS if key[1].method == CHAIN_ID else 0.0
        self._answers[key] = (result, ends)
        self.bytes += len(result) + _ENTRY_BYTES
        while self.bytes > self._most_bytes:
            self._drop(next(iter(self._answers)))

    def forget(self, fingerprint: str, first: int) -> None:
        """Drop one endpoint's results about blocks from ``first`` on."""
        dropped = [
            key
            for key in self._answers
            if key[0] == fingerprint and (last := last_block(key[1])) is not None and last >= first
        ]
        for key in dropped:
            self._drop(key)

    def _drop(self, key: Key) -> None:
        self.bytes -= len(self._answers.pop(key)[0]) + _ENTRY_BYTES
