"""The level that rows of a dataset reach on a chain, as far as the table of chains tells it before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from trace_dagster.datasets.catalogue import Dataset
from trace_dagster.datasets.chain import Chain, Open
from trace_dagster.datasets.levels import Level
from trace_dagster.errors import Part

_BY_ROOTS = frozenset({"transactions", "logs", "erc20_transfers", "erc721_transfers"})
"""Datasets whose rows give a root of the header. The header gives the rows of ``blocks``."""

_FRAMES = "no commitment covers call frames; root frames are compared"
_CEILINGS = {
    "geth_calls": _FRAMES,
    "traces": _FRAMES,
    "geth_balance_diffs": "no commitment covers balances; they are compared with proven transactions",
}
"""Datasets that no commitment covers, although they are compared with transactions and receipts: the reason."""

_HASHES_ONLY = "no commitment covers these rows; their block hashes are compared"
_NOTHING = "no commitment covers these rows, and nothing in them can be compared"
_HEAD = 1 << 63
"""The end of blocks that no chain has reached."""

_AFTER_ALL = "if every endpoint of the pool shows this form"


@dataclass(frozen=True, slots=True)
class Below:
    """Blocks whose rows stay below the level that the dataset reaches otherwise."""

    first_block: int
    end_block: int | None
    """The block after the last; None if the stream follows the head."""
    level: Level
    reason: str
    condition: str = ""
    """Which of these blocks, or on which condition; empty for all of them."""

    def __str__(self) -> str:
        if self.end_block is None:
            where = f"blocks from {self.first_block:,} on" if self.first_block else "blocks"
        else:
            where = f"blocks {self.first_block:,} to {self.end_block - 1:,}"
        return f"{where}{' ' if self.condition else ''}{self.condition}: {self.level} ({self.reason})"


@dataclass(frozen=True, slots=True)
class Reach:
    """The level of a stream's rows, why it is not ``full``, and the blocks that reach less."""

    level: Level
    reason: str = ""
    below: tuple[Below, ...] = ()
    notes: tuple[str, ...] = ()
    """What else differs from the chain's later blocks, although it is proven."""
    is_open: bool = False
    """Whether the chain's forms, not the dataset, are the reason for the level."""

    def __str__(self) -> str:
        said = f"{self.level} ({self.reason})" if self.reason else self.level
        return "; ".join([said, *map(str, self.below), *self.notes])

    @property
    def is_lowered(self) -> bool:
        """Whether the chain's forms keep some of the blocks below what the dataset reaches elsewhere."""
        return self.is_open or bool(self.below)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        below = [{name: getattr(each, name) for name in Below.__slots__} for each in self.below]
        return {"level": self.level, "reason": self.reason, "below": below, "notes": list(self.notes)}


def reach(chain: Chain, dataset: Dataset, first_block: int = 0, end_block: int | None = None) -> Reach:
    """Return what ``verify: full`` means for a dataset in these blocks of a chain; None as the end is the head.

    Forms that a node shows and that neither this version nor the table knows are not part of it: they are refused on a
    chain of the table, and lower their rows on another chain.
    """
    level, reason = _ceiling(dataset)
    if level == "structural":
        return Reach(level, reason)
    below = tuple(_below(chain, dataset, first_block, _HEAD if end_block is None else end_block))
    if below and (below[0].first_block, below[0].end_block, below[0].condition) == (first_block, end_block, ""):
        return Reach(below[0].level, below[0].reason, below[1:], is_open=True)
    return Reach(level, reason, below, tuple(_notes(chain, dataset, first_block)))


def parts_needed(dataset: Dataset) -> frozenset[Part]:
    """Return the parts of a block that must be proven for the rows of a dataset to reach their level."""
    if dataset.name in _CEILINGS or dataset.name == "transactions":
        return frozenset({"header", "transactions", "receipts"})
    if dataset.name in _BY_ROOTS:
        return frozenset({"header", "receipts"})
    return frozenset({"header"} if "block_hash" in dataset.all_columns else ())


def lowered_level(dataset: Dataset, unproven: frozenset[Part], *, has_status: bool = True) -> Level:
    """Return the level of rows in blocks with these parts left open.

    Rows are ``crosschecked`` if they give the roots of a header that is only claimed, if their proven transactions lack
    receipts, or if logs before Byzantium (``has_status`` is false) give the bloom of a proven header.
    """
    if unproven == {"header"}:
        return "crosschecked" if dataset.name in _BY_ROOTS else "structural"
    if "header" not in unproven:
        by_transactions = dataset.name == "transactions" and "transactions" not in unproven
        by_bloom = dataset.name == "logs" and not has_status
        return "crosschecked" if by_transactions or by_bloom else "structural"
    return "structural"


def _ceiling(dataset: Dataset) -> tuple[Level, str]:
    """Return the level that the dataset reaches where all forms are proven, and why it is not ``full``."""
    if dataset.name == "blocks" or dataset.name in _BY_ROOTS:
        return "full", ""
    if dataset.name in _CEILINGS:
        return "crosschecked", _CEILINGS[dataset.name]
    return ("crosschecked", _HASHES_ONLY) if parts_needed(dataset) else ("structural", _NOTHING)


def _below(chain: Chain, dataset: Dataset, first: int, end: int) -> Iterator[Below]:
    """Yield the blocks that stay below: eras in which the same parts are open, then what holds for some blocks."""
    needed = parts_needed(dataset)
    rows = [row for row in chain.open if row.form.part in needed and row.first < end and first < _end(row)]
    eras = [row for row in rows if not _condition(row)]
    for start, stop in _cuts(eras, first, end):
        if always := _at(eras, start):
            yield _lowered(chain, dataset, always, [], start, stop)
    for condition in dict.fromkeys(filter(None, map(_condition, rows))):
        some = [row for row in rows if _condition(row) == condition]
        for start, stop in _cuts([*some, *eras], first, end):
            always, more = _at(eras, start), _at(some, start)
            found = _lowered(chain, dataset, more, always, start, stop, condition)
            if more and not (always and found.level == _lowered(chain, dataset, always, [], start, stop).level):
                yield found


def _lowered(
    chain: Chain, dataset: Dataset, rows: list[Open], always: list[Open], first: int, end: int, condition: str = ""
) -> Below:
    """Return the blocks in which ``rows`` are open, beside the parts that are ``always`` open there."""
    parts = frozenset(row.form.part for row in [*rows, *always])
    level = lowered_level(dataset, parts, has_status=end > chain.fork("byzantium"))
    reason = "; ".join(dict.fromkeys(row.reason for row in rows))
    return Below(first, None if end == _HEAD else end, level, reason, condition)


def _condition(row: Open) -> str:
    kind = f"with transactions of type {row.form.kind:#x}" if row.form.kind is not None else ""
    return " ".join(filter(None, (kind, _AFTER_ALL if row.after_all else "")))


def _cuts(rows: list[Open], first: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield consecutive spans of blocks in each of which the same of these rows hold."""
    edges = {edge for row in rows for edge in (row.first, _end(row)) if first < edge < end}
    yield from pairwise([first, *sorted(edges), end])


def _at(rows: list[Open], block: int) -> list[Open]:
    return [row for row in rows if row.first <= block < _end(row)]


def _end(row: Open) -> int:
    return _HEAD if row.end is None else row.end


def _notes(chain: Chain, dataset: Dataset, first: int) -> Iterator[str]:
    byzantium = chain.fork("byzantium")
    if dataset.name == "transactions" and first < byzantium:
        yield f"`success` is null before block {byzantium:,}: receipts had no status there"
