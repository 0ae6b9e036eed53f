"""Tests added after mutation testing: names of checks, blocks in messages, uint256 columns, absent columns."""

import pyarrow as pa
import pytest
from msgspec.structs import replace

from tests.support.proven import DEVCHAIN, DEVCHAIN_ROW, devchain, evidence_of
from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.datasets.chains import chain_of
from trace_dagster.errors import VerificationFailed
from trace_dagster.verify.check import check
from trace_dagster.verify.commitments import trie
from trace_dagster.verify.model import Evidence
from trace_dagster.verify.rows.arrow import headers_of, receipts_of_tables, transactions_of
from trace_dagster.verify.rows.comparison import Comparison, compare_columns
from trace_dagster.verify.rows.rowwise import check_logs, check_token_transfers, check_transactions
from trace_dagster.verify.rows.uint256_columns import uint256_columns

FORM = {"block_number in range", "rows in block order", "chain_id"}
KEYED = {*FORM, "unique natural key"}
PAIRS = "transaction_hash belongs to transaction_index"
CHECKS = {
    "blocks": {*FORM, "one row per block", "parent_hash links rows", "header hash", "rows equal the header"},
    "transactions": {
        *KEYED, "transaction_index contiguous per block", "transaction_hash unique", "faces of value agree",
        "n_input counts the input", "transactions root", "rows equal the transactions", "receipts root from rows",
    },
    "logs": {
        *KEYED, "log_index contiguous per block", "logs bloom from rows", "receipts root from rows", PAIRS,
        "block_hash equals the header's",
    },
    "erc20_transfers": {*KEYED, "faces of value agree", "rows are the logs' transfers", PAIRS},
    "erc721_transfers": {*KEYED, "faces of token_id agree", "rows are the logs' transfers", PAIRS},
    "geth_calls": {
        *KEYED, "call frames form one tree per transaction", "faces of gas agree", "faces of gas_used agree",
        "faces of value agree", "root frames equal the transactions", PAIRS,
    },
}  # fmt: skip


def proof(name, table, **changes):
    found = devchain()
    return check(dataset(name), table, found.piece, found.chain_id, replace(found.evidence, **changes), deep=True)


@pytest.mark.parametrize("name", CHECKS)
def test_checks_are_named_as_documents_and_manifests_know_them(name):
    table = devchain().tables[name]
    faced = {"faces of total_difficulty agree"} if name == "blocks" else set()
    assert set(proof(name, table).checks) == CHECKS[name] | faced


def test_evidence_is_proven_anew_and_the_same():
    trie._shape.cache_clear()
    found = devchain()
    assert evidence_of(DEVCHAIN, found.answers, DEVCHAIN_ROW) == found.evidence


@pytest.mark.parametrize("count", [1, 2, 16, 17, 128, 129, 300])
def test_shapes_hold_each_item_once(count):
    trie._shape.cache_clear()

    def leaves(node):
        if isinstance(node, trie._Leaf):
            return [node.index]
        children = [node.child] if isinstance(node, trie._Extension) else [each for each in node.children if each]
        return [index for child in children for index in leaves(child)]

    assert sorted(leaves(trie._shape(count))) == list(range(count))


def with_value(name, base, at, value):
    """Return the table with all columns of one uint256 changed together, so that only evidence shows the change."""
    table = devchain().tables[name]
    rows = table.to_pylist()
    assert rows[at][f"{base}_string"] != str(value)
    rows[at] |= {column: values[0] for column, values in uint256_columns(base, [value]).items()}
    return pa.Table.from_pylist(rows, schema=table.schema)


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("transactions", "value"),
        ("erc20_transfers", "value"),
        ("erc721_transfers", "token_id"),
        ("geth_calls", "value"),
    ],
)
@pytest.mark.parametrize("column", ["binary", "string", "f64"])
def test_faces_that_lie_together(name, base, column):
    table = with_value(name, base, 0, 2**70 + 1)
    kept = [each for each in table.column_names if not each.startswith(base) or each == f"{base}_{column}"]
    block = table["block_number"][0].as_py()
    with pytest.raises(
        VerificationFailed, match=rf"{base}_{column} is not what the chain says block={block} expected="
    ):
        proof(name, table.select(kept))


