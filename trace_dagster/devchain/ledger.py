"""The chain's own answers: token balances, supplies and stakes at any block, in exact integers.

Kept by the actions themselves, not by reading logs: an independent truth for tests.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from trace_dagster.devchain.constants import ZERO_ADDRESS


@dataclass(slots=True)
class _BlockChanges:
    balances: list[tuple[bytes, bytes, int]] = field(default_factory=list)
    stakes: list[tuple[int, int]] = field(default_factory=list)


class Ledger:
    """A journal of changes per block, and the current state the next action may draw on."""

    def __init__(self) -> None:
        self._journal: list[_BlockChanges] = []
        self.current: dict[bytes, dict[bytes, int]] = defaultdict(lambda: defaultdict(int))
        self.staked: dict[tuple[int, bytes], int] = defaultdict(int)

    def open_block(self) -> None:
        """Start the next block's page."""
        self._journal.append(_BlockChanges())

    def move(self, token: bytes, source: bytes, target: bytes, amount: int) -> None:
        """Move tokens; the zero address is the outside, so from it is a mint and to it a burn."""
        for holder, change in ((source, -amount), (target, amount)):
            if holder != ZERO_ADDRESS:
                self.current[token][holder] += change
                self._journal[-1].balances.append((token, holder, change))

    def stake(self, validator: int, delegator: bytes, change: int) -> None:
        """Delegate (positive) or undelegate (negative)."""
        self.staked[validator, delegator] += change
        self._journal[-1].stakes.append((validator, change))

    def balances(self, token: bytes, block: int) -> dict[bytes, int]:
        """Every non-zero balance after ``block``."""
        found: dict[bytes, int] = defaultdict(int)
        for page in self._journal[: block + 1]:
            for changed, holder, change in page.balances:
                if changed == token:
                    found[holder] += change
        return {holder: amount for holder, amount in found.items() if amount}

    def supplies(self, token: bytes, end: int) -> list[int]:
        """Total supply after each block of ``[0, end)``."""
        supply, found = 0, []
        for page in self._journal[:end]:
            supply += sum(change for changed, _, change in page.balances if changed == token)
            found.append(supply)
        return found

    def total_supply(self, token: bytes, block: int) -> int:
        """Total supply after ``block``."""
        return sum(self.balances(token, block).values())

    def stakes(self, block: int) -> dict[int, int]:
        """Stake per validator after ``block``, in wei."""
        found: dict[int, int] = defaultdict(int)
        for page in self._journal[: block + 1]:
            for validator, change in page.stakes:
                found[validator] += change
        return {validator: amount for validator, amount in found.items() if amount}
