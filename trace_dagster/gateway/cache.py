"""Answers kept for whoever asks next, bounded by their bytes."""

from __future__ import annotations

from collections import OrderedDict

from trace_dagster.gateway.cacheable import CHAIN_ID, CacheableCall
from trace_dagster.gateway.rate_limiter import Clock

CHAIN_ID_SECONDS = 30.0
_ENTRY_BYTES = 400
"""What an entry costs beside its answer."""

Key = tuple[str, CacheableCall]
"""Endpoint's fingerprint, question."""


class AnswerCache:
    """The answers used last, of all endpoints together."""

    def __init__(self, most_bytes: int, clock: Clock) -> None:
        self._most_bytes = most_bytes
        self._clock = clock
        self._answers: OrderedDict[Key, tuple[bytes, float]] = OrderedDict()
        self.bytes = 0

    def get(self, key: Key) -> bytes | None:
        """The result, or None."""
        found = self._answers.get(key)
        if found is None:
            return None
        if found[1] and found[1] <= self._clock():
            self._drop(key)
            return None
        self._answers.move_to_end(key)
        return found[0]

    def has(self, key: Key) -> bool:
        """Whether there is one, as far as it is not too old."""
        return key in self._answers

    def put(self, key: Key, result: bytes) -> None:
        """Keep a result; older ones go where it needs their room."""
        if len(result) + _ENTRY_BYTES > self._most_bytes:
            return
        if key in self._answers:
            self._drop(key)
        ends = self._clock() + CHAIN_ID_SECONDS if key[1].method == CHAIN_ID else 0.0
        self._answers[key] = (result, ends)
        self.bytes += len(result) + _ENTRY_BYTES
        while self.bytes > self._most_bytes:
            self._drop(next(iter(self._answers)))

    def _drop(self, key: Key) -> None:
        self.bytes -= len(self._answers.pop(key)[0]) + _ENTRY_BYTES
