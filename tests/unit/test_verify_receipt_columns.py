"""Columns filled from receipts give the same rows as Cryo, or the rows are refused."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.support.proven import CASES, case, devchain, in_columns
from trace_dagster.datasets.catalogue import catalogue, dataset
from trace_dagster.errors import VerificationFailed
from trace_dagster.verify.check import LEVELS, check, extracted_columns
from trace_dagster.verify.rows.receipt_columns import (
    can_fill_from_receipts,
    fill_receipt_columns,
    requested_columns,
    with_legacy_type,
    without_early_status,
)

TRANSACTIONS = dataset("transactions")
TOLD = list(TRANSACTIONS.receipt_columns)


def both_kinds(found):
    """Return the evidence as objects, and as the compiled code returns it."""
    return found.evidence, in_columns(found.piece, found.answers)


def whole(found):
    """Return the rows of a request for all columns."""
    return found.tables["transactions"]


@pytest.mark.parametrize("which", CASES)
def test_rows_filled_from_receipts_are_those_cryo_gives(which):
    found = case(which)
    rows = whole(found)
    for evidence in both_kinds(found):
        given_rows = fill_receipt_columns(rows.drop_columns(TOLD), evidence, rows.schema)
        assert given_rows.equals(rows)
        assert given_rows.schema.equals(rows.schema)
        assert check(TRANSACTIONS, given_rows, found.piece, found.chain_id, evidence).level == "full"


def test_rows_with_every_column_are_left_alone():
    rows = whole(devchain())
    lie = rows.set_column(rows.column_names.index("gas_used"), "gas_used", pa.array([1] * rows.num_rows, pa.uint64()))
    assert fill_receipt_columns(lie, devchain().evidence, rows.schema) is lie


@given(st.data())
def test_rows_that_are_not_those_of_the_receipts_are_refused(data):
    """If a row is missing, repeated or moved, no column is filled from the wrong receipt."""
    rows = whole(devchain()).drop_columns(TOLD)
    wrong = data.draw(
        st.lists(st.integers(0, rows.num_rows - 1), max_size=rows.num_rows + 2).filter(
            lambda order: order != list(range(rows.num_rows))
        )
        | st.permutations(range(rows.num_rows)).filter(lambda order: order != list(range(rows.num_rows)))
    )
    for evidence in both_kinds(devchain()):
        with pytest.raises(VerificationFailed) as caught:
            fill_receipt_columns(rows.take(pa.array(wrong, pa.int64())), evidence, whole(devchain()).schema)
        assert "block" in caught.value.facts


@pytest.mark.parametrize("row", [0, -1])
def test_a_transaction_a_node_left_out_is_named(row):
    rows = whole(devchain()).drop_columns(TOLD)
    kept = [place for place in range(rows.num_rows) if place != row % rows.num_rows]
    for evidence in both_kinds(devchain()):
        with pytest.raises(VerificationFailed, match=r"transaction_index|as many transactions"):
            fill_receipt_columns(rows.take(kept), evidence, whole(devchain()).schema)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"gas_used": -1}, "gas used does not fit into 64 bits"),
        ({"gas_used": 2**64}, "gas used does not fit into 64 bits"),
    ],
)
def test_receipts_that_say_what_no_row_can_are_refused(wrong, said):
    found = devchain()
    lying = [[replace(each, **wrong) for each in inside] for inside in found.evidence.receipts]
    first = next(header.number for header, inside in zip(found.evidence.headers, lying, strict=True) if inside)
    with pytest.raises(VerificationFailed, match=f"{said}.*block={first}"):
        fill_receipt_columns(
            whole(found).drop_columns(TOLD), replace(found.evidence, receipts=lying), whole(found).schema
        )


@pytest.mark.parametrize("name", catalogue())
@pytest.mark.parametrize("level", LEVELS)
def test_cryo_is_asked_for_what_receipts_do_not_tell(name, level):
    known = dataset(name)
    stored = known.stored_columns()
    every = extracted_columns(known, stored, level)
    assert requested_columns(known, stored, level, from_receipts=False) == every
    spared = set(every) - set(requested_columns(known, stored, level, from_receipts=True))
    assert spared == ({"gas_used", "success"} if name == "transactions" else set())


def test_success_is_null_where_receipts_have_a_state_root_instead_of_a_status():
    found = devchain()
    early = [
        [replace(each, succeeded=None, post_state=bytes(32)) for each in inside] for inside in found.evidence.receipts
    ]
    rows = fill_receipt_columns(
        whole(found).drop_columns(TOLD), replace(found.evidence, receipts=early), whole(found).schema
    )
    assert set(rows["success"].to_pylist()) == {None}
    assert rows["gas_used"].equals(whole(found)["gas_used"])


def test_a_status_that_the_engine_makes_up_is_left_out_before_byzantium_only():
    early, late = 4_369_999, 4_370_000
    rows = pa.table({
        "success": pa.array([True, False, False, True], pa.bool_()),
        "block_number": pa.array([early, early, late, late], pa.uint32()),
    })  # fmt: skip
    found = without_early_status(rows, late)
    assert found["success"].to_pylist() == [None, None, False, True]
    assert found.schema == rows.schema
    assert without_early_status(rows, 0) is rows
    assert without_early_status(rows.drop_columns(["success"]), late).column_names == ["block_number"]


def test_a_type_that_the_node_leaves_out_is_the_legacy_one():
    rows = pa.table({"transaction_type": pa.array([2, None, 0], pa.uint32()), "nonce": pa.array([1, 2, 3])})
    found = with_legacy_type(rows)
    assert found["transaction_type"].to_pylist() == [2, 0, 0]
    assert found.schema == rows.schema
    assert with_legacy_type(found) is found
    assert with_legacy_type(rows.drop_columns(["transaction_type"])).column_names == ["nonce"]


@pytest.mark.parametrize(
    ("proven", "quorum", "told"), [(True, 1, True), (False, 1, False), (True, 2, False), (False, 2, False)]
)
def test_only_proven_receipts_tell_and_only_of_one_endpoints_rows(proven, quorum, told):
    assert can_fill_from_receipts(proven=proven, quorum=quorum) is told
