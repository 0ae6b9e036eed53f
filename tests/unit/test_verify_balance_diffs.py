"""Rules between balance diffs and proven transactions: which rows break them, and which rows pass by design."""

import pyarrow as pa
import pytest
from msgspec.structs import replace

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.errors import VerificationFailed
from trace_dagster.verify.check import check
from trace_dagster.verify.model import Evidence, Header, Receipt, Transaction
from trace_dagster.verify.rows.balance_diffs import check_balance_diffs

ALICE, BOB, AUTHOR = b"\x0a" * 20, b"\x0b" * 20, b"\x0c" * 20
BASE, PRICE, GAS = 10, 12, 100
ETHER = 10**18


def header(number, **more):
    return Header(number, bytes([number]) * 32, bytes([number - 1]) * 32, bytes(32), bytes(32), bytes(256),
                  author=AUTHOR, base_fee_per_gas=BASE, **more)  # fmt: skip


def sent(number, **more):
    given = {"sender": ALICE, "to": BOB, "value": 50, "gas_price": PRICE, **more}
    return Transaction(bytes([number]) * 32, 2, given["sender"], given["to"], given["value"], number, 21000,
                       given["gas_price"], 20, 2, b"")  # fmt: skip


def outcome(total, *, succeeded=True):
    return Receipt(2, succeeded, total, GAS, None, ())


HEADERS = [header(5), header(6)]
TRANSACTIONS = [[sent(1), sent(2)], [sent(3)]]
RECEIPTS = [[outcome(GAS), outcome(2 * GAS)], [outcome(GAS)]]
FEE, BURNED = GAS * PRICE, GAS * BASE
TIP = FEE - BURNED


def moved(block, index, before, value=50):
    """Return the three rows of a transfer from Alice to Bob."""
    return [
        (block, index, ALICE, before[0], before[0] - value - FEE),
        (block, index, BOB, before[1], before[1] + value),
        (block, index, AUTHOR, before[2], before[2] + TIP),
    ]


ONE = moved(5, 0, (ETHER, 7, 1))
TWO = moved(5, 1, (ETHER - 50 - FEE, 57, 1 + TIP))
THREE = moved(6, 0, (ETHER, 7, 1))


def table(rows):
    return pa.Table.from_pylist(
        [
            {
                "block_number": block, "transaction_index": index, "address": address, "chain_id": 1,
                "transaction_hash": bytes([{5: 1, 6: 3}[block] + index]) * 32,
                "from_value_binary": before.to_bytes(32, "big"), "from_value_string": str(before),
                "from_value_f64": float(before), "to_value_binary": after.to_bytes(32, "big"),
                "to_value_string": str(after), "to_value_f64": float(after),
            }
            for block, index, address, before, after in rows
        ],
        schema=dataset("geth_balance_diffs").engine_schema(tuple(dataset("geth_balance_diffs").all_columns)),
    )  # fmt: skip


def run(rows, *, transactions=TRANSACTIONS, receipts=RECEIPTS, headers=HEADERS, burns=True):
    return check_balance_diffs(table(rows), headers, transactions, receipts, burns_base_fee=burns)


def failed():
    return [[outcome(GAS, succeeded=False), outcome(2 * GAS)], [outcome(GAS)]]


def test_a_right_answer_passes_and_says_what_is_open():
    evidence = Evidence(HEADERS, TRANSACTIONS, RECEIPTS)
    said = check(dataset("geth_balance_diffs"), table([*ONE, *TWO, *THREE]), BlockRange(5, 7), 1, evidence)
    assert said.level == "crosschecked"
    assert said.unproven == ("balances: only rules between them are checked",)
    assert {"balances follow on each other", "senders pay for gas", "transactions create no value",
            "transaction_hash belongs to transaction_index"} <= set(said.checks)  # fmt: skip


def test_rows_may_come_in_any_order_within_a_block():
    run([*TWO[::-1], *ONE[::-1], *THREE])


def test_an_address_occurs_once_per_transaction():
    with pytest.raises(VerificationFailed, match="an address occurs twice in a transaction block=5 address=0x0b0b"):
        run([*ONE, ONE[1], *TWO, *THREE])


def test_balances_follow_within_a_block_only():
    wrong = [(5, 1, BOB, 58, 108)]
    with pytest.raises(VerificationFailed, match="previous transaction left block=5 expected=57 got=58 address=0x0b"):
        run([*ONE, TWO[0], *wrong, TWO[2], *THREE])


def test_a_zero_says_nothing_because_geth_leaves_out_what_did_not_change():
    contract = b"\x0d" * 20
    run([*ONE, (5, 0, contract, 900, 0), *TWO, (5, 1, contract, 900, 0), *THREE])


def test_no_value_out_of_nothing():
    with pytest.raises(
        VerificationFailed, match=f"creates value block=5 expected=a loss of {BURNED} got={BURNED - 1} hash=0x01"
    ):
        run([ONE[0], (5, 0, BOB, 7, 57 + TIP), (5, 0, b"\x0e" * 20, 0, 1), *THREE])
    exact = [(5, 0, ALICE, ETHER, ETHER - 49 - BURNED), (5, 0, BOB, 7, 56)]
    run([*exact, *moved(5, 1, (ETHER - 49 - BURNED, 56, 1)), *THREE])


def test_before_london_nothing_is_burned():
    headers = [replace(each, base_fee_per_gas=None) for each in HEADERS]
    even = [(5, 0, ALICE, ETHER, ETHER - 5), (5, 0, BOB, 0, 5)]
    run([*even, *moved(5, 1, (ETHER - 5, 5, 0)), *THREE], headers=headers)
    with pytest.raises(VerificationFailed, match="expected=a loss of 0 got=-1"):
        run([even[0], (5, 0, BOB, 0, 6), *moved(5, 1, (ETHER - 5, 6, 0)), *THREE], headers=headers)


