"""Structural verification: rows must obey the rules any correct answer obeys, table by table, in order.

Pure and streaming. What it proves is structure, not truth: a node that leaves out whole logs passes.
Proof against the chain's own commitments is level ``full`` and is not built yet; a stream that asks
for it is checked structurally, and its manifest says so.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import Dataset
from trace_dagster.errors import VerificationFailed

_DENSE_INDEX = {"transactions": "transaction_index", "logs": "log_index"}
"""Datasets that hold every item of a block, so that the index counts 0, 1, 2, ..."""


class StructuralCheck:
    """Feed each table once, in order, then call :meth:`finish`.

    Raises VerificationFailed with the first block that is wrong.
    """

    def __init__(self, dataset: Dataset, block_range: BlockRange, chain_id: int, *, asked: str) -> None:
        self._dataset = dataset
        self._range = block_range
        self._chain_id = chain_id
        self._asked = asked
        self._rows = 0
        self._last: tuple[int, int] | None = None
        self._boundary: dict[str, str] = {}
        self._next_parent: bytes | None = None

    def feed(self, table: pa.Table) -> None:
        """Check the next rows."""
        if self._asked == "off" or not table.num_rows:
            return
        table = table.combine_chunks()
        self._check_chain(table)
        self._check_range(table)
        if self._dataset.name == "blocks":
            self._check_blocks(table)
        elif self._dataset.name == "geth_calls":
            self._check_unique(table)
        elif len(self._dataset.natural_key) == 2:
            self._check_order(table, self._dataset.natural_key[1])
        self._rows += table.num_rows

    def finish(self) -> dict[str, Any]:
        """Check the range as a whole; returns the evidence that goes into the manifest."""
        if self._asked == "off":
            return {"asked": "off", "level": "off", "checks": []}
        if self._dataset.name == "blocks" and self._rows != len(self._range):
            raise VerificationFailed(
                "the answer does not hold one row per block", expected=len(self._range), got=self._rows
            )
        return {
            "asked": self._asked,
            "level": "structural",
            "checks": self._checks(),
            "boundary": self._boundary,
        }

    def _checks(self) -> list[str]:
        checks = ["chain_id", "block_number in range"]
        if self._dataset.name == "blocks":
            return [*checks, "one row per block", "parent_hash links rows"]
        if self._dataset.natural_key:
            checks.append("unique natural key")
        if self._dataset.name in _DENSE_INDEX:
            checks.append(f"{_DENSE_INDEX[self._dataset.name]} contiguous per block")
        return checks

    def _check_chain(self, table: pa.Table) -> None:
        if "chain_id" not in table.column_names:
            return
        span = pc.min_max(table["chain_id"]).as_py()
        if span != {"min": self._chain_id, "max": self._chain_id}:
            raise VerificationFailed("rows are of another chain", expected=self._chain_id, got=span["max"])

    def _check_range(self, table: pa.Table) -> None:
        numbers = table["block_number"]
        if numbers.null_count:
            raise VerificationFailed("a row has no block_number", range=self._range)
        span = pc.min_max(numbers).as_py()
        if span["min"] < self._range.start or span["max"] >= self._range.end:
            wrong = span["min"] if span["min"] < self._range.start else span["max"]
            raise VerificationFailed("a row lies outside the range", block=wrong, range=self._range)

    def _check_blocks(self, table: pa.Table) -> None:
        numbers = table["block_number"].to_pylist()
        expected = self._range.start + self._rows
        for offset, number in enumerate(numbers):
            if number != expected + offset:
                raise VerificationFailed("a block is missing or doubled", expected=expected + offset, got=number)
        parents, hashes = table["parent_hash"].to_pylist(), table["block_hash"].to_pylist()
        links = [self._next_parent, *hashes[:-1]]
        for number, parent, link in zip(numbers, parents, links, strict=True):
            if link is not None and parent != link:
                raise VerificationFailed("parent_hash is not the hash of the block before", block=number)
        if not self._rows:
            self._boundary["first_parent_hash"] = "0x" + parents[0].hex()
        self._boundary["last_block_hash"] = "0x" + hashes[-1].hex()
        self._next_parent = hashes[-1]

    def _check_order(self, table: pa.Table, index: str) -> None:
        blocks = table["block_number"].cast(pa.int64()).to_pylist()
        indices = table[index].cast(pa.int64()).to_pylist()
        dense = self._dataset.name in _DENSE_INDEX
        last_block, last_index = self._last or (-1, -1)
        for block, position in zip(blocks, indices, strict=True):
            expected = last_index + 1 if block == last_block else 0
            if block < last_block or (block == last_block and position <= last_index):
                raise VerificationFailed(f"rows are not in order of block_number, {index}", block=block)
            if dense and position != expected:
                raise VerificationFailed(f"{index} has a gap", block=block, expected=expected, got=position)
            last_block, last_index = block, position
        self._last = (last_block, last_index)

    def _check_unique(self, table: pa.Table) -> None:
        key = list(self._dataset.natural_key)
        groups = table.group_by(key).aggregate([([], "count_all")])
        if groups.num_rows != table.num_rows:
            raise VerificationFailed("a natural key stands twice", key=",".join(key))
        first = table["block_number"][0].as_py()
        if self._last is not None and first <= self._last[0]:
            raise VerificationFailed("tables are not in block order", block=first)
        self._last = (pc.max(table["block_number"]).as_py(), 0)
