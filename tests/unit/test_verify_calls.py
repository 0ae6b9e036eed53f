"""Root frames against transactions, for both datasets of call frames."""

import pyarrow as pa
import pytest
from msgspec.structs import replace

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.errors import VerificationFailed
from trace_dagster.verify.check import check
from trace_dagster.verify.model import Evidence, Header, Receipt, Transaction
from trace_dagster.verify.rows.calls import check_calls, created_address

ALICE, BOB = b"\x0a" * 20, b"\x0b" * 20
HEADER = Header(5, b"\x05" * 32, b"\x04" * 32, bytes(32), bytes(32), bytes(256))
CALL = Transaction(b"\x01" * 32, 2, ALICE, BOB, 50, 7, 21000, 12, 20, 2, b"\x01\x02")
CREATE = replace(CALL, hash=b"\x02" * 32, to=None, nonce=8, input=b"\x60")
OK, FAILED = Receipt(2, True, 1, 1, None, ()), Receipt(2, False, 2, 1, None, ())
# the example of CREATE on ethereum.org: sender 0x6ac7ea33f8831ea9dcc53393aaa88b25a785dbf0, nonce 0
KNOWN = ("6ac7ea33f8831ea9dcc53393aaa88b25a785dbf0", 0, "cd234a471b72ba2f1ccf0a70fcaba648a5eecd8d")


def test_created_addresses():
    sender, nonce, created = KNOWN
    assert created_address(bytes.fromhex(sender), nonce).hex() == created


def trace(index, transaction, **more):
    create = transaction.to is None
    return {
        "action_from": transaction.sender, "action_to": transaction.to, "action_value": str(transaction.value),
        "action_gas": 1, "action_input": None if create else transaction.input,
        "action_call_type": None if create else "call", "action_init": transaction.input if create else None,
        "action_type": "create" if create else "call", "result_gas_used": 1, "trace_address": "", "subtraces": 0,
        "result_address": created_address(transaction.sender, transaction.nonce) if create else None,
        "transaction_index": index, "transaction_hash": transaction.hash, "block_number": 5, "block_hash": HEADER.hash,
        "chain_id": 1, **more,
    }  # fmt: skip


def geth(index, transaction, **more):
    create = transaction.to is None
    value = transaction.value
    return {
        "typ": "CREATE" if create else "CALL", "from_address": transaction.sender,
        "to_address": created_address(transaction.sender, transaction.nonce) if create else transaction.to,
        "value_binary": value.to_bytes(32, "big"), "value_string": str(value), "value_f64": float(value),
        "input": transaction.input, "block_number": 5, "transaction_index": index, "trace_address": "", "chain_id": 1,
        "transaction_hash": transaction.hash, **more,
    }  # fmt: skip


MAKE = {"traces": trace, "geth_calls": geth}


def run(name, rows, *, transactions=(CALL, CREATE), receipts=(OK, OK)):
    known = dataset(name)
    table = pa.Table.from_pylist(rows, schema=known.engine_schema(tuple(known.all_columns)))
    outcomes = [replace(each, kind=of.kind) for each, of in zip(receipts, transactions, strict=True)]
    return check(known, table, BlockRange(5, 6), 1, Evidence([HEADER], [list(transactions)], [outcomes]))


@pytest.mark.parametrize("name", MAKE)
def test_roots_that_are_the_transactions(name):
    make = MAKE[name]
    said = run(name, [make(0, CALL), make(1, CREATE)])
    assert said.level == "crosschecked"
    assert "root frames equal the transactions" in said.checks
    assert said.unproven == (
        "call frames below the root", "gas, output and error text of root frames", "senders of root frames",
    )  # fmt: skip


CHANGES = {
    "traces": {
        "action_from": BOB, "action_to": ALICE, "action_value": "51", "action_input": b"",
        "action_call_type": "delegatecall", "action_init": b"", "action_type": "create", "action_reward_type": "block",
        "result_address": BOB, "transaction_hash": b"\x02" * 32, "block_hash": b"\x06" * 32, "error": "Reverted",
    },
    "geth_calls": {
        "typ": "CREATE", "from_address": BOB, "to_address": ALICE, "value_string": "51", "input": b"",
        "transaction_hash": b"\x02" * 32, "error": "out of gas",
    },
}  # fmt: skip


OF_CREATIONS = {
    "typ": "CALL", "action_type": "call", "transaction_hash": b"\x01" * 32, "action_init": b"x",
    "action_call_type": "call",
}  # fmt: skip


