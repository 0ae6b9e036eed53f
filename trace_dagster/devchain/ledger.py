"""The expected answers: token balances, supplies and stakes at any block, in exact integers.

Each simulated transaction updates them directly and not from its logs, so that tests have an independent source.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from trace_dagster.devchain.constants import ZERO_ADDRESS


@dataclass(slots=True)
class _BlockChanges:
    balances: list[tuple[bytes, bytes, int]] = field(default_factory=list)
    stakes: list[tuple[int, bytes, int]] = field(default_factory=list)


class Ledger:
    """Changes per block, and the current state that the next action reads."""

    def __init__(self) -> None:
        self._journal: list[_BlockChanges] = []
        self.current: dict[bytes, dict[bytes, int]] = defaultdict(lambda: defaultdict(int))
        self.staked: dict[tuple[int, bytes], int] = defaultdict(int)

    def open_block(self) -> None:
        """Start the changes of the next block."""
        self._journal.append(_BlockChanges())

    def undo_block(self) -> None:
        """Take back the changes of the newest block."""
        page = self._journal.pop()
        for token, holder, change in page.balances:
            self.current[token][holder] -= change
        for validator, delegator, change in page.stakes:
            self.staked[validator, delegator] -= change

    def move(self, token: bytes, source: bytes, target: bytes, amount: int) -> None:
        """Move tokens; a move from the zero address is a mint, and a move to it is a burn."""
        for holder, change in ((source, -amount), (target, amount)):
            if holder != ZERO_ADDRESS:
                self.current[token][holder] += change
                self._journal[-1].balances.append((token, holder, change))

    def stake(self, validator: int, delegator: bytes, change: int) -> None:
        """Delegate (positive change) or undelegate (negative change)."""
        self.staked[validator, delegator] += change
        self._journal[-1].stakes.append((validator, delegator, change))

    def balances(self, token: bytes, block: int) -> dict[bytes, int]:
        """Return every non-zero balance after ``block``."""
        found: dict[bytes, int] = defaultdict(int)
        for page in self._journal[: block + 1]:
            for changed, holder, change in page.balances:
                if changed == token:
                    found[holder] += change
        return {holder: amount for holder, amount in found.items() if amount}

    def supplies(self, token: bytes, end: int) -> list[int]:
        """Return the total supply after each block of ``[0, end)``."""
        supply, found = 0, []
        for page in self._journal[:end]:
            supply += sum(change for changed, _, change in page.balances if changed == token)
            found.append(supply)
        return found

    def total_supply(self, token: bytes, block: int) -> int:
        """Return the total supply after ``block``."""
        return sum(self.balances(token, block).values())

    def stakes(self, block: int) -> dict[int, int]:
        """Return the stake per validator after ``block``, in wei."""
        found: dict[int, int] = defaultdict(int)
        for page in self._journal[: block + 1]:
            for validator, _, change in page.stakes:
                found[validator] += change
        return {validator: amount for validator, amount in found.items() if amount}
