"""One table for everything that is measured: ours beside something else, the ratio last."""

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
    """Pairs of one quantity, (ours, beside it) per round."""

    what: str
    unit: str
    pairs: tuple[tuple[float, float], ...]
    note: str = ""

    @property
    def ratios(self) -> list[float]:
        """Ours over the other, by round."""
        return [ours / other for ours, other in self.pairs]

    @property
    def ratio(self) -> float:
        """The median of the pairs' ratios."""
        return statistics.median(self.ratios)


@dataclass(frozen=True, slots=True)
class Failed:
    """What could not be measured, and why."""

    what: str
    reason: str


def markdown(rows: Sequence[Compared | Failed]) -> str:
    """The table: medians, the median of the pairs' ratios, and how far these lie apart."""
    return "\n".join([_HEAD, *map(_line, rows)])


def machine() -> str:
    """What the figures were taken on."""
    versions = ", ".join(f"{name} {version(name)}" for name in _VERSIONS)
    return f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, {versions}"


def in_turn(number: int, ours: Callable[[], Ours], theirs: Callable[[], Theirs]) -> tuple[Ours, Theirs]:
    """Do both; ours goes first every other round, for whoever goes second finds warm caches."""
    if number % 2 == 0:
        return ours(), theirs()
    other = theirs()
    return ours(), other


def grouped(rounds: Sequence[Ours], by: Callable[[Ours], Hashable]) -> list[list[Ours]]:
    """The rounds that have the same of something, such as their node, in the order it first came."""
    return [[each for each in rounds if by(each) == one] for one in dict.fromkeys(map(by, rounds))]


def middle(rounds: Sequence[Ours], cost: Callable[[Ours], float]) -> Ours:
    """The round a note tells of, where the figures are medians: the one of middle cost."""
    return sorted(rounds, key=cost)[len(rounds) // 2]


def cpu_note(by_part: dict[str, float]) -> str:
    """CPU seconds by part, those that round to nothing left out."""
    return "CPU s: " + ", ".join(f"{part} {spent:.1f}" for part, spent in by_part.items() if spent >= 0.05)


def _line(row: Compared | Failed) -> str:
    if isinstance(row, Failed):
        return f"| {row.what} | | | | | | failed: {' '.join(row.reason.split()).replace('|', '/')} |"
    ours, other = (statistics.median(side) for side in zip(*row.pairs, strict=True))
    spread = f"{min(row.ratios):.2f} - {max(row.ratios):.2f}, {len(row.pairs)}"
    return f"| {row.what} | {_number(ours)} | {_number(other)} | {row.unit} | {row.ratio:.2f} | {spread} | {row.note} |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
