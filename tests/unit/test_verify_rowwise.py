"""Correct tables verify. The same tables with any row or any covered value changed do not."""

import os
from functools import cache

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.support.cryo_tables import NAMES
from tests.support.proven import CASES, case, devchain, in_columns
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.datasets.chains import chain_of
from trace_dagster.errors import UnknownForm, UnknownFormat, VerificationFailed
from trace_dagster.verify.check import check
from trace_dagster.verify.commitments.prove import receipt_fields
from trace_dagster.verify.model import Evidence
from trace_dagster.verify.rows.arrow import headers_of, receipts_of_tables, transactions_of
from trace_dagster.verify.rows.rowwise import (
    check_block_hashes,
    check_blocks,
    check_calls,
    check_logs,
    check_token_transfers,
    check_transaction_hashes,
    check_transactions,
)
from trace_dagster.verify.rows.token_transfers import TRANSFER, is_transfer

EXAMPLES = int(os.environ.get("TRACE_VERIFY_EXAMPLES", "40"))
OPEN_IN_FRAMES = {"gas_binary", "gas_string", "gas_f64", "gas_used_binary", "gas_used_string", "gas_used_f64", "output"}
LEVELS = dict.fromkeys(NAMES, "full") | {"geth_calls": "crosschecked"}
UNPROVEN = {
    "blocks": ("size", "total_difficulty_binary", "total_difficulty_f64", "total_difficulty_string"),
    "transactions": ("n_rlp_bytes",),
    "geth_calls": (
        "call frames below the root",
        "gas, output and error text of root frames",
        "senders of root frames",
    ),
}


def proof(found, name, table, *, evidence=None, deep=True):
    return check(dataset(name), table, found.piece, found.chain_id, evidence or found.evidence, deep=deep)


def proven_before(found):
    """Return the same evidence as streams share it, with receipts known to give the roots."""
    return replace(found.evidence, proven=[list(receipt_fields(inside)) for inside in found.evidence.receipts])


@cache
def proven_in_columns(which):
    """Return the same evidence, proven by the compiled code."""
    found = case(which)
    return in_columns(found.piece, found.answers)


def refused(found, name, table):
    which = "devchain" if found is devchain() else found.piece.start
    for evidence in (found.evidence, proven_before(found), proven_in_columns(which)):
        with pytest.raises(VerificationFailed) as caught:
            proof(found, name, table, evidence=evidence)
        assert "block" in caught.value.facts


