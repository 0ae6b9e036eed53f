"""Evidence from committed rows: what proven ``blocks`` and ``transactions`` of the same chain hold of a piece."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.chains import chain_of
from trace_dagster.errors import UnknownFormat, VerificationFailed
from trace_dagster.evidence.committed_rows import CommittedRows
from trace_dagster.evidence.parts import EvidenceParts
from trace_dagster.verify.check import EvidenceNeeds
from trace_dagster.verify.commitments.receipts import has_status
from trace_dagster.verify.model import Header
from trace_dagster.verify.rows import arrow
from trace_dagster.verify.rows.arrow import HEADER_COLUMNS, RECEIPT_COLUMNS, TRANSACTION_COLUMNS

SOURCES = ("blocks", "transactions")
"""Datasets whose committed rows serve as evidence."""

_TOKEN_TRANSFERS = ("erc20_transfers", "erc721_transfers")
"""Read from the logs of receipts, which committed transactions do not hold. Other datasets bring logs or need none."""


class CommittedSource:
    """Answers with committed rows. Rows that contradict each other, because someone altered them, count as missing."""

    def __init__(self, rows: CommittedRows, chain_id: int, dataset_name: str) -> None:
        """``dataset_name`` is the dataset that the evidence is for: its own rows are no evidence for it."""
        self._rows = rows
        self._chain_id = chain_id
        self._dataset_name = dataset_name

    def parts(self, piece: BlockRange, needs: EvidenceNeeds, headers: Sequence[Header] | None = None) -> EvidenceParts:
        """Return the needed parts that committed rows hold for every block of the piece."""
        del headers
        parts = EvidenceParts()
        with suppress(VerificationFailed, UnknownFormat):
            if needs.headers and self._dataset_name != "blocks":
                blocks = self._rows.table("blocks", piece, HEADER_COLUMNS)
                parts.headers = arrow.headers_of(blocks, piece) if blocks is not None else None
            if self._dataset_name != "transactions":
                self._add_transactions(parts, piece, needs)
        return parts

    def versions(self, piece: BlockRange) -> tuple[UUID, ...]:
        """Return the dataset versions that hold the headers of a piece."""
        return tuple(self._rows.versions("blocks", piece, HEADER_COLUMNS))

    def _add_transactions(self, parts: EvidenceParts, piece: BlockRange, needs: EvidenceNeeds) -> None:
        if needs.receipts and self._dataset_name not in _TOKEN_TRANSFERS and _hold_receipts(self._chain_id, piece):
            rows = self._rows.table("transactions", piece, RECEIPT_COLUMNS)
            parts.receipts = (
                arrow.receipts_of_tables(rows, None, piece, chain_of(self._chain_id)) if rows is not None else None
            )
        if needs.transactions:
            rows = self._rows.table("transactions", piece, TRANSACTION_COLUMNS)
            parts.transactions = (
                arrow.transactions_of(rows, piece, chain_of(self._chain_id)) if rows is not None else None
            )


def _hold_receipts(chain_id: int, piece: BlockRange) -> bool:
    """Return whether rows of transactions hold what a receipt needs, but for its logs.

    They lack the state roots of receipts before Byzantium, and the fields that other transaction types add.
    """
    return not chain_of(chain_id).types and has_status(chain_id, piece)
