"""The types of stored columns: every dataset and column has one that other engines can read."""

import pyarrow as pa
import pytest

from trace_dagster.datasets.catalogue import catalogue, dataset
from trace_dagster.datasets.lake_types import FEES
from trace_dagster.engine.columns import u256_forms

EVERY = [(known, column) for known in catalogue().values() for column in known.all_columns]
VARIABLE = {
    "action_init", "action_input", "code", "data", "extra_data", "init_code", "input", "logs_bloom", "mem_data",
    "output", "push", "result_code", "result_output", "return_data", "signature",
}  # fmt: skip
"""Columns of bytes that have any length in every dataset."""


def names(columns):
    return [f"{known.name}.{column}" for known, column in columns]


@pytest.mark.parametrize(("known", "column"), EVERY, ids=names(EVERY))
def test_every_column_has_a_type_of_the_lake(known, column):
    [stored], [engine] = known.schema([column]), known.engine_schema([column])
    assert stored.name == engine.name == column
    if pa.types.is_integer(engine.type):
        assert stored.type == (pa.decimal128(38, 0) if column in FEES else pa.int64())
    elif pa.types.is_large_binary(engine.type):
        is_variable = column in VARIABLE or (known.name, column) in {
            (name, value) for name in ("code_diffs", "geth_code_diffs") for value in ("from_value", "to_value")
        }
        assert stored.type in ([pa.large_binary()] if is_variable else [pa.binary(20), pa.binary(32)])
    else:
        assert stored.type == engine.type
        assert stored.type in (pa.bool_(), pa.float64(), pa.large_string())


@pytest.mark.parametrize(
    ("name", "column", "kind"),
    [
        ("blocks", "author", pa.binary(20)),
        ("blocks", "base_fee_per_gas", pa.decimal128(38, 0)),
        ("blocks", "logs_bloom", pa.large_binary()),
        ("blocks", "timestamp", pa.int64()),
        ("blocks", "total_difficulty_binary", pa.binary(32)),
        ("code_diffs", "from_value", pa.large_binary()),
        ("contracts", "factory", pa.binary(20)),
        ("contracts", "init_code_hash", pa.binary(32)),
        ("erc20_transfers", "erc20", pa.binary(20)),
        ("geth_calls", "gas_binary", pa.binary(32)),
        ("geth_storage_diffs", "slot", pa.binary(32)),
        ("geth_storage_diffs", "to_value", pa.binary(32)),
        ("logs", "topic3", pa.binary(32)),
        ("nonce_diffs", "from_value", pa.int64()),
        ("storage_reads", "value", pa.binary(32)),
        ("traces", "result_address", pa.binary(20)),
        ("vm_traces", "storage_val", pa.binary(32)),
    ],
)
def test_types_of_columns(name, column, kind):
    assert dataset(name).schema([column]).field(0).type == kind


def test_texts_and_doubles_of_a_uint256_are_stored_only_if_they_are_named():
    for known in catalogue().values():
        assert not [each for each in known.stored_columns() if each.endswith(("_string", "_f64"))]
    assert "value_binary" in dataset("transactions").stored_columns()
    assert "gas_used_binary" in dataset("geth_calls").stored_columns()
    assert dataset("transactions").stored_columns(["value_string"]) == (
        "block_number", "block_timestamp", "transaction_index", "value_string",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "requested", "forms"),
    [
        ("transactions", ["value_binary"], ["binary"]),
        ("transactions", ["value_string", "nonce"], ["string"]),
        ("geth_calls", ["gas_f64", "value_binary"], ["binary", "f64"]),
        ("transactions", ["nonce"], ["binary"]),
        ("logs", ["data"], []),
    ],
)
def test_cryo_computes_only_the_forms_of_a_uint256_that_are_stored(name, requested, forms):
    assert u256_forms(dataset(name), requested) == forms
