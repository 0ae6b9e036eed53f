"""Single flight: work whose result several threads need is done by the first that asks, and its result is kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class SingleFlight(Generic[Key, Value]):
    """Results by key; the least recently used are dropped when they weigh more than ``room`` bytes. Thread-safe.

    The last ``least`` results stay even then, as long as they weigh no more than ``most``. A failure is raised in
    every thread that waits for it, and is not kept.
    """

    def __init__(self, room: int, *, least: int = 1, most: int | None = None) -> None:
        self._room, self._least, self._most = room, least, room if most is None else most
        self._lock = threading.Lock()
        self._futures: OrderedDict[Key, Future[Value]] = OrderedDict()
        self._weights: dict[Key, int] = {}

    def get(
        self, keys: Sequence[Key], work: Callable[[list[Key]], Iterable[tuple[Value, int]]], seconds: float
    ) -> list[Value]:
        """Return the value of each key; ``work`` makes (value, weight in bytes) of the missing ones, in order.

        Wait up to ``seconds`` for each value that another thread is making, then raise TimeoutError.
        """
        with self._lock:
            mine: dict[Key, Future[Value]] = {key: Future() for key in keys if key not in self._futures}
            self._futures |= mine
            futures = [self._futures[key] for key in keys]
            for key in keys:
                self._futures.move_to_end(key)
        if mine:
            self._work(mine, work)
        return [future.result(seconds) for future in futures]

    def keys(self) -> list[Key]:
        """Return the keys whose results are kept or under way."""
        with self._lock:
            return list(self._futures)

    def found(self, keys: Iterable[Key]) -> list[tuple[Key, Value]]:
        """Return the keys whose results are kept, with their values."""
        with self._lock:
            futures = [(key, self._futures[key]) for key in keys if key in self._futures]
            return [(key, future.result()) for key, future in futures if future.done()]

    def forget(self, keys: Iterable[Key]) -> None:
        """Repeat the work for the next caller. Work that is under way still ends for the threads that wait for it."""
        with self._lock:
            for key in keys:
                self._futures.pop(key, None)
                self._weights.pop(key, None)

    def _work(self, mine: dict[Key, Future[Value]], work: Callable[[list[Key]], Iterable[tuple[Value, int]]]) -> None:
        try:
            for (key, future), (value, weight) in zip(mine.items(), work(list(mine)), strict=True):
                future.set_result(value)
                self._note(key, future, weight)
        except BaseException as error:
            left = {key: future for key, future in mine.items() if not future.done()}
            with self._lock:
                for key, future in left.items():
                    if self._futures.get(key) is future:
                        del self._futures[key]
            for future in left.values():
                future.set_exception(error)
            raise

    def _note(self, key: Key, future: Future[Value], weight: int) -> None:
        with self._lock:
            if self._futures.get(key) is future:  # else it was forgotten in between
                self._weights[key] = weight
            while self._is_full():
                oldest = next(each for each in self._futures if each in self._weights)
                del self._futures[oldest], self._weights[oldest]

    def _is_full(self) -> bool:
        """Return whether the oldest result must be dropped."""
        weight, count = sum(self._weights.values()), len(self._weights)
        return count > 1 and (weight > self._most or (weight > self._room and count > self._least))
