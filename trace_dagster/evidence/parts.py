"""The parts of a piece's evidence: headers, transactions and receipts, each with one entry per block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.chains import COMPILED
from trace_dagster.errors import Part, UnknownForm
from trace_dagster.verify.check import EvidenceNeeds
from trace_dagster.verify.commitments import prove
from trace_dagster.verify.model import Header, LazySequence, ProvenRows, Receipt, ReceiptFields, Transaction
from trace_dagster.verify.rows import arrow

PARTS = ("headers", "transactions", "receipts")


@dataclass(slots=True)
class EvidenceParts:
    """Evidence of consecutive blocks. A part is None if it is not known, or not needed."""

    headers: Sequence[Header] | None = None
    transactions: Sequence[Sequence[Transaction]] | None = None
    receipts: Sequence[Sequence[Receipt]] | None = None
    proven: Sequence[Sequence[ReceiptFields] | None] | None = None
    """The receipts in encoded form, if they are known to give their headers' receipts roots."""
    unknown: dict[int, dict[Part, UnknownForm]] = field(default_factory=dict)
    """Parts of blocks, by number, that no proof covers, because their form is not known: they hold what the node
    claims, or nothing.
    """
    weight: int = 0
    """Bytes in memory, for the cache: of the columns, or of the answers that the parts were read from."""
    passed: int = 0
    """Blocks that datasets no longer need, counted for each dataset; used by the cache."""
    rows: ProvenRows | None = None
    """Transactions and logs as tables, if they were proven in columns. The other parts are then made when needed."""

    @classmethod
    def in_columns(cls, headers: Sequence[Header], rows: ProvenRows) -> EvidenceParts:
        """Return the parts of blocks that were proven in columns."""
        piece = BlockRange(headers[0].number, headers[-1].number + 1)
        receipts = LazySequence(
            len(headers), lambda: arrow.receipts_of_tables(rows.transactions, rows.logs, piece, COMPILED)
        )
        return cls(
            headers=headers,
            transactions=LazySequence(len(headers), lambda: arrow.transactions_of(rows.transactions, piece, COMPILED)),
            receipts=receipts,
            proven=LazySequence(len(headers), lambda: [list(prove.receipt_fields(inside)) for inside in receipts]),
            rows=rows,
        )

    @property
    def is_empty(self) -> bool:
        """True if no part is known."""
        return all(getattr(self, name) is None for name in PARTS)

    def leave_open(self, unknown: UnknownForm) -> None:
        """Record that a part of a block is not proven."""
        self.unknown.setdefault(unknown.block, {})[unknown.part] = unknown

    def is_open(self, part: Part, block: int) -> bool:
        """Return whether a part of a block is not proven."""
        return part in self.unknown.get(block, {})

    def slice(self, start: int, end: int) -> EvidenceParts:
        """Return the parts of some of the blocks, counted from the first. They must have headers if a part is open."""
        if self.rows is not None and self.headers is not None:
            return EvidenceParts.in_columns(self.headers[start:end], self.rows.slice_blocks(start, end))
        some = EvidenceParts()
        for name in (*PARTS, "proven"):
            if (part := getattr(self, name)) is not None:
                setattr(some, name, part[start:end])
        if self.unknown:
            numbers = {header.number for header in some.headers or ()}
            some.unknown = {block: parts for block, parts in self.unknown.items() if block in numbers}
        return some

    def only(self, needs: EvidenceNeeds) -> EvidenceParts:
        """Return these parts without those that are not needed. Headers stay."""
        return EvidenceParts(
            headers=self.headers,
            transactions=self.transactions if needs.transactions else None,
            receipts=self.receipts if needs.receipts else None,
            proven=self.proven if needs.receipts else None,
            rows=self.rows,
            unknown=self.unknown,
        )


def joined(found: Sequence[EvidenceParts]) -> EvidenceParts:
    """Return the parts of consecutive blocks as one."""
    rows = [each.rows for each in found if each.rows is not None]
    if len(rows) == len(found):
        headers = [header for each in found for header in each.headers or ()]
        return EvidenceParts.in_columns(headers, ProvenRows.concat(rows))
    whole = EvidenceParts()
    for name in (*PARTS, "proven"):
        if getattr(found[0], name) is not None:
            setattr(whole, name, list(chain.from_iterable(getattr(each, name) for each in found)))
    for each in found:
        whole.unknown |= each.unknown
    return whole
