"""One table for all measurements: ours, the other side, and the ratio."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TypeVar

_HEAD = "| what | ours | beside it | unit | ratio | of pairs, from - to | note |\n|---|--:|--:|---|--:|--:|---|"
Ours = TypeVar("Ours")
Theirs = TypeVar("Theirs")
_VERSIONS = ("trace-dagster", "cryo", "dagster", "polars", "pyarrow")


@dataclass(frozen=True, slots=True)
class Compared:
    """Pairs of one quantity, (ours, theirs) per round."""

    what: str
    unit: str
    pairs: tuple[tuple[float, float], ...]
    note: str = ""

    @property
    def ratios(self) -> list[float]:
        """Ours divided by theirs, by round."""
        return [ours / other for ours, other in self.pairs]

    @property
    def ratio(self) -> float:
        """The median of the pairs' ratios."""
        return statistics.median(self.ratios)


@dataclass(frozen=True, slots=True)
class Failed:
    """A part that could not be measured, and the reason."""

    what: str
    reason: str


def markdown(rows: Sequence[Compared | Failed]) -> str:
    """Return the table: medians, the median of the pairs' ratios, and their spread."""
    return "\n".join([_HEAD, *map(_line, rows)])


def machine() -> str:
    """Describe the machine."""
    versions = ", ".join(f"{name} {version(name)}" for name in _VERSIONS)
    return f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, {versions}"


def in_turn(number: int, ours: Callable[[], Ours], theirs: Callable[[], Theirs]) -> tuple[Ours, Theirs]:
    """Run both; ours goes first every other round, because the second one finds warm caches."""
    if number % 2 == 0:
        return ours(), theirs()
    other = theirs()
    return ours(), other


def grouped(rounds: Sequence[Ours], by: Callable[[Ours], Hashable]) -> list[list[Ours]]:
    """Group the rounds by a key such as their node, in the order of first appearance."""
    return [[each for each in rounds if by(each) == one] for one in dict.fromkeys(map(by, rounds))]


def middle(rounds: Sequence[Ours], cost: Callable[[Ours], float]) -> Ours:
    """Return the round with the median cost, whose note is shown next to the medians."""
    return sorted(rounds, key=cost)[len(rounds) // 2]


def cpu_note(by_part: dict[str, float]) -> str:
    """Return CPU seconds by part, without those that round to zero."""
    return "CPU s: " + ", ".join(f"{part} {spent:.1f}" for part, spent in by_part.items() if spent >= 0.05)


def _line(row: Compared | Failed) -> str:
    if isinstance(row, Failed):
        return f"| {row.what} | | | | | | failed: {' '.join(row.reason.split()).replace('|', '/')} |"
    ours, other = (statistics.median(side) for side in zip(*row.pairs, strict=True))
    spread = f"{min(row.ratios):.2f} - {max(row.ratios):.2f}, {len(row.pairs)}"
    return f"| {row.what} | {_number(ours)} | {_number(other)} | {row.unit} | {row.ratio:.2f} | {spread} | {row.note} |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