@pytest.mark.parametrize(("name", "column"), [(name, column) for name, wrong in CHANGES.items() for column in wrong])
def test_any_other_root_is_refused(name, column):
    make = MAKE[name]
    for wrong in (CHANGES[name][column], None):
        if make(0, CALL).get(column) != wrong:
            with pytest.raises(VerificationFailed, match=r"block=5 expected=.* got="):
                run(name, [make(0, CALL, **{column: wrong}), make(1, CREATE)])
    if column != "value_string":
        wrong = OF_CREATIONS.get(column, CHANGES[name][column])
        with pytest.raises(VerificationFailed, match=r"block=5 expected=.* got="):
            run(name, [make(0, CALL), make(1, CREATE, **{column: wrong})])


@pytest.mark.parametrize("name", MAKE)
def test_a_root_fails_exactly_when_the_receipt_says_so(name):
    make = MAKE[name]
    created = "to_address" if name == "geth_calls" else "result_address"
    for address in (None, BOB):  # nodes return different addresses for a failed creation
        run(
            name,
            [make(0, CALL, error="x"), make(1, CREATE, error="y", **{created: address})],
            receipts=(FAILED, FAILED),
        )
    with pytest.raises(VerificationFailed, match="agree with the receipt's status block=5 expected=a text got=null"):
        run(name, [make(0, CALL), make(1, CREATE)], receipts=(FAILED, OK))
    with pytest.raises(VerificationFailed, match="agree with the receipt's status block=5 expected=null got=x"):
        run(name, [make(0, CALL), make(1, CREATE, error="x")])


@pytest.mark.parametrize("name", MAKE)
def test_before_byzantium_receipts_say_nothing_of_failure(name):
    make = MAKE[name]
    created = "to_address" if name == "geth_calls" else "result_address"
    old = replace(OK, succeeded=None, post_state=bytes(32))
    run(name, [make(0, CALL, error="x"), make(1, CREATE, error="x", **{created: None})], receipts=(old, old))
    run(name, [make(0, CALL), make(1, CREATE)], receipts=(old, old))
    with pytest.raises(VerificationFailed, match=f"{created} is not what the chain says"):
        run(name, [make(0, CALL), make(1, CREATE, **{created: BOB})], receipts=(old, old))


@pytest.mark.parametrize("name", MAKE)
def test_senders_nobody_names_are_not_compared(name):
    make = MAKE[name]
    unnamed = [replace(each, sender=None) for each in (CALL, CREATE)]
    run(name, [make(0, CALL), make(1, CREATE)], transactions=unnamed)


@pytest.mark.parametrize("name", MAKE)
def test_what_follows_a_failed_creation_is_checked_too(name):
    make = MAKE[name]
    created = "to_address" if name == "geth_calls" else "result_address"
    pair = {"transactions": (CREATE, CREATE), "receipts": (FAILED, OK)}
    run(name, [make(0, CREATE, error="x", **{created: None}), make(1, CREATE)], **pair)
    expected = created_address(ALICE, CREATE.nonce).hex()
    with pytest.raises(VerificationFailed, match=f"block=5 expected=0x{expected} got=0x{BOB.hex()}"):
        run(name, [make(0, CREATE, error="x", **{created: None}), make(1, CREATE, **{created: BOB})], **pair)


@pytest.mark.parametrize("name", MAKE)
def test_each_transaction_has_its_tree(name):
    make = MAKE[name]
    with pytest.raises(VerificationFailed, match="as many call trees as the chain says block=5 expected=2 got=1"):
        run(name, [make(0, CALL)])
    with pytest.raises(VerificationFailed, match="as many call trees as the chain says block=5 expected=2 got=3"):
        run(name, [make(0, CALL), make(1, CREATE), make(2, CALL)])


def test_frames_below_the_root_belong_to_their_transaction():
    rows = [geth(0, CALL), geth(0, CALL, trace_address="0", typ="DELEGATECALL", input=b"?"), geth(1, CREATE)]
    run("geth_calls", rows)
    with pytest.raises(VerificationFailed, match="transaction_hash is not what the chain says block=5"):
        run("geth_calls", [rows[0], {**rows[1], "transaction_hash": CREATE.hash}, rows[2]])


def test_block_rewards_belong_to_no_tree():
    reward = {**trace(0, CALL), "transaction_index": None, "transaction_hash": None, "action_type": "reward",
              "action_reward_type": "block", "action_to": None}  # fmt: skip
    run("traces", [trace(0, CALL), trace(1, CREATE), reward])
    run("traces", [trace(0, CALL), reward, trace(1, CREATE)])
    with pytest.raises(VerificationFailed, match="occurs twice block=5 transaction=0 got=''"):
        run("traces", [reward, trace(0, CALL), trace(0, CALL), trace(1, CREATE)])


def test_frames_of_other_blocks():
    known = dataset("geth_calls")
    table = pa.Table.from_pylist([geth(0, CALL), geth(1, CREATE), geth(0, CALL, block_number=6)],
                                 schema=known.engine_schema(tuple(known.all_columns)))  # fmt: skip
    with pytest.raises(VerificationFailed, match="a row lies outside the range block=6 expected=5 got=6"):
        check_calls(table, [HEADER], [[CALL, CREATE]], [[OK, OK]])


