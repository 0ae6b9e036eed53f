"""The cast of proven rows to the stored types: no value changes, and one that does not fit is one error."""

import dataclasses
from decimal import Decimal

import pyarrow as pa
import pytest

from tests.support.proven import devchain
from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.decoder.tables import table as decoded
from trace_dagster.errors import ExtractionFailed, VerificationFailed
from trace_dagster.extraction import lake_rows as module
from trace_dagster.extraction.lake_rows import lake_rows
from trace_dagster.verify.check import Lowered, Proof

PIECE = BlockRange(10, 12)
FULL = Proof("full", (), ("from_address",), 10, 2, None, None, levels={"full": 2})
LOWERED = dataclasses.replace(
    FULL, lowered=(Lowered(11, 1, "structural", "unknown"),), levels={"full": 1, "structural": 1}
)
LOGS = dataset("logs")
TRANSACTIONS = dataset("transactions")


def times(piece):
    """Return a time for each block."""
    return pa.array(range(len(piece)), pa.int64())


def rows(name, proof=FULL, **columns):
    """Return two rows of dataset ``name``, in blocks 10 and 11, cast."""
    known = dataset(name)
    names = ["block_number", *columns]
    table = pa.table({"block_number": [10, 11], **columns}, known.engine_schema(names))
    return lake_rows(known, table, names, PIECE, proof, times(PIECE))


@pytest.mark.parametrize(
    "name", ["blocks", "transactions", "logs", "erc20_transfers", "erc721_transfers", "geth_calls"]
)
def test_no_value_changes(name):
    found, known = devchain(), dataset(name)
    table = found.tables[name]
    cast = lake_rows(known, table, list(known.all_columns), found.piece, None, times(found.piece))
    assert cast.schema == known.schema(list(known.all_columns))
    assert cast.to_pylist() == table.to_pylist()


def test_rows_of_the_decoder_are_cast_alike():
    found = devchain()
    wanted = list(LOGS.all_columns)
    one = lake_rows(
        LOGS, decoded(LOGS, wanted, found.chain_id, found.evidence), wanted, found.piece, None, times(found.piece)
    )
    assert one.equals(lake_rows(LOGS, found.tables["logs"], wanted, found.piece, None, times(found.piece)))


def test_columns_that_only_the_proof_reads_are_dropped():
    found = devchain()
    cast = lake_rows(LOGS, found.tables["logs"], ["block_number", "data"], found.piece, None, times(found.piece))
    assert cast.column_names == ["block_number", "data"]


def test_slices_and_chunks_and_no_rows():
    found, wanted = devchain(), list(LOGS.all_columns)
    table = pa.concat_tables([found.tables["logs"].slice(1, 3), found.tables["logs"].slice(5)])
    assert lake_rows(LOGS, table, wanted, found.piece, None, times(found.piece)).to_pylist() == table.to_pylist()
    assert lake_rows(LOGS, table.slice(0, 0), wanted, found.piece, None, times(found.piece)).num_rows == 0


@pytest.mark.parametrize(
    ("name", "column", "good", "wrong", "shown"),
    [
        ("logs", "address", bytes(20), bytes(19), "0x" + "00" * 19),
        ("logs", "topic0", bytes(32), b"", "0x"),
        ("transactions", "gas_limit", (1 << 63) - 1, 1 << 63, str(1 << 63)),
        ("transactions", "nonce", None, (1 << 64) - 1, str((1 << 64) - 1)),
    ],
)
def test_a_value_that_does_not_fit_names_column_block_and_value(name, column, good, wrong, shown):
    assert rows(name, **{column: [good, None]})[column].to_pylist() == [good, None]
    with pytest.raises(ExtractionFailed, match=f"column {column}.* list the other columns under `columns`") as failed:
        rows(name, **{column: [good, wrong]})
    assert failed.value.facts == {"block": 11, "column": column, "value": shown}


@pytest.mark.parametrize("proof", [None, LOWERED, dataclasses.replace(FULL, levels={"structural": 2})])
@pytest.mark.parametrize(("name", "column", "wrong"), [("logs", "address", b"a"), ("transactions", "nonce", 1 << 63)])
def test_a_claimed_value_does_not_end_the_stream(proof, name, column, wrong):
    with pytest.raises(VerificationFailed, match=f"claims a {column}") as failed:
        rows(name, proof, **{column: [None, wrong]})
    assert failed.value.facts["block"] == 11


def test_an_unproven_column_of_proven_rows_does_not_end_the_stream():
    with pytest.raises(VerificationFailed, match="claims a from_address"):
        rows("transactions", FULL, from_address=[bytes(20), bytes(21)])


def test_a_proven_block_before_a_lowered_one_is_still_proven():
    with pytest.raises(ExtractionFailed):
        rows("transactions", LOWERED, nonce=[1 << 63, 0])


def test_fees_are_decimal():
    cast = rows("transactions", gas_price=[(1 << 64) - 1, None])
    assert cast["gas_price"].to_pylist() == [Decimal((1 << 64) - 1), None]


def test_times_are_expanded_to_the_rows_of_each_block():
    wanted = ["block_number", module.BLOCK_TIMESTAMP]
    table = pa.table({"block_number": pa.array([10, 10, 12], pa.uint32())})
    given = pa.array([1_000_000, 2_000_000, 3_000_000], pa.int64())
    cast = lake_rows(LOGS, table, wanted, BlockRange(10, 13), None, given)
    assert cast[module.BLOCK_TIMESTAMP].cast(pa.int64()).to_pylist() == [1_000_000, 1_000_000, 3_000_000]
    assert lake_rows(LOGS, table.slice(0, 0), wanted, BlockRange(10, 13), None, given).num_rows == 0


@pytest.mark.parametrize("block", [9, 13, 0, None])
def test_a_row_of_another_block_has_no_time(block):
    table = pa.table({"block_number": pa.array([10, block], pa.uint32())})
    with pytest.raises(VerificationFailed, match="a row lies outside the range"):
        lake_rows(LOGS, table, ["block_number", module.BLOCK_TIMESTAMP], BlockRange(10, 13), None, times(range(3)))
