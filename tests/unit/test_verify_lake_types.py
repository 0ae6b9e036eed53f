"""Rows with the lake's types verify as rows with the engine's do, and a changed value is found in both."""

from decimal import Decimal
from functools import cache

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.cryo_tables import NAMES
from tests.support.proven import devchain, in_columns
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.datasets.chains import chain_of
from trace_dagster.errors import VerificationFailed
from trace_dagster.extraction.lake_rows import lake_rows
from trace_dagster.verify.check import check
from trace_dagster.verify.rows.arrow import headers_of, plain, receipts_of_tables, transactions_of


@cache
def evidence_in_columns():
    return in_columns(devchain().piece, devchain().answers)


EVIDENCE = {
    "lists": lambda: devchain().evidence,
    "columns": evidence_in_columns,
    "none": lambda: None,
}


def in_lake(name, table):
    piece = devchain().piece
    return lake_rows(dataset(name), table, table.column_names, piece, None, pa.array([0] * len(piece), pa.int64()))


def outcome(name, table, evidence):
    """Return the proof, or the text of the error."""
    found = devchain()
    try:
        return check(dataset(name), table, found.piece, found.chain_id, evidence)
    except VerificationFailed as error:
        return str(error)


@pytest.mark.parametrize("which", EVIDENCE)
@pytest.mark.parametrize("name", NAMES)
def test_correct_rows_have_the_same_proof(name, which):
    table, evidence = devchain().tables[name], EVIDENCE[which]()
    found = outcome(name, in_lake(name, table), evidence)
    assert found == outcome(name, table, evidence)
    assert not isinstance(found, str), found


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_changed_value_has_the_same_outcome(data):
    name = data.draw(st.sampled_from(NAMES))
    table, evidence = devchain().tables[name], EVIDENCE[data.draw(st.sampled_from(sorted(EVIDENCE)))]()
    column = data.draw(st.sampled_from(table.column_names))
    row = data.draw(st.integers(0, table.num_rows - 1))
    value = data.draw(changed(table[column][row].as_py(), table[column].type))
    altered = replaced(table, column, row, value)
    found = outcome(name, in_lake(name, altered), evidence)
    assert found == outcome(name, altered, evidence)
    if not isinstance(found, str) and evidence is not None and value != table[column][row].as_py():
        assert column in found.unproven or name == "geth_calls" or column in ("chain_id", "from_address")


def changed(value, kind):
    """Return values of the same size in place of another."""
    if pa.types.is_integer(kind):
        return st.sampled_from([0, 1, 7, (value or 0) + 1])
    if pa.types.is_large_binary(kind) and value is not None:
        return st.binary(min_size=len(value), max_size=len(value))
    if pa.types.is_boolean(kind):
        return st.sampled_from([True, False, None])
    if pa.types.is_large_string(kind):
        return st.sampled_from(["", "0", "CALL", "1 2", None])
    return st.sampled_from([None, 0.5]) if pa.types.is_floating(kind) else st.none()


def replaced(table, column, row, value):
    values = table[column].to_pylist()
    values[row] = value
    place = table.column_names.index(column)
    return table.set_column(place, table.schema.field(place), pa.array(values, table.schema.field(place).type))


@pytest.mark.parametrize("which", EVIDENCE)
@pytest.mark.parametrize(
    ("name", "column"),
    [("blocks", "block_number"), ("blocks", "gas_used"), ("blocks", "base_fee_per_gas"), ("blocks", "chain_id"),
     ("transactions", "nonce"), ("transactions", "gas_used"), ("transactions", "gas_price"),
     ("transactions", "transaction_index"), ("transactions", "n_input_bytes"),
     ("logs", "log_index"), ("geth_calls", "transaction_index")],
)  # fmt: skip
def test_a_negative_number_is_an_error_at_every_level(name, column, which):
    rows = in_lake(name, devchain().tables[name])
    wrong = replaced(rows, column, 3, Decimal(-1) if pa.types.is_decimal(rows[column].type) else -1)
    found = outcome(name, wrong, EVIDENCE[which]())
    assert isinstance(found, str), found


@pytest.mark.parametrize("which", ["lists", "columns"])
@pytest.mark.parametrize(("name", "column"), [("transactions", "gas_price"), ("blocks", "base_fee_per_gas")])
def test_a_fee_beyond_cryos_type_is_compared(name, column, which):
    rows = in_lake(name, devchain().tables[name])
    wrong = replaced(rows, column, 2, Decimal(1 << 64))
    found = outcome(name, wrong, EVIDENCE[which]())
    assert f"{column} is not what the chain says" in found
    assert f"got={1 << 64}" in found


def test_stored_rows_are_the_same_evidence():
    found = devchain()
    blocks, transactions, logs = (found.tables[name] for name in ("blocks", "transactions", "logs"))
    chain = chain_of(found.chain_id)
    stored = [in_lake(*pair) for pair in (("blocks", blocks), ("transactions", transactions), ("logs", logs))]
    assert headers_of(stored[0], found.piece) == headers_of(blocks, found.piece)
    assert transactions_of(stored[1], found.piece, chain) == transactions_of(transactions, found.piece, chain)
    assert receipts_of_tables(stored[1], stored[2], found.piece, chain) == receipts_of_tables(
        transactions, logs, found.piece, chain
    )
    large = replaced(stored[1], "gas_price", 0, Decimal(1 << 80))
    first = next(inside for inside in transactions_of(large, found.piece, chain) if inside)[0]
    assert type(first.gas_price) is int
    assert first.gas_price == 1 << 80


def test_types_of_the_engine_are_read_without_a_copy():
    table = devchain().tables["transactions"]
    for name in table.column_names:
        read, stored = (
            [each.buffers()[1].address for each in each.chunks] for each in (plain(table, name), table[name])
        )
        assert read == stored


def test_types_of_the_lake_are_read_as_those_of_the_engine():
    rows = pa.table(
        {
            "block_number": pa.array([1, 2], pa.int64()),
            "hash": pa.array([bytes(32), None], pa.binary(32)),
            "fee": pa.array([5, None], pa.decimal128(38, 0)),
            "large": pa.array([1 << 64, None], pa.decimal128(38, 0)),
            "coded": pa.array([bytes(20), None]).dictionary_encode().cast(pa.dictionary(pa.int32(), pa.binary(20))),
        }
    )
    kinds = {name: plain(rows, name).type for name in rows.column_names}
    assert kinds == {
        "block_number": pa.int64(),
        "hash": pa.large_binary(),
        "fee": pa.uint64(),
        "large": pa.decimal128(38, 0),
        "coded": pa.large_binary(),
    }