def special(form, kind):
    return replace(CALL, hash=b"\x03" * 32, kind=kind, form=form)


def own_frame(name, index, transaction):
    """Return a root frame that a node makes up: it shares nothing with the transaction but its hash."""
    if name == "traces":
        return trace(index, replace(transaction, to=ALICE, value=1, input=b"\x09"), action_from=BOB, error="x")
    return geth(index, replace(transaction, to=ALICE, value=1, input=b"\x09", sender=BOB), typ="STOP", error="x")


OWN = [("arbitrum_deposit", 0x64), ("arbitrum_submit_retryable", 0x69), ("arbitrum_internal", 0x6A)]
OPTIONAL = [("polygon_state_sync", 0x7F), ("polygon_state_sync", 0), ("arbitrum_classic", 0x78)]
ENDED_EARLY = [("op_deposit", 0x7E), ("scroll_l1_message", 0x7E), ("arbitrum_retry", 0x68)]
AS_SENT = [("celo_fee_currency", 0x7B), ("arbitrum_unsigned", 0x65), ("arbitrum_contract", 0x66)]


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize(("form", "kind"), [*OWN, *OPTIONAL])
def test_a_root_frame_that_nodes_make_up_is_no_lie_but_must_exist(name, form, kind):
    transactions = (special(form, kind), CALL)
    found = run(name, [own_frame(name, 0, transactions[0]), MAKE[name](1, CALL)], transactions=transactions)
    assert f"root frames of type {kind:#x} transactions" in found.unproven
    with pytest.raises(VerificationFailed):  # the frames of other transactions are compared as ever
        run(name, [own_frame(name, 0, transactions[0]), own_frame(name, 1, CALL)], transactions=transactions)
    with pytest.raises(VerificationFailed):  # only at the end of a block a frame may be missing
        run(name, [MAKE[name](0, CALL)], transactions=transactions)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize(("form", "kind"), [*OWN, *OPTIONAL, *ENDED_EARLY, *AS_SENT])
def test_the_last_frame_of_a_block_may_be_missing_for_some_forms_only(name, form, kind):
    transactions = (CALL, special(form, kind))
    rows = [MAKE[name](0, CALL)]
    if (form, kind) in OPTIONAL:
        assert run(name, rows, transactions=transactions).level == "crosschecked"
        with pytest.raises(VerificationFailed, match="call trees"):
            run(name, [], transactions=transactions)
    else:
        with pytest.raises(VerificationFailed, match="call trees"):
            run(name, rows, transactions=transactions)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize(("form", "kind"), ENDED_EARLY)
def test_a_failed_transaction_that_ended_before_its_call_has_any_frame(name, form, kind):
    transactions = (special(form, kind), CALL)
    rows = [own_frame(name, 0, transactions[0]), MAKE[name](1, CALL)]
    found = run(name, rows, transactions=transactions, receipts=(FAILED, OK))
    assert found.level == "crosschecked"
    assert f"root frames of type {kind:#x} transactions" in found.unproven
    with pytest.raises(VerificationFailed):
        run(name, rows, transactions=transactions)
    as_sent = run(name, [MAKE[name](0, transactions[0]), MAKE[name](1, CALL)], transactions=transactions)
    assert not any("0x" in each for each in as_sent.unproven)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize(("form", "kind"), AS_SENT)
def test_other_forms_have_a_root_frame_as_they_were_sent(name, form, kind):
    transactions = (special(form, kind), CALL)
    assert run(name, [MAKE[name](0, transactions[0]), MAKE[name](1, CALL)], transactions=transactions)
    with pytest.raises(VerificationFailed):
        run(name, [own_frame(name, 0, transactions[0]), MAKE[name](1, CALL)], transactions=transactions)


@pytest.mark.parametrize("name", MAKE)
def test_the_address_of_a_created_contract_needs_a_nonce_that_is_committed(name):
    deposit = replace(special("op_deposit", 0x7E), to=None)
    elsewhere = {"result_address": BOB} if name == "traces" else {"to_address": BOB}
    found = run(name, [MAKE[name](0, deposit, **elsewhere), MAKE[name](1, CALL)], transactions=(deposit, CALL))
    assert "addresses of contracts that type 0x7e transactions create" in found.unproven
    with pytest.raises(VerificationFailed, match="is not what the chain says"):
        run(name, [MAKE[name](0, CREATE, **elsewhere), MAKE[name](1, CALL)], transactions=(CREATE, CALL))


def test_a_block_without_transactions_needs_no_frames():
    assert run("geth_calls", [], transactions=(), receipts=()).level == "crosschecked"