@pytest.mark.parametrize("which", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_receipts_proven_before_say_the_same_and_are_not_proven_again(which, name, monkeypatch):
    found = case(which)
    expected = proof(found, name, found.tables[name])

    def never(items):
        pytest.fail("a root was computed once more")

    monkeypatch.setattr("trace_dagster.verify.commitments.receipts.list_root", never)
    assert proof(found, name, found.tables[name], evidence=proven_before(found)) == expected


@pytest.mark.parametrize("which", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_evidence_in_columns_says_the_same(which, name):
    found = case(which)
    evidence = proven_in_columns(which)
    assert list(evidence.headers) == list(found.evidence.headers)
    assert list(evidence.transactions) == list(found.evidence.transactions)
    assert list(evidence.receipts) == list(found.evidence.receipts)
    assert list(evidence.proven) == list(proven_before(found).proven)
    for deep in (False, True):
        said = proof(found, name, found.tables[name], evidence=evidence, deep=deep)
        assert said == proof(found, name, found.tables[name], deep=deep)


@pytest.mark.parametrize("which", CASES)
@pytest.mark.parametrize("name", ["transactions", "logs", "geth_calls"])
def test_true_rows_are_compared_in_columns_alone(which, name, monkeypatch):
    found, evidence = case(which), proven_in_columns(which)

    def never(*args, **options):
        pytest.fail("compared row by row")

    for slow in ("check_transactions", "check_logs", "check_calls"):
        monkeypatch.setattr(f"trace_dagster.verify.rows.rowwise.{slow}", never)
    assert proof(found, name, found.tables[name], evidence=evidence).level == LEVELS[name]


@pytest.mark.parametrize("name", ["transactions", "logs", "geth_calls"])
def test_columns_of_another_kind_or_gone_are_left_to_the_rows(name):
    """Arrow would cast a number to text to compare it, and cannot compare a missing column."""
    found, evidence = devchain(), proven_in_columns("devchain")
    table = found.tables[name]

    def judged(other, given):
        try:
            return proof(found, name, other, evidence=given, deep=False)
        except (VerificationFailed, UnknownFormat) as error:
            return str(error)
        except (TypeError, pa.ArrowException):  # the types of tables are checked earlier
            return "no number"

    for column in table.column_names:
        others = [table.drop_columns([column])]
        if pa.types.is_integer(table.schema.field(column).type):
            place = table.column_names.index(column)
            others.append(table.set_column(place, column, table[column].cast(pa.large_string())))
        for other in others:
            said = judged(other, evidence)
            assert said == judged(other, proven_before(found)), column


@pytest.mark.parametrize("which", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_true_tables_verify(which, name):
    found = case(which)
    said = proof(found, name, found.tables[name])
    assert (said.level, said.unproven) == (LEVELS[name], UNPROVEN.get(name, ()))
    assert (said.first_block, said.blocks) == (found.piece.start, len(found.piece))
    assert said.first_parent_hash == found.evidence.headers[0].parent_hash
    assert said.last_block_hash == found.evidence.headers[-1].hash
    assert list(said.checks) == sorted(set(said.checks))


@pytest.mark.parametrize("name", NAMES)
def test_layout_does_not_matter(name):
    found = devchain()
    table = found.tables[name]
    halves = pa.concat_tables([table.slice(0, table.num_rows // 2), table.slice(table.num_rows // 2)])
    encoded = pa.table({column: _encoded(table[column]) for column in reversed(table.column_names)})
    for other in (halves, encoded):
        assert proof(found, name, other) == proof(found, name, table)


def _encoded(column):
    kind = column.type
    return column.dictionary_encode() if pa.types.is_large_binary(kind) or pa.types.is_large_string(kind) else column


@pytest.mark.parametrize("which", CASES)
def test_tables_are_evidence_too(which):
    found = case(which)
    tables = found.tables
    headers = headers_of(tables["blocks"], found.piece)
    transactions = transactions_of(tables["transactions"], found.piece, chain_of(found.chain_id))
    receipts = receipts_of_tables(tables["transactions"], tables["logs"], found.piece, chain_of(found.chain_id))
    assert Evidence(headers, transactions, receipts, found.evidence.source) == found.evidence
    without = receipts_of_tables(tables["transactions"], None, found.piece, chain_of(found.chain_id))
    assert [[replace(each, logs=()) for each in inside] for inside in receipts] == without
    for name in ("logs", "transactions"):
        assert proof(found, name, tables[name], evidence=Evidence(headers, transactions, receipts)).level == "full"
    assert proof(found, "logs", tables["logs"], evidence=Evidence(headers, None, without)).level == "full"


def others(value):
    """Draw other values of the same type."""
    if value is None:
        return []
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1] if value else [1]
    if isinstance(value, float):
        return [value + max(1.0, value / 2**40)]
    if isinstance(value, str):
        return [value + "0", *{"", "1", "CALL", "CREATE", "x"} - {value}]
    flipped = [
        value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :] for at in {0, len(value) // 2, len(value) - 1} if value
    ]
    return [*flipped, value + b"\x00", None]


def with_rows(table, rows):
    return pa.Table.from_pylist(rows, schema=table.schema)


def covered(name, table, row):
    if name == "geth_calls":
        columns = set(table.column_names) - OPEN_IN_FRAMES
        if row["trace_address"]:  # below the root only the position of a frame is checked
            columns = {"block_number", "transaction_index", "transaction_hash", "chain_id"}
    else:
        columns = set(table.column_names) - set(UNPROVEN.get(name, ()))
    return sorted(columns)


fuzz = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


@pytest.mark.parametrize("which", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_no_covered_value_can_change(which, name):
    found = case(which)
    table = found.tables[name]
    rows = table.to_pylist()
    if not rows:
        return

    @fuzz
    @given(st.data())
    def changes(data):
        at = data.draw(st.integers(0, len(rows) - 1))
        column = data.draw(st.sampled_from(covered(name, table, rows[at])))
        values = others(rows[at][column])
        assume(values)
        value = data.draw(st.sampled_from(values))
        if column == "error":
            assume((value is None) != (rows[at][column] is None))
        refused(found, name, with_rows(table, [*rows[:at], {**rows[at], column: value}, *rows[at + 1 :]]))

    changes()


@pytest.mark.parametrize("name", NAMES)
def test_every_covered_column_is_compared_in_every_row(name):
    """Change each covered column of each row of the devchain blocks, without random choice."""
    found = devchain()
    table = found.tables[name]
    rows = table.to_pylist()
    for at, row in enumerate(rows[:25]):
        for column in covered(name, table, row):
            if row[column] is not None and column != "error":
                broken = [*rows[:at], {**row, column: others(row[column])[0]}, *rows[at + 1 :]]
                refused(found, name, with_rows(table, broken))


@pytest.mark.parametrize("which", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_no_row_can_be_missing_doubled_or_swapped(which, name):
    found = case(which)
    table = found.tables[name]
    rows = table.to_pylist()
    if not rows:
        return

    @fuzz
    @given(st.integers(0, len(rows) - 1), st.integers(0, len(rows) - 1))
    def changes(at, elsewhere):
        refused(found, name, with_rows(table, [*rows[:at], rows[at], *rows[at:]]))
        if name != "geth_calls" or not rows[at]["trace_address"]:  # a tree without its last leaf is still a tree
            refused(found, name, with_rows(table, [*rows[:at], *rows[at + 1 :]]))
        if at != elsewhere and name != "geth_calls":  # frames contain their position, so their order does not matter
            swapped = list(rows)
            swapped[at], swapped[elsewhere] = rows[elsewhere], rows[at]
            refused(found, name, with_rows(table, swapped))

    changes()


@pytest.mark.parametrize("name", ["transactions", "logs", "geth_calls"])
def test_rows_beyond_the_blocks_transactions(name):
    found = devchain()
    rows = found.tables[name].to_pylist()
    rows[-1] = {**rows[-1], "transaction_index": 400}
    refused(found, name, with_rows(found.tables[name], rows))


def test_logs_may_not_trade_places():
    """Two logs of two transactions with each other's log_index give the same receipts."""
    found = devchain()
    rows = found.tables["logs"].to_pylist()
    at = next(
        n for n in range(len(rows) - 1)
        if rows[n]["block_number"] == rows[n + 1]["block_number"]
        and rows[n]["transaction_index"] < rows[n + 1]["transaction_index"]
    )  # fmt: skip
    one, two = rows[at], rows[at + 1]
    rows[at], rows[at + 1] = {**two, "log_index": one["log_index"]}, {**one, "log_index": two["log_index"]}
    places = "block={block_number} expected={transaction_index}".format(**two)
    said = f"^logs are not in order of their transactions {places} got={one['transaction_index']}$"
    with pytest.raises(VerificationFailed, match=said):
        check_logs(with_rows(found.tables["logs"], rows), found.evidence.headers, found.evidence.receipts)


def test_a_topic_after_a_missing_one():
    found = devchain()
    rows = found.tables["logs"].to_pylist()
    rows[0] = {**rows[0], "topic0": None}
    with pytest.raises(
        VerificationFailed, match=f"^a log has a topic after a missing one block={rows[0]['block_number']}$"
    ):
        check_logs(with_rows(found.tables["logs"], rows), found.evidence.headers, found.evidence.receipts)


def test_an_unknown_type_in_rows():
    found = devchain()
    rows = found.tables["transactions"].to_pylist()
    rows[3] = {**rows[3], "transaction_type": 5}
    table = with_rows(found.tables["transactions"], rows)
    block = rows[3]["block_number"]
    for call in (
        lambda: transactions_of(table, found.piece, chain_of(found.chain_id)),
        lambda: check_transactions(table.drop_columns([]), *_all(found)),
    ):
        with pytest.raises((UnknownFormat, VerificationFailed), match=f"block={block}"):
            call()
    with pytest.raises(UnknownForm, match=f"block={block} type=0x5"):
        transactions_of(table, found.piece, chain_of(found.chain_id))


def _all(found):
    return found.evidence.headers, found.evidence.transactions, found.evidence.receipts


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("transactions", "gas_used"),
        ("transactions", "success"),
        ("logs", "data"),
        ("logs", "topic3"),
        ("blocks", "block_hash"),
    ],
)
def test_a_missing_column_is_named(name, column):
    found = devchain()
    table = found.tables[name].drop_columns([column])
    reads = {
        "transactions": lambda: receipts_of_tables(table, None, found.piece, chain_of(found.chain_id)),
        "logs": lambda: check_logs(table, found.evidence.headers, found.evidence.receipts),
        "blocks": lambda: headers_of(table, found.piece),
    }
    with pytest.raises(VerificationFailed, match=f"lack a column the proof needs column={column}"):
        reads[name]()


def test_a_log_of_no_transaction_among_stored_rows():
    found = devchain()
    rows = found.tables["transactions"].to_pylist()
    last = max(row["block_number"] for row in rows)
    table = with_rows(found.tables["transactions"], [row for row in rows if row["block_number"] < last])
    with pytest.raises(
        VerificationFailed, match=f"a log belongs to no transaction of its block block={last} expected=below 0 got=0"
    ):
        receipts_of_tables(table, found.tables["logs"], found.piece, chain_of(found.chain_id))


@pytest.mark.parametrize(("column", "size"), [("address", 20), ("topic0", 32)])
@pytest.mark.parametrize("longer", [False, True])
def test_lengths_are_checked_before_hashing(column, size, longer):
    found = devchain()
    rows = found.tables["logs"].to_pylist()
    value = rows[-1][column]
    wrong = value + b"\x00" if longer else value[:-1]
    rows[-1] = {**rows[-1], column: wrong}
    shown = f"0x{wrong.hex()}" if len(wrong) <= 32 else f"0x{wrong[:8].hex()}"
    said = f"^{column} has the wrong length block={rows[-1]['block_number']} expected={size} bytes got={shown}"
    with pytest.raises(VerificationFailed, match=said):
        check_logs(with_rows(found.tables["logs"], rows), found.evidence.headers, found.evidence.receipts)


def test_a_column_of_another_type():
    found = devchain()
    table = found.tables["logs"]
    text = pa.array(["x" * 20] * table.num_rows)
    with pytest.raises(VerificationFailed, match="a column is not of bytes column=address type=string"):
        check_logs(
            table.set_column(table.column_names.index("address"), "address", text),
            found.evidence.headers,
            found.evidence.receipts,
        )


def test_senders_are_unproven_unless_deep():
    found = devchain()
    table = found.tables["transactions"]
    assert proof(found, "transactions", table, deep=False).unproven == ("from_address", "n_rlp_bytes")
    unnamed = [[replace(each, sender=None) for each in inside] for inside in found.evidence.transactions]
    evidence = replace(found.evidence, transactions=unnamed)
    assert proof(found, "transactions", table, evidence=evidence, deep=False).level == "full"
    assert proof(found, "geth_calls", found.tables["geth_calls"], evidence=evidence).level == "crosschecked"


@pytest.mark.parametrize("name", ["logs", "erc20_transfers"])
def test_transaction_hashes_of_receipts_are_hearsay(name):
    found = devchain()
    evidence = replace(found.evidence, transactions=None)
    assert proof(found, name, found.tables[name], evidence=evidence).unproven == ("transaction_hash",)
    silent = [[replace(each, transaction_hash=None) for each in inside] for inside in found.evidence.receipts]
    said = proof(found, name, found.tables[name], evidence=replace(evidence, receipts=silent))
    assert (said.level, said.unproven) == ("full", ("transaction_hash",))
    lied = [[replace(each, transaction_hash=bytes(32)) for each in inside] for inside in found.evidence.receipts]
    with pytest.raises(VerificationFailed, match="transaction_hash is not what the chain says"):
        proof(found, name, found.tables[name], evidence=replace(evidence, receipts=lied))


def test_transactions_without_receipts_leave_outcomes_open():
    found = devchain()
    done = check_transactions(found.tables["transactions"], found.evidence.headers, found.evidence.transactions, None)
    assert done.checks == ["transactions root", "rows equal the transactions"]
    assert {"gas_used", "success", "from_address"}.isdisjoint(done.covered)


def test_before_byzantium_success_is_null():
    """A receipt with a state root has no status: neither true nor false is what the chain says."""
    found = devchain()
    table = found.tables["transactions"]
    header = found.evidence.headers[0]
    index = 0
    rows = [row for row in table.to_pylist() if row["block_number"] == header.number]
    old = [
        replace(each, succeeded=None, post_state=bytes([n]) * 32)
        for n, each in enumerate(found.evidence.receipts[index])
    ]
    header = replace(header, receipts_root=_root(old))
    null = [{**row, "success": None} for row in rows]
    done = check_transactions(with_rows(table, null), [header], [found.evidence.transactions[index]], [old])
    assert {"success", "gas_used"} <= done.covered
    for success in (True, False):
        made_up = with_rows(table, [{**row, "success": success} for row in rows])
        with pytest.raises(VerificationFailed, match=f"success is not what .*expected=null got={success}"):
            check_transactions(made_up, [header], [found.evidence.transactions[index]], [old])
    assert check_logs(_of(found.tables["logs"], header.number), [header], [old]).checks
    wrong = with_rows(table, [{**row, "gas_used": row["gas_used"] + 1} for row in null])
    with pytest.raises(VerificationFailed, match="receipts root"):
        check_transactions(wrong, [header], [found.evidence.transactions[index]], [old])


def _root(receipts):
    import rlp

    from trace_dagster.devchain.crypto import list_root, logs_bloom

    encoded = []
    for each in receipts:
        bloom = logs_bloom(entry for address, topics, _ in each.logs for entry in (address, *topics))
        fields = rlp.encode([each.post_state, each.cumulative_gas, bloom, [[a, list(t), d] for a, t, d in each.logs]])
        encoded.append((bytes([each.kind]) if each.kind else b"") + fields)
    return list_root(encoded)


def _of(table, block):
    return with_rows(table, [row for row in table.to_pylist() if row["block_number"] == block])


@pytest.mark.parametrize("topics", range(5))
@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 64])
@pytest.mark.parametrize("name", [TRANSFER, b"\x01" * 32])
def test_what_cryo_calls_a_transfer(topics, size, name):
    """The expected transfers were found by giving every combination of fields to the engine."""
    log = (bytes(20), (name, *[bytes(32)] * 3)[:topics], bytes(size))
    assert is_transfer("erc20_transfers", log) == (name == TRANSFER and topics == 3 and size == 32)
    assert is_transfer("erc721_transfers", log) == (name == TRANSFER and topics == 4 and size == 0)


def test_counts_are_named():
    found = devchain()
    empty = found.tables["erc20_transfers"].slice(0, 0)
    with pytest.raises(VerificationFailed, match=r"as many transfers as the chain says block=.* expected=.* got=0"):
        check_token_transfers(empty, "erc20_transfers", found.evidence.headers, found.evidence.receipts)
    with pytest.raises(VerificationFailed, match="as many call trees as the chain says block="):
        check_calls(found.tables["geth_calls"].slice(0, 0), *_all(found))
    with pytest.raises(VerificationFailed, match="as many transactions as the chain says block="):
        check_transactions(found.tables["transactions"].slice(0, 0), *_all(found))
    with pytest.raises(VerificationFailed, match="missing or doubled block=20"):
        check_blocks(found.tables["blocks"].slice(1), found.evidence.headers)


def test_pairs_of_any_dataset():
    found = devchain()
    headers, transactions, receipts = _all(found)
    table = found.tables["logs"].select(["block_number", "transaction_index", "transaction_hash", "block_hash"])
    assert check_block_hashes(table, headers).covered == {"block_number", "block_hash"}
    assert "transaction_hash" in check_transaction_hashes(table, headers, transactions, None).covered
    assert check_transaction_hashes(table, headers, None, receipts).covered == set()
    assert check_transaction_hashes(table, headers, None, None).checks == []
    for column in ("transaction_hash", "transaction_index"):
        assert check_transaction_hashes(table.drop_columns([column]), headers, transactions, None).checks == []
    first = next(each for each in table["block_number"].to_pylist() if each != headers[0].number)
    with pytest.raises(
        VerificationFailed, match=f"lies outside the range block={first} expected=20 to 20 got={first}$"
    ):
        check_block_hashes(table, headers[:1])
    with pytest.raises(VerificationFailed, match="belongs to no transaction of its block"):
        check_transaction_hashes(table, headers[:1], transactions[:1], None)
    rows = table.to_pylist()
    rows[1] = {**rows[1], "transaction_hash": None}
    with pytest.raises(VerificationFailed, match="transaction_hash is not what the chain says"):
        check_transaction_hashes(with_rows(table, rows), headers, transactions, None)
    assert check_transaction_hashes(with_rows(table, rows), headers, transactions, None, nulls=True).covered == set()
    late = [*rows[:-1], {**rows[-1], "transaction_hash": bytes(32)}]
    with pytest.raises(VerificationFailed, match="transaction_hash is not what the chain says"):
        check_transaction_hashes(with_rows(table, late), headers, transactions, None, nulls=True)
    rows[1] = {**rows[1], "transaction_index": None}
    assert check_transaction_hashes(with_rows(table, rows), headers, transactions, None).covered == set()