def test_who_pays_for_gas_is_there():
    with pytest.raises(VerificationFailed, match="a sender's balance is missing block=6 address=0x0a"):
        run([*ONE, *TWO, (6, 0, BOB, ETHER, 0)])
    with pytest.raises(VerificationFailed, match="creates value block=6"):
        run([*ONE, *TWO])


def test_senders_nobody_names_are_not_looked_for():
    unnamed = [[replace(each, sender=None) for each in inside] for inside in TRANSACTIONS]
    run([*ONE, *TWO, (6, 0, BOB, ETHER, 0)], transactions=unnamed)


def test_system_transactions_may_mint():
    free = [TRANSACTIONS[0], [sent(3, gas_price=0)]]
    run([*ONE, *TWO, (6, 0, BOB, 0, ETHER)], transactions=free)
    unused = [RECEIPTS[0], [replace(outcome(0), gas_used=0)]]
    run([*ONE, *TWO, (6, 0, BOB, 0, ETHER)], receipts=unused)


def lost(amount):
    return [(5, 0, ALICE, ETHER, ETHER - amount), *moved(5, 1, (ETHER - amount, 7, 1)), *THREE]


def test_a_failed_transactions_sender_pays_its_fee():
    run(lost(FEE), receipts=failed())
    with pytest.raises(
        VerificationFailed,
        match=f"failed transaction's sender did not pay block=5 expected={FEE} got={FEE - 1} hash=0x01",
    ):
        run(lost(FEE - 1), receipts=failed())
    run(lost(FEE - 1))  # a successful transaction may have returned value to its sender


def test_an_author_gets_its_own_tip_back():
    for author in (ALICE, None):
        headers = [replace(HEADERS[0], author=author), HEADERS[1]]
        run(lost(BURNED), receipts=failed(), headers=headers)


@pytest.mark.parametrize("column", ["address", "from_value_binary", "to_value_binary", "transaction_index"])
def test_nulls_and_lengths(column):
    found = table([*ONE, *TWO, *THREE])
    rows = found.to_pylist()
    for wrong in [None] if column == "transaction_index" else [None, b"\x01"]:
        rows[4] = {**rows[4], column: wrong}
        with pytest.raises(VerificationFailed, match=f"{column}.* block=5|column={column} block=5"):
            check_balance_diffs(
                pa.Table.from_pylist(rows, schema=found.schema), HEADERS, TRANSACTIONS, RECEIPTS, burns_base_fee=True
            )


def test_a_hash_of_another_transaction():
    found = table([*ONE, *TWO, *THREE])
    rows = found.to_pylist()
    rows[4] = {**rows[4], "transaction_hash": b"\x01" * 32}
    with pytest.raises(VerificationFailed, match="transaction_hash is not what the chain says block=5"):
        check_balance_diffs(
            pa.Table.from_pylist(rows, schema=found.schema), HEADERS, TRANSACTIONS, RECEIPTS, burns_base_fee=True
        )


VAULT = b"\x0e" * 20


def to_vault(rows, fee=BURNED):
    """Return the rows of a chain that pays the base fee to an address instead of burning it."""
    before, found = 1, []
    for index in sorted({(row[0], row[1]) for row in rows}):
        found += [row for row in rows if row[:2] == index]
        found.append((*index, VAULT, before, before + fee))
        before += fee if index[0] == 5 else 0
    return found


def test_a_chain_that_pays_the_base_fee_to_an_address_creates_no_value():
    rows = to_vault([*ONE, *TWO, *THREE])
    assert run(rows, burns=False).checks
    with pytest.raises(VerificationFailed, match="creates value"):
        run(rows)
    with pytest.raises(VerificationFailed, match="creates value"):
        run(to_vault([*ONE, *TWO, *THREE], BURNED + 1), burns=False)


def test_a_failed_sender_pays_the_base_fee_where_the_price_may_be_a_bid():
    """Nodes of Arbitrum show the bid of a legacy transaction; the sender pays the base fee."""
    failed = [[outcome(GAS, succeeded=False), outcome(2 * GAS)], [outcome(GAS)]]
    bid = [[sent(1, gas_price=10 * PRICE), sent(2)], [sent(3)]]
    paid = [(5, 0, ALICE, ETHER, ETHER - BURNED), (5, 0, VAULT, 1, 1 + BURNED)]
    rest = [*moved(5, 1, (ETHER - BURNED, 7, 1)), *THREE]
    assert run([*paid, *rest], transactions=bid, receipts=failed, burns=False).checks
    less = [(5, 0, ALICE, ETHER, ETHER - BURNED + 1), *moved(5, 1, (ETHER - BURNED + 1, 7, 1)), *THREE]
    with pytest.raises(VerificationFailed, match="did not pay"):
        run(less, transactions=bid, receipts=failed, burns=False)


def test_a_transaction_of_a_special_form_may_mint_where_the_base_fee_is_not_burned():
    minting = [[replace(sent(1), form="arbitrum_submit_retryable"), sent(2)], [sent(3)]]
    rows = [(5, 0, BOB, 7, 7 + ETHER), *moved(5, 1, (ETHER, 7 + ETHER, 1)), *THREE]
    assert run(rows, transactions=minting, burns=False).checks
    with pytest.raises(VerificationFailed, match="creates value"):
        run(rows, burns=False)
