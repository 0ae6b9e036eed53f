"""The bytes of answers that a gateway holds at the same time, for all endpoints together and for each of them.

An answer takes bytes while it is received, and again until it is passed on to its callers. What is received may wait
for its turn; what is passed on may not, because a batch holds its first answers while it waits for the last.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

MOST_BYTES = 384 * 1024 * 1024
TIP_BYTES = 128 * 1024 * 1024
"""Of calls about the newest blocks, on top, so that they do not wait for the answers of others."""

MOST_BYTES_OF_ONE = 256 * 1024 * 1024
"""Of one endpoint, so that a hostile one leaves room for the others."""


class Reservation:
    """Bytes that are taken from a budget until the last reference to this object is gone."""

    __slots__ = ("_budget", "_holder", "bytes", "is_passed_on")

    def __init__(self, budget: ByteBudget, holder: str, size: int) -> None:
        self._budget = budget
        self._holder = holder
        self.bytes = size
        self.is_passed_on = False
        """True if a response holds it."""

    def grow_to(self, size: int) -> bool:
        """Take more bytes, up to ``size`` in all. Return False, and take none, if they do not fit."""
        is_taken = self._budget.take(self._holder, size - self.bytes)
        if is_taken:
            self.bytes = size
        return is_taken

    def __del__(self) -> None:
        self._budget.give_back(self._holder, self.bytes)


@dataclass(slots=True, eq=False)
class Waiting:
    """A request for bytes that waits for its turn."""

    holder: str
    size: int
    granted: Callable[[Reservation], None]
    is_cancelled: bool = False

    def cancel(self) -> None:
        """Stop waiting."""
        self.is_cancelled = True


class ByteBudget:
    """A number of bytes that several holders share. Belongs to one event loop."""

    def __init__(self, most: int = MOST_BYTES, most_of_one: int = MOST_BYTES_OF_ONE) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._held: Counter[str] = Counter()
        self._waiting: deque[Waiting] = deque()
        self.used = 0

    def reserve(self, holder: str, size: int) -> Reservation | None:
        """Return a reservation, or None if it does not fit."""
        return Reservation(self, holder, size) if self.take(holder, size) else None

    def wait(self, holder: str, size: int, granted: Callable[[Reservation], None]) -> Waiting:
        """Call ``granted`` with a reservation when it fits. Earlier requests come first."""
        self._waiting.append(Waiting(holder, size, granted))
        return self._waiting[-1]

    def take(self, holder: str, size: int) -> bool:
        """Take bytes. Return False if they do not fit."""
        if self.used + size > self._most or self._held[holder] + size > self._most_of_one:
            return False
        self.used += size
        self._held[holder] += size
        return True

    def give_back(self, holder: str, size: int) -> None:
        """Return bytes, and grant the requests that fit now."""
        self.used -= size
        self._held[holder] -= size
        if self._waiting:
            self._grant()

    def _grant(self) -> None:
        left: deque[Waiting] = deque()
        waiting, self._waiting = self._waiting, deque()
        for each in waiting:
            if each.is_cancelled:
                continue
            if self.take(each.holder, each.size):
                each.granted(Reservation(self, each.holder, each.size))
            else:
                left.append(each)
        self._waiting = left + self._waiting


@dataclass(frozen=True, slots=True)
class AnswerBudgets:
    """The budgets of a gateway: of answers that are received, and of those that are passed on."""

    received: ByteBudget = field(default_factory=ByteBudget)
    passed_on: ByteBudget = field(default_factory=ByteBudget)
    tip_received: ByteBudget = field(default_factory=lambda: ByteBudget(TIP_BYTES, TIP_BYTES))
    tip_passed_on: ByteBudget = field(default_factory=lambda: ByteBudget(TIP_BYTES, TIP_BYTES))