def test_columns_a_stored_table_may_lack():
    found = devchain()
    optional = ["state_root", "author", "gas_used", "extra_data", "timestamp", "base_fee_per_gas"]
    for header in headers_of(found.tables["blocks"].drop_columns(optional), found.piece):
        assert [getattr(header, name) for name in optional] == [None] * len(optional)
    for name in optional:
        [header, *_] = headers_of(found.tables["blocks"].drop_columns([name]), found.piece)
        assert header == replace(found.evidence.headers[0], **{name: None})
    without = found.tables["transactions"].drop_columns(["from_address"])
    [first, *_] = [
        each for inside in transactions_of(without, found.piece, chain_of(found.chain_id)) for each in inside
    ]
    assert first.sender is None
    without = found.tables["transactions"].drop_columns(["transaction_hash"])
    [first, *_] = [
        each
        for inside in receipts_of_tables(without, found.tables["logs"], found.piece, chain_of(found.chain_id))
        for each in inside
    ]
    assert first.transaction_hash is None


def test_headers_of_rows_that_are_not_one_per_block():
    found = devchain()
    for table in (found.tables["blocks"].slice(1), pa.concat_tables([found.tables["blocks"].slice(0, 1)] * 2)):
        with pytest.raises(VerificationFailed, match="a block is missing or doubled block=20"):
            headers_of(table, found.piece)


def test_an_unplaced_log_names_its_block_after_the_transactions():
    found = devchain()
    rows = found.tables["logs"].to_pylist()
    last = rows[-1]["block_number"]
    rows[-1] = {**rows[-1], "transaction_index": 90}
    table = pa.Table.from_pylist(rows, schema=found.tables["logs"].schema)
    count = len(found.evidence.receipts[last - found.piece.start])
    said = f"a log belongs to no transaction of its block block={last} expected=below {count} got=90"
    with pytest.raises(VerificationFailed, match=said):
        receipts_of_tables(found.tables["transactions"], table, found.piece, chain_of(found.chain_id))


def test_counts_name_the_block():
    found = devchain()
    headers, transactions, receipts = found.evidence.headers, found.evidence.transactions, found.evidence.receipts
    at = next(n for n, inside in enumerate(receipts) if inside)
    block = headers[at].number
    short = [*receipts[:at], receipts[at][1:], *receipts[at + 1 :]]
    with pytest.raises(VerificationFailed, match=f"as many receipts as the chain says block={block} expected="):
        check_transactions(found.tables["transactions"], headers, transactions, short)
    table = found.tables["erc20_transfers"]
    first = table["block_number"][0].as_py()
    with pytest.raises(VerificationFailed, match=f"as many transfers as the chain says block={first} expected=. got="):
        check_token_transfers(table.slice(1), "erc20_transfers", headers, receipts)


def test_transfers_name_the_block_of_a_wrong_value():
    found = devchain()
    rows = found.tables["erc20_transfers"].to_pylist()
    rows[-1] = {**rows[-1], "erc20": bytes(20)}
    table = pa.Table.from_pylist(rows, schema=found.tables["erc20_transfers"].schema)
    with pytest.raises(VerificationFailed, match=f"erc20 is not what the chain says block={rows[-1]['block_number']} "):
        check_token_transfers(table, "erc20_transfers", found.evidence.headers, found.evidence.receipts)


def test_columns_the_receipts_root_covers():
    found = devchain()
    evidence = found.evidence
    done = check_transactions(found.tables["transactions"], evidence.headers, evidence.transactions, evidence.receipts)
    assert {"transaction_type", "gas_used", "success"} <= done.covered
    assert "from_address" not in done.covered


