"""Structural checks: rules that any correct answer obeys. They do not prove that the values are true."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import Dataset
from trace_dagster.errors import VerificationFailed
from trace_dagster.verify.mismatch import mismatch
from trace_dagster.verify.rows.arrow import block_at, first, present, require_dense, require_unsigned, spans, unequal
from trace_dagster.verify.rows.calltree import SEPARATORS, require_shape
from trace_dagster.verify.rows.uint256_columns import check_input_counts, check_uint256_columns

DENSE_INDEX = {"transactions": "transaction_index", "logs": "log_index"}
"""Datasets that have every item of a block, so that the index counts 0, 1, 2, ... in each block."""


def check_structure(dataset: Dataset, table: pa.Table, piece: BlockRange, chain_id: int) -> list[str]:
    """Check one piece and return the names of the checks done. They depend on the columns, not on the rows.

    Raises VerificationFailed with the first wrong block.
    """
    done = ["block_number in range", "rows in block order"]
    require_unsigned(table)
    slices = spans(table, piece, one_each=dataset.name == "blocks")
    if "chain_id" in table.column_names:
        _check_chain(table, chain_id)
        done.append("chain_id")
    if dataset.name == "blocks":
        done.append("one row per block")
        done += _check_links(table)
    elif dataset.natural_key:
        done += _check_key(dataset, table, slices)
    if dataset.name in SEPARATORS and "trace_address" in table.column_names:
        require_shape(table, SEPARATORS[dataset.name])
        done.append("call frames form one tree per transaction")
    if dataset.name == "transactions" and "transaction_hash" in table.column_names:
        _check_unique(table, ["transaction_hash"])
        done.append("transaction_hash unique")
    return sorted([*done, *_check_values(table)])


def _check_values(table: pa.Table) -> list[str]:
    # The name of this check is stored in manifests, so it stays.
    done = [f"faces of {base} agree" for base in check_uint256_columns(table)]
    if check_input_counts(table):
        done.append("n_input counts the input")
    return done


def _check_chain(table: pa.Table, chain_id: int) -> None:
    found = present(table, "chain_id")
    row = unequal(found, chain_id)
    if row is not None:
        raise mismatch("rows are of another chain", block_at(table, row), chain_id, found[row].as_py())


def _check_links(table: pa.Table) -> list[str]:
    if not {"parent_hash", "block_hash"} <= set(table.column_names):
        return []
    parents, hashes = present(table, "parent_hash")[1:], present(table, "block_hash")[:-1]
    row = unequal(parents, hashes)
    if row is not None:
        raise mismatch(
            "parent_hash is not the hash of the block before",
            block_at(table, row + 1),
            hashes[row].as_py(),
            parents[row].as_py(),
        )
    return ["parent_hash links rows"]


def _check_key(dataset: Dataset, table: pa.Table, slices: list[slice]) -> list[str]:
    if dataset.name in DENSE_INDEX:
        require_dense(table, slices, DENSE_INDEX[dataset.name])
        return ["unique natural key", f"{DENSE_INDEX[dataset.name]} contiguous per block"]
    if dataset.name in SEPARATORS and "trace_address" in table.column_names:
        return ["unique natural key"]  # require_shape refuses a frame that occurs twice
    if len(dataset.natural_key) != 2:
        _check_unique(table, list(dataset.natural_key))
        return ["unique natural key"]
    index = dataset.natural_key[1]
    blocks, positions = present(table, "block_number"), present(table, index)
    in_block = pc.equal(blocks[1:], blocks[:-1])
    row = first(pc.and_(in_block, pc.less_equal(positions[1:], positions[:-1])))
    if row is not None:
        raise mismatch(
            f"rows are not in order of block_number, {index}",
            blocks[row].as_py(),
            f"above {positions[row].as_py()}",
            positions[row + 1].as_py(),
        )
    return ["unique natural key"]


def _check_unique(table: pa.Table, key: list[str]) -> None:
    columns = pa.table({name: present(table, name) for name in key})
    if columns.group_by(key, use_threads=False).aggregate([]).num_rows == table.num_rows:
        return
    seen: set[tuple[object, ...]] = set()
    for row, values in enumerate(zip(*[column.to_pylist() for column in columns.columns], strict=True)):
        if values in seen:
            raise VerificationFailed("a key occurs twice", block=block_at(table, row), key=",".join(key))
        seen.add(values)
