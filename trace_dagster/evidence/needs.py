"""Which evidence a dataset needs, and which node answers that costs."""

from __future__ import annotations

from collections.abc import Collection

from trace_dagster.datasets.catalogue import Dataset
from trace_dagster.datasets.levels import CheckLevel
from trace_dagster.verify.check import EvidenceNeeds, evidence_needed

NOTHING = EvidenceNeeds(headers=False, transactions=False, receipts=False)
ONLY_HEADERS = EvidenceNeeds(headers=True, transactions=False, receipts=False)


def is_provable(dataset_name: str) -> bool:
    """Return whether the chain commits to anything in the rows of a dataset."""
    return evidence_needed(dataset_name) != NOTHING


def most_calls(dataset_name: str, blocks: int) -> int:
    """Return the JSON-RPC calls for the evidence of one piece, if committed rows hold none of it and nothing fails."""
    wanted = evidence_needed(dataset_name)
    per_block = (wanted.headers or wanted.transactions) + wanted.receipts
    return 1 + per_block * blocks if per_block else 0


def row_needs(dataset_name: str) -> EvidenceNeeds:
    """Return the evidence that rows of a dataset are built from, in addition to what their proof needs.

    Logs need the transactions for their hashes, which receipts only claim.
    """
    if dataset_name == "blocks":
        return EvidenceNeeds(headers=True, transactions=False, receipts=False, sizes=True)
    return EvidenceNeeds(headers=True, transactions=True, receipts=True)


def most_row_calls(dataset_name: str, blocks: int) -> int:
    """Return what :func:`most_calls` does for a stream whose rows are built from evidence."""
    return 1 + (1 + row_needs(dataset_name).receipts) * blocks


def fetches_times(dataset_name: str, columns: Collection[str], *, proven: bool) -> bool:
    """Return whether headers are fetched for block_timestamp alone: neither evidence nor rows have the time.

    ``columns`` are those that the engine extracts; ``proven`` is whether rows are compared with the chain where it
    commits to anything in them.
    """
    return not (proven and is_provable(dataset_name)) and "timestamp" not in columns


def fetched(dataset: Dataset, columns: Collection[str], level: CheckLevel) -> frozenset[str]:
    """Return what a stream fetches of every block, by Cryo or as evidence: whole ``blocks``, ``receipts``.

    ``level`` is the level at which its rows are checked.
    """
    wanted = evidence_needed(dataset.name) if level == "full" else NOTHING
    blocks = wanted.transactions or dataset.name == "transactions"
    receipts = wanted.receipts or dataset.takes_receipts(columns)
    return frozenset({"blocks"} if blocks else ()) | frozenset({"receipts"} if receipts else ())


def all_needs(needs: Collection[EvidenceNeeds]) -> EvidenceNeeds:
    """Return what several datasets need together."""
    return EvidenceNeeds(*(any(getattr(each, name) for each in needs) for name in EvidenceNeeds.__slots__))
