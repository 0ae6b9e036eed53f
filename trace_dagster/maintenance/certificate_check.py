"""The check of a certificate by a person who has only the statement and the Parquet files.

Each file is hashed once. Ranges that lie in the same file are read from it in block order, so no row group is decoded
once per range.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.datasets.chains import chain_of
from trace_dagster.digest import ContentDigest
from trace_dagster.errors import TraceError, VerificationFailed
from trace_dagster.maintenance.certificate import Certificate, CertifiedRange, gaps
from trace_dagster.maintenance.certified_rows import CertifiedRows, Files
from trace_dagster.maintenance.stored_times import TIME_COLUMNS, same_times
from trace_dagster.verify.check import PIECE_BLOCKS, Proof, check, merge
from trace_dagster.verify.commitments.receipts import has_status
from trace_dagster.verify.model import Evidence
from trace_dagster.verify.rows.arrow import HEADER_COLUMNS, RECEIPT_COLUMNS, headers_of, receipts_of_tables

_ROOT_COLUMNS = {
    "logs": (
        "block_number", "block_hash", "transaction_index", "log_index", "transaction_hash", "address", "topic0",
        "topic1", "topic2", "topic3", "data",
    ),
    "blocks": HEADER_COLUMNS,
    "transactions": RECEIPT_COLUMNS,
}  # fmt: skip
"""Columns of each dataset that are needed to compute a receipts root."""


def check_certificate(
    statement: Certificate,
    folder: Path,
    trusted: tuple[int, bytes] | None,
    done: Callable[[], None] = lambda: None,
) -> tuple[list[str], dict[str, int]]:
    """Compare a statement with the Parquet files in ``folder``, which may lie in subfolders.

    Return the differences, and for each kind of check the number of blocks that it covered. ``trusted`` is a block
    number and its hash from a source that the caller trusts. ``done`` is called after each range.
    """
    wrong = list(_structure(statement))
    checked = {"rows": 0, "receipts roots": 0, "times": 0}
    files = Files(statement, folder)
    for ranges in _by_key(statement).values():
        with CertifiedRows(ranges, files) as rows:
            for each in ranges:
                try:
                    _check_range(each, rows, statement.chain_id, trusted)
                    checked["rows"] += len(each.span)
                except TraceError as error:
                    wrong.append(f"{each.dataset_key} {each.span}: {error}")
                done()
    if trusted is not None and not any(trusted[0] in each.span for each in _of(statement, "blocks")):
        wrong.append("the trusted block is in no range of blocks")
    if not wrong:
        checked["receipts roots"] = _check_roots(statement, files, wrong)
        checked["times"] = _check_times(statement, files, wrong)
    return wrong, checked


def _structure(statement: Certificate) -> Iterator[str]:
    """Yield what is wrong with the statement itself."""
    for key, gap in gaps(statement.spans, statement.ranges):
        yield f"{key}: no range covers {gap}"
    for ranges in _by_key(statement).values():
        for before, after in pairwise(ranges):
            if after.range_start < before.range_end:
                yield f"{after.dataset_key} {after.span}: another range covers some of its blocks"
    yield from _boundaries(statement)
    if not statement.wanted or not statement.ranges:
        yield "the statement states nothing"


def _by_key(statement: Certificate) -> dict[str, list[CertifiedRange]]:
    """Return the ranges by dataset key, in block order."""
    found: dict[str, list[CertifiedRange]] = defaultdict(list)
    for each in sorted(statement.ranges, key=lambda each: (each.dataset_key, each.range_start)):
        found[each.dataset_key].append(each)
    return found


def _of(statement: Certificate, name: str, columns: Sequence[str] = ()) -> list[CertifiedRange]:
    """Return the ranges, in block order, of the first dataset key of Cryo's dataset that has all of these columns."""
    for ranges in _by_key(statement).values():
        if ranges[0].cryo_dataset_name == name:
            found = [each for each in ranges if {column for column, _ in each.columns}.issuperset(columns)]
            if found:
                return found
    return []


def _boundaries(statement: Certificate) -> Iterator[str]:
    """Yield an error for each block for which two datasets store different hashes."""
    shown: dict[int, str] = {}
    for each in statement.ranges:
        for block, found in (
            (each.range_start - 1, each.first_parent_hash),
            (each.range_end - 1, each.last_block_hash),
        ):
            if found is not None and shown.setdefault(block, found) != found:
                yield f"{each.dataset_key} {each.span}: block {block} is {found} here and {shown[block]} elsewhere"


