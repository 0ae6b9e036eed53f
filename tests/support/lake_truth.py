"""Compares a lake with a devchain's blocks: every row must be there one time, with the right values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trace_dagster.devchain.blocks import DevBlock
from trace_dagster.devchain.chain import DevChain
from trace_dagster.registry.catalog import Catalog, LakeFile
from trace_dagster.registry.connection import Database
from trace_dagster.store.objects import ObjectStore

Row = tuple[Any, ...]

COLUMNS = {
    "blocks": ["block_number", "block_hash", "parent_hash", "timestamp", "gas_used"],
    "transactions": ["block_number", "transaction_index", "transaction_hash", "value_binary", "gas_used", "success"],
    "logs": ["block_number", "log_index", "transaction_hash", "address", "topic0", "data"],
    "geth_calls": ["block_number", "transaction_index", "transaction_hash"],
}
"""These are compared as whole rows with their number, so that a duplicate range is found like a missing one."""


def differences(database: Database, store: ObjectStore, chain: DevChain, end: int) -> dict[str, str]:
    """Return the differences by dataset; empty if all datasets of ``COLUMNS`` equal blocks ``[0, end)`` of the
    chain.
    """
    wrong = {}
    visible = {found.dataset: files for found, files in Catalog(database).lake() if found.kind == "stream"}
    for dataset, columns in COLUMNS.items():
        if dataset not in visible:
            wrong[dataset] = "nothing of it is visible"
            continue
        found = Counter(_rows(store, visible[dataset], columns))
        expected = Counter(row for block in chain.blocks[:end] for row in EXPECTED[dataset](block))
        if found != expected:
            wrong[dataset] = _difference(found, expected)
    return wrong


def _rows(store: ObjectStore, files: Iterable[LakeFile], columns: list[str]) -> Iterable[Row]:
    def read(file: LakeFile) -> pa.Table:
        rows = pq.read_table(pa.BufferReader(store.get(file.key)[0]), columns=columns)
        for masked in file.masked:
            outside = (pc.field("block_number") < masked.start) | (pc.field("block_number") >= masked.end)
            rows = rows.filter(outside)
        return rows

    with ThreadPoolExecutor(8) as pool:
        for table in pool.map(read, files):
            yield from zip(*(table[column].to_pylist() for column in columns), strict=True)


def _difference(found: Counter[Row], expected: Counter[Row]) -> str:
    missing, extra = expected - found, found - expected
    blocks = sorted({row[0] for row in [*missing, *extra]})
    shown = next(iter(extra), None), next(iter(missing), None)
    return (
        f"{found.total()} rows, expected {expected.total()}: {missing.total()} missing, {extra.total()} too many or"
        f" wrong, in {len(blocks)} blocks from {blocks[0]}; first found {shown[0]}, first expected {shown[1]}"
    )


def _block_rows(block: DevBlock) -> list[Row]:
    return [(block.number, block.hash, block.parent_hash, block.timestamp, block.gas_used)]


def _transaction_rows(block: DevBlock) -> list[Row]:
    return [
        (block.number, index, made.hash, made.call.value.to_bytes(32, "big"), made.gas_used, made.call.success)
        for index, made in enumerate(block.transactions)
    ]


def _log_rows(block: DevBlock) -> list[Row]:
    logs = [(made.hash, log) for made in block.transactions for log in made.logs]
    return [
        (block.number, index, identity, log.address, log.topics[0] if log.topics else None, log.data)
        for index, (identity, log) in enumerate(logs)
    ]


def _call_rows(block: DevBlock) -> list[Row]:
    return [
        (block.number, index, made.hash)
        for index, made in enumerate(block.transactions)
        for _ in range(1 + len(made.call.frames))
    ]


EXPECTED: dict[str, Callable[[DevBlock], list[Row]]] = {
    "blocks": _block_rows,
    "transactions": _transaction_rows,
    "logs": _log_rows,
    "geth_calls": _call_rows,
}
