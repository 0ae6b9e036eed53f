"""Evidence that several datasets of a chain need: fetched and proven once per process, whoever asks first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from trace_dagster.blocks import BlockRange
from trace_dagster.evidence.single_flight import Once
from trace_dagster.verify.check import Needs, needs
from trace_dagster.verify.commitments import prove
from trace_dagster.verify.model import Header, Late, Outcome, Receipt, Rows, Transaction
from trace_dagster.verify.rows import arrow

BATCH_BLOCKS = 50
"""Blocks of shared evidence that are kept, and fetched, together."""

_RUN_BATCHES = 4
"""Fetched and proven at once where many follow one another: their answers are in memory all together."""

SHARED_BYTES = 16 * 1024 * 1024
"""Room for shared evidence: of the bench's chain 4,500 blocks, several times what streams of a run drift apart."""
SHARED_BATCHES, SHARED_MOST_BYTES = 16, 192 * 1024 * 1024
"""Of heavy blocks so many batches are kept all the same, while they take no more than that."""

SHARED_SECONDS = 3600.0
"""Longest wait for evidence another thread is fetching."""

PARTS = ("headers", "transactions", "receipts")


@dataclass(slots=True)
class Parts:
    """The parts of an evidence, None where they are not known (yet)."""

    headers: Sequence[Header] | None = None
    transactions: Sequence[Sequence[Transaction]] | None = None
    receipts: Sequence[Sequence[Receipt]] | None = None
    proven: Sequence[Sequence[Outcome]] | None = None
    weight: int = 0
    """Bytes of its columns, or about as many: those of the answers it was read from."""
    passed: int = 0
    """Blocks of it that datasets are through with, counted for each dataset."""
    rows: Rows | None = None
    """Transactions and receipts as tables, where they were proven in columns: the others are made of them then."""

    @classmethod
    def plain(cls, headers: Sequence[Header], rows: Rows) -> Parts:
        """What was proven in columns."""
        piece = BlockRange(headers[0].number, headers[-1].number + 1)
        receipts = Late(len(headers), lambda: arrow.receipts_of_tables(rows.transactions, rows.logs, piece))
        return cls(
            headers=headers,
            transactions=Late(len(headers), lambda: arrow.transactions_of(rows.transactions, piece)),
            receipts=receipts,
            proven=Late(len(headers), lambda: [list(prove.outcomes(inside)) for inside in receipts]),
            rows=rows,
        )

    def of(self, start: int, end: int) -> Parts:
        """The parts of some of the blocks, counted from the first."""
        if self.rows is not None and self.headers is not None:
            return Parts.plain(self.headers[start:end], self.rows.of(start, end))
        some = Parts()
        for name in (*PARTS, "proven"):
            if (part := getattr(self, name)) is not None:
                setattr(some, name, part[start:end])
        return some


def joined(found: Sequence[Parts]) -> Parts:
    """Consecutive blocks' parts as one."""
    rows = [each.rows for each in found if each.rows is not None]
    if len(rows) == len(found):
        return Parts.plain([header for each in found for header in each.headers or ()], Rows.joined(rows))
    whole = Parts()
    for name in (*PARTS, "proven"):
        if getattr(found[0], name) is not None:
            setattr(whole, name, list(chain.from_iterable(getattr(each, name) for each in found)))
    return whole


class Batch(NamedTuple):
    """Blocks of which one endpoint is asked for what is wanted, together.

    What was fetched before another dataset joined lacks what that one wants: it is another batch.
    """

    endpoint: str
    chain_id: int
    wanted: Needs
    start: int
    end: int


def batches_of(piece: BlockRange, whole: BlockRange, endpoint: str, chain_id: int, wanted: Needs) -> list[Batch]:
    """The batches of ``whole`` that hold ``piece``: on one grid, so that different pieces share them."""
    first, last = piece.start // BATCH_BLOCKS, (piece.end - 1) // BATCH_BLOCKS
    return [
        Batch(
            endpoint,
            chain_id,
            wanted,
            max(place * BATCH_BLOCKS, whole.start),
            min((place + 1) * BATCH_BLOCKS, whole.end),
        )
        for place in range(first, last + 1)
    ]


def runs(batches: Sequence[Batch]) -> Iterator[list[Batch]]:
    """Batches that follow one another, together, but not more than are held at once as answers."""
    run: list[Batch] = []
    for batch in batches:
        if run and (run[-1].end != batch.start or len(run) == _RUN_BATCHES):
            yield run
            run = []
        run.append(batch)
    if run:
        yield run


class Shared:
    """Evidence of one process's ranges: where several datasets of a chain need it, it is fetched and proven once.

    Which do is learned from who asks: the streams of a run begin together and are over the same blocks at the
    same time (``dagster_instance/executor.py``). It is kept until all of them have used it, or while there is room.
    """

    def __init__(self, room: int = SHARED_BYTES, batches: int = SHARED_BATCHES) -> None:
        self._kept: Once[Batch, Parts] = Once(room, least=batches, most=max(room, SHARED_MOST_BYTES))
        self._lock = threading.Lock()
        self._datasets: dict[int, frozenset[str]] = {}

    def expect(self, chain_id: int, dataset: str) -> None:
        """A dataset of a chain whose rows will be proven."""
        with self._lock:
            self._datasets[chain_id] = self._datasets.get(chain_id, frozenset()) | {dataset}

    def wanted(self, chain_id: int) -> Needs | None:
        """What all datasets of a chain need together; None while there is but one."""
        found = [needs(dataset) for dataset in self._datasets.get(chain_id, ())]
        if len(found) < 2:
            return None
        return Needs(*(any(getattr(each, name) for each in found) for name in Needs.__slots__))

    def get(self, batches: list[Batch], work: Callable[[list[Batch]], Iterable[tuple[Parts, int]]]) -> list[Parts]:
        """The evidence of each batch."""
        return self._kept.get(batches, work, SHARED_SECONDS)

    def passed(self, batches: Sequence[Batch], piece: BlockRange) -> None:
        """One dataset has what it needs of a piece; what all datasets of the chain have passed is not kept.

        A dataset that passes twice, as after a failure, may have another ask anew.
        """
        for batch, parts in self._kept.found(batches):
            with self._lock:
                parts.passed += min(batch.end, piece.end) - max(batch.start, piece.start)
                left = len(self._datasets[batch.chain_id]) * (batch.end - batch.start) - parts.passed
            if left <= 0:
                self._kept.forget([batch])

    def forget(self, batches: Iterable[Batch]) -> None:
        """Ask anew for these."""
        self._kept.forget(batches)