def _check_range(each: CertifiedRange, rows: CertifiedRows, chain_id: int, trusted: tuple[int, bytes] | None) -> None:
    """Compare a range's rows with its digest, and check their structure."""
    known = dataset(each.cryo_dataset_name)
    schema = known.schema([name for name, _ in each.columns])
    rows.require_schema(each, schema)
    digest = ContentDigest(schema)
    proofs: list[Proof] = []
    for piece in each.span.split(PIECE_BLOCKS):
        table = rows.take(each, piece)
        digest.update(table)
        proofs.append(check(known, table, piece, chain_id, None))
        if each.cryo_dataset_name == "blocks" and trusted is not None and trusted[0] in piece:
            _check_trusted(table, *trusted)
    if digest.hexdigest() != each.content_digest:
        raise VerificationFailed("the rows are not the certified ones")
    proof = merge(proofs)
    if each.cryo_dataset_name == "blocks" and each.last_block_hash is not None:
        found = [
            None if value is None else f"0x{value.hex()}" for value in (proof.first_parent_hash, proof.last_block_hash)
        ]
        if found != [each.first_parent_hash, each.last_block_hash]:
            raise VerificationFailed(
                "the rows' boundary hashes are not the certified ones", expected=each.last_block_hash
            )


def _check_trusted(table: pa.Table, block: int, wanted: bytes) -> None:
    if "block_hash" not in table.column_names:
        raise VerificationFailed("the rows have no hash of the trusted block", block=block)
    rows = table.filter(pc.equal(table["block_number"], block))
    found = rows["block_hash"][0].as_py() if rows.num_rows else b""
    if found != wanted:
        raise VerificationFailed(
            "the trusted block has another hash in the rows",
            block=block,
            expected=f"0x{wanted.hex()}",
            got=f"0x{found.hex()}",
        )


def _compared(
    ranges: Sequence[CertifiedRange], compare: Callable[[CertifiedRange, BlockRange], bool], wrong: list[str]
) -> int:
    """Run a check piece by piece and return the number of blocks for which there was something to compare.

    Differences are added to ``wrong``.
    """
    count = 0
    for each in ranges:
        for piece in each.span.split(PIECE_BLOCKS):
            try:
                count += len(piece) if compare(each, piece) else 0
            except TraceError as error:
                wrong.append(f"{each.dataset_key} {piece}: {error}")
    return count


def _check_roots(statement: Certificate, files: Files, wrong: list[str]) -> int:
    """Compare receipts roots and blooms where blocks, transactions and logs of the same blocks have the columns."""
    logs, blocks, transactions = (
        CertifiedRows(_of(statement, name, columns), files, columns) for name, columns in _ROOT_COLUMNS.items()
    )
    with logs, blocks, transactions:
        compare = partial(_same_roots, logs, blocks, transactions, statement.chain_id)
        return _compared(logs.ranges, compare, wrong)


def _same_roots(
    logs: CertifiedRows,
    blocks: CertifiedRows,
    transactions: CertifiedRows,
    chain_id: int,
    each: CertifiedRange,
    piece: BlockRange,
) -> bool:
    """Compute the receipts root of each block from the rows and compare it with the block's header.

    Return False without comparing if the statement has no blocks or transactions for the piece, or if the chain had no
    receipt status yet. Raises VerificationFailed if a root differs.
    """
    if not has_status(chain_id, piece):
        return False
    found, headers, receipts = logs.take(each, piece), blocks.covering(piece), transactions.covering(piece)
    if headers is None or receipts is None:
        return False
    evidence = Evidence(headers_of(headers, piece), None, receipts_of_tables(receipts, None, piece, chain_of(chain_id)))
    check(dataset("logs"), found, piece, chain_id, evidence)
    return True


def _check_times(statement: Certificate, files: Files, wrong: list[str]) -> int:
    """Compare the times of each dataset's rows with those of the blocks, where the statement has them."""
    sources, count = _of(statement, "blocks", TIME_COLUMNS), 0
    for ranges in _by_key(statement).values():
        mine = [each for each in ranges if {name for name, _ in each.columns}.issuperset(TIME_COLUMNS)]
        if sources and mine and mine[0].cryo_dataset_name != "blocks":
            with (
                CertifiedRows(mine, files, TIME_COLUMNS) as rows,
                CertifiedRows(sources, files, TIME_COLUMNS) as blocks,
            ):
                count += _compared(mine, partial(_same_times, rows, blocks), wrong)
    return count


def _same_times(rows: CertifiedRows, blocks: CertifiedRows, each: CertifiedRange, piece: BlockRange) -> bool:
    return same_times(rows.take(each, piece), blocks.covering(piece), piece)