def test_cryo_leaves_hashes_out_of_vm_traces():
    found = devchain()
    known = dataset("vm_traces")
    rows = [
        {"block_number": row["block_number"], "transaction_index": row["transaction_index"], "chain_id": 20143}
        for row in found.tables["transactions"].to_pylist()
    ]
    table = pa.Table.from_pylist(rows, schema=known.engine_schema(tuple(known.all_columns)))
    said = check(known, table, found.piece, 20143, found.evidence)
    assert said.level == "crosschecked"
    assert "transaction_hash" in said.unproven


def test_hashes_of_receipts_serve_where_there_are_no_transactions():
    found = devchain()
    known = dataset("nonce_diffs")
    rows = [
        {"block_number": row["block_number"], "transaction_index": row["transaction_index"], "chain_id": 20143,
         "transaction_hash": row["transaction_hash"]}
        for row in found.tables["transactions"].to_pylist()
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=known.engine_schema(tuple(known.all_columns)))
    said = check(known, table, found.piece, 20143, replace(found.evidence, transactions=None))
    assert PAIRS in said.checks
    assert "transaction_hash" in said.unproven


def test_comparing_values_a_column_cannot_hold():
    table = pa.table({"block_number": pa.array([1, 2], pa.uint32()), "nonce": pa.array([5, 6], pa.uint32())})
    assert compare_columns(table, {"nonce": [5, 6], "absent": [0, 0]}, [1, 2]) == {"nonce"}
    for wrong, said in (
        (2**70, f"block=2 expected={2**70} got=6"),
        (None, "block=2 expected=null got=6"),
        (-1, "block=2"),
    ):
        with pytest.raises(VerificationFailed, match=f"nonce is not what the chain says {said}"):
            compare_columns(table, {"nonce": [5, wrong]}, [1, 2])
    assert compare_columns(table, {"nonce": [5.0, 6]}, [1, 2]) == {"nonce"}
    assert Comparison().checks == Comparison().unproven == []


def test_a_piece_of_blocks_without_transactions():
    found = devchain()
    empty = next(n for n, inside in enumerate(found.evidence.transactions) if not inside)
    number = found.piece.start + empty
    evidence = Evidence([found.evidence.headers[empty]], [[]], [[]])
    for name in ("transactions", "logs", "erc20_transfers", "erc721_transfers", "geth_calls"):
        table = found.tables[name].slice(0, 0)
        assert check(dataset(name), table, BlockRange(number, number + 1), found.chain_id, evidence).blocks == 1
    full = next(n for n, inside in enumerate(found.evidence.transactions) if inside)
    other = replace(found.evidence.headers[full], number=number)
    given = Evidence([other], [found.evidence.transactions[full]], [found.evidence.receipts[full]])
    for name in ("transactions", "logs"):
        with pytest.raises(VerificationFailed):
            check(dataset(name), found.tables[name].slice(0, 0), BlockRange(number, number + 1), 20143, given)


def test_a_log_beyond_the_receipts_of_a_block_that_would_prove_without_it():
    """The receipts compute to their root, but the row belongs to none of them."""
    found = devchain()
    at = next(n for n, inside in enumerate(found.evidence.receipts) if any(each.logs for each in inside))
    header, receipts = found.evidence.headers[at], found.evidence.receipts[at]
    rows = [row for row in found.tables["logs"].to_pylist() if row["block_number"] == header.number]
    extra = {**rows[-1], "log_index": len(rows), "transaction_index": len(receipts)}
    table = pa.Table.from_pylist([*rows, extra], schema=found.tables["logs"].schema)
    count = len(receipts)
    said = f"^a log belongs to no transaction of its block block={header.number} expected=below {count} got={count}$"
    with pytest.raises(VerificationFailed, match=said):
        check_logs(table, [header], [receipts])
