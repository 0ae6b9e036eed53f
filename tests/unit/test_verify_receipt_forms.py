"""Receipts of every form, encoded here a second time with the `rlp` package, and rows compared with them."""

import json
from dataclasses import replace as with_row

import pyarrow as pa
import pytest
import rlp
from msgspec.structs import replace

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.datasets.chain import Chain, Form
from trace_dagster.datasets.chains import chain_of
from trace_dagster.devchain.crypto import list_root, logs_bloom
from trace_dagster.errors import UnknownForm, VerificationFailed
from trace_dagster.verify.check import check_evidence
from trace_dagster.verify.commitments import prove
from trace_dagster.verify.commitments.keccak import keccak
from trace_dagster.verify.commitments.rpc_json import decode_receipts, decode_receipts_without_logs
from trace_dagster.verify.commitments.trie import EMPTY_ROOT
from trace_dagster.verify.model import Evidence, Header, Transaction
from trace_dagster.verify.rows.arrow import receipts_of_tables
from trace_dagster.verify.rows.rowwise import check_logs, check_transactions

ADDRESS, TOPIC, HASH = b"\x22" * 20, b"\x0a" * 32, b"\x01" * 32
LOG = [ADDRESS, [TOPIC], b"\x00\xff"]
UNLISTED = Chain(987654321, "unlisted", is_listed=False)
LATE = 100_000_000
"""A block number after every fork of the table."""


def said(value):
    return hex(value) if isinstance(value, int) else "0x" + value.hex()


LOG_JSON = {"address": said(ADDRESS), "topics": [said(TOPIC)], "data": "0x00ff"}


def encoded(kind, first, gas, *tail, logs=(LOG,)):
    """Return the bytes of a receipt. ``first`` is its status or state root."""
    bloom = logs_bloom([ADDRESS, TOPIC] if logs else [])
    return (bytes([kind]) if kind else b"") + rlp.encode([first, gas, bloom, list(logs), *tail])


def given(kind, gas, status=1, **more):
    return {
        "type": None if kind is None else hex(kind), "status": None if status is None else hex(status),
        "cumulativeGasUsed": hex(gas), "logs": [LOG_JSON], **more,
    }  # fmt: skip


def header(*items, number=LATE, **more):
    bloom = logs_bloom([ADDRESS, TOPIC]) if items else bytes(256)
    return Header(number, HASH, HASH, EMPTY_ROOT, list_root(list(items)), bloom, **more)


def receipts(answers, head, chain_id, **more):
    chain = chain_id if isinstance(chain_id, Chain) else chain_of(chain_id)
    return prove.receipts_of(decode_receipts(json.dumps(answers).encode()), head, chain, **more)


def transaction(kind, *, form=None, nonce=3, tx_hash=HASH):
    return Transaction(tx_hash, kind, ADDRESS, ADDRESS, 0, nonce, 0, 0, None, None, b"", form)


@pytest.mark.parametrize("kind", [0, 1, 4, 5, 0x3F, 0x55, 0x7F, 0xFF])
def test_a_receipt_of_any_type_in_the_standard_form_proves_itself(kind):
    """The root covers the type's byte: nobody can invent it. So logs are proven beside unknown transactions."""
    for chain in (UNLISTED, 1, 10, 42161):
        [found] = receipts([given(kind, 9)], header(encoded(kind, 1, 9)), chain)
        assert (found.kind, found.succeeded, found.gas_used) == (kind, True, 9)


@pytest.mark.parametrize("chain", [UNLISTED, 1, 10])
def test_an_unknown_type_is_no_lie_unless_a_known_type_gives_the_root(chain):
    strange = header(encoded(0x55, 1, 9, 1))  # a fifth field that nobody knows
    with pytest.raises(UnknownForm) as caught:
        receipts([given(0x55, 9)], strange, chain)
    assert (caught.value.part, caught.value.kind, caught.value.block) == ("receipts", 0x55, LATE)
    for kind in range(5):
        with pytest.raises(VerificationFailed, match="the receipts root does not come out"):
            receipts([given(0x55, 9)], header(encoded(kind, 1, 9)), chain)
    with pytest.raises(VerificationFailed, match="the receipts root does not come out"):
        receipts([given(2, 9)], strange, chain)


def test_a_deposits_receipt_before_and_since_canyon():
    before, since = header(encoded(0x7E, 1, 9)), header(encoded(0x7E, 1, 9, 77, 1))
    full = {"depositNonce": "0x4d", "depositReceiptVersion": "0x1"}
    for answer, head in (
        (given(0x7E, 9), before),
        (given(0x7E, 9, depositNonce="0x4d"), before),
        (given(0x7E, 9, **full), since),
        (given(0x7E, 9, depositNonce="0x4d"), since),  # an old node shows no version
    ):
        assert receipts([answer], head, 10)
    deposits = [transaction(0x7E, form="op_deposit", nonce=77)]
    assert receipts([given(0x7E, 9)], since, 10, transactions=deposits)
    assert receipts([given(0x7E, 9, depositReceiptVersion="0x1")], since, 10, transactions=deposits)
    with pytest.raises(UnknownForm, match="leaves out depositNonce"):
        receipts([given(0x7E, 9, depositReceiptVersion="0x1")], since, 10)
    for wrong in ({**full, "depositNonce": "0x4e"}, {**full, "depositReceiptVersion": "0x2"}):
        with pytest.raises(VerificationFailed, match="receipts root"):
            receipts([given(0x7E, 9, **wrong)], since, 10)
    with pytest.raises(VerificationFailed, match="receipts root"):
        receipts([given(0x7E, 9, **full)], since, 534352)  # Scroll's messages have no such fields


def test_a_missing_type_is_that_of_the_proven_transaction():
    head = header(encoded(2, 1, 9))
    assert receipts([given(None, 9)], head, 1, transactions=[transaction(2)])[0].kind == 2
    with pytest.raises(VerificationFailed, match="receipts root"):
        receipts([given(None, 9)], head, 1)
    with pytest.raises(VerificationFailed, match="not of its transaction's type block=100000000 expected=2 got=1"):
        receipts([given(1, 9)], head, 1, transactions=[transaction(2)])


@pytest.mark.parametrize(("kind", "member"), [(0x7B, "baseFee"), (0x7A, "feeInFeeCurrency")])
def test_celos_receipts_have_a_fifth_field_on_its_l2(kind, member):
    l2 = 31_056_500
    head = header(encoded(kind, 1, 9, 5), number=l2)
    assert receipts([given(kind, 9, **{member: "0x5"})], head, 42220)
    with pytest.raises(VerificationFailed, match="receipts root"):
        receipts([given(kind, 9, **{member: "0x6"})], head, 42220)
    with pytest.raises(UnknownForm, match="leaves out") as caught:
        receipts([given(kind, 9)], head, 42220)
    assert chain_of(42220).open_form(Form("receipts", caught.value.kind), l2).after_all
    before = header(encoded(kind, 1, 9), number=l2 - 1)
    assert receipts([given(kind, 9)], before, 42220)


def test_celo_before_its_l2_leaves_receipts_open_only_where_the_root_does_not_come_out():
    number = 20_000_000
    with_system_call = header(encoded(0, 1, 9), encoded(0, 1, 9), number=number)
    with pytest.raises(UnknownForm) as caught:
        receipts([given(0, 9)], with_system_call, 42220)
    row = chain_of(42220).open_form(Form("receipts", caught.value.kind), number)
    assert row is not None
    assert not row.after_all


def test_before_byzantium_a_receipt_has_a_state_root_and_no_status():
    early, root = 4_369_999, b"\x44" * 32
    head = header(encoded(0, root, 9), number=early)
    for answer in (
        given(0, 9, None, root=said(root)),
        given(None, 9, None, root=said(root)),
        given(0, 9, 1, root=said(root)),  # a made-up status beside the root is ignored
    ):
        [found] = receipts([answer], head, 1)
        assert (found.succeeded, found.post_state) == (None, root)
    for answer in (given(0, 9, 1), given(0, 9, None), given(0, 9, 0, root=None)):
        with pytest.raises(UnknownForm, match="no state root") as caught:
            receipts([answer], head, 1)
        assert chain_of(1).open_form(Form("receipts", caught.value.kind), early).after_all
    late = header(encoded(0, 1, 9), number=early + 1)
    assert receipts([given(0, 9, 1)], late, 1)[0].succeeded is True


def test_logs_alone_are_compared_with_the_bloom():
    [found] = receipts([given(0, 9)], header(encoded(0, 1, 9)), 10)
    prove.prove_logs_by_bloom(found.logs, header(encoded(0, 1, 9)))
    for wrong in ((), ((ADDRESS, (HASH,), b""),), ((HASH[:20], (TOPIC,), b""),)):
        with pytest.raises(VerificationFailed, match="the logs bloom does not come out"):
            prove.prove_logs_by_bloom(wrong, header(encoded(0, 1, 9)))


def test_a_block_without_transactions_has_no_receipts():
    assert prove.has_no_receipts(header())
    assert prove.has_no_transactions(header())
    assert not prove.has_no_receipts(header(encoded(0, 1, 9)))
    assert not prove.has_no_transactions(replace(header(), transactions_root=HASH))
    assert receipts([], header(), 1) == []


BEFORE_MADHUGIRI = 80_084_784
DERIVED = keccak(b"matic-bor-receipt-" + BEFORE_MADHUGIRI.to_bytes(8, "big") + HASH)


def outside(**more):
    return given(0, 0, transactionHash=said(DERIVED), **more)


def test_a_state_sync_receipt_before_madhugiri_is_in_no_root():
    head = header(encoded(0, 1, 9), number=BEFORE_MADHUGIRI)
    first = given(0, 9, transactionHash=said(HASH))
    found = receipts([first, outside()], head, 137)
    assert [(each.form, each.gas_used, len(each.logs)) for each in found] == [
        ("standard", 9, 1),
        ("outside_root", 0, 1),
    ]
    for chain_id, number in ((137, BEFORE_MADHUGIRI + 1), (1, BEFORE_MADHUGIRI)):
        with pytest.raises(VerificationFailed):
            receipts([first, outside()], replace(head, number=number), chain_id)
    with pytest.raises(VerificationFailed):
        receipts([first, {**outside(), "transactionHash": said(HASH)}], head, 137)


@pytest.mark.parametrize("places", [[0], [0, 2], [1, 2], [1, 2, 3]])
def test_a_state_sync_receipt_shifts_no_proven_log(places):
    answers = [given(0, 9, transactionHash=said(HASH))]
    for place in places:
        answers.insert(place, outside())
    head = header(encoded(0, 1, 9), number=BEFORE_MADHUGIRI)
    for read in (receipts, thin):
        with pytest.raises(VerificationFailed, match="not the last of its block"):
            read(answers, head, 137)


def test_a_system_receipt_of_hyperliquid_leaves_receipts_open_where_the_root_does_not_come_out():
    answers = [given(0, 9), given(0, 0, **{"from": "0x" + "22" * 20})]
    with pytest.raises(UnknownForm):
        receipts(answers, header(encoded(0, 1, 9)), 999)
    with pytest.raises(VerificationFailed):
        receipts(answers, header(encoded(0, 1, 9)), 1)
    assert receipts(answers[:1], header(encoded(0, 1, 9)), 999)


CLASSIC = 22_207_816


def test_a_receipt_of_arbitrum_classic_has_a_zero_byte_for_its_status():
    head = header(encoded(0, b"\x00", 9), number=CLASSIC)
    for kind in (0x78, None, 0):
        for status in (0, 1):
            [found] = receipts([given(kind, 9, status, gasUsed="0x8")], head, 42161)
            assert (found.form, found.succeeded, found.gas_used) == ("arbitrum_classic", status == 1, 8)
    with pytest.raises(VerificationFailed):
        receipts([given(0x78, 10)], head, 42161)
    with pytest.raises(VerificationFailed):
        receipts([given(0, 9)], header(encoded(0, b"\x00", 9), number=CLASSIC + 1), 42161)


@pytest.mark.parametrize("kind", [0x78, None, 0])
def test_a_receipt_of_arbitrum_classic_belongs_to_its_transaction_whatever_types_nodes_show(kind):
    head, span = header(encoded(0, b"\x00", 9), number=CLASSIC), BlockRange(CLASSIC, CLASSIC + 1)
    transactions = [transaction(0x78, form="arbitrum_classic")]
    answers = [given(kind, 9, 0, transactionHash=said(HASH))]
    inside = receipts(answers, head, 42161, transactions=transactions)
    check_evidence(Evidence([head], [transactions], [inside]), span)
    other = [replace(transactions[0], hash=HASH[:-1] + b"\x02")]
    with pytest.raises(VerificationFailed, match="of another transaction"):
        check_evidence(Evidence([head], [other], [inside]), span)


@pytest.mark.parametrize("chain_id", [1, 10, 137, 42161, 42220])
@pytest.mark.parametrize("number", [5, 30_000_000, 100_000_000])
def test_every_hostile_value_of_a_member_is_refused(chain_id, number):
    head = header(encoded(0x7E, 1, 9, 77, 1), number=number)
    honest = {
        **given(0x7E, 9, root=said(HASH)), "depositNonce": "0x4d", "depositReceiptVersion": "0x1", "baseFee": "0x1",
        "feeInFeeCurrency": "0x1", "gasUsed": "0x9", "transactionHash": said(HASH),
    }  # fmt: skip
    for member in honest:
        for wrong in (None, 5, True, [], {}, "0xzz", "", "0x" + "f" * 65, [{"address": 1}], -1, 10**400):
            answer = {**honest, member: wrong}
            try:
                [found] = receipts([answer], head, chain_id)
            except (VerificationFailed, UnknownForm):
                continue
            assert chain_id in (10, 42220)  # Celo is an OP Stack chain today
            assert (found.kind, found.cumulative_gas, found.succeeded) == (0x7E, 9, True)


def rows(*each):
    fields = dataset("transactions").engine_schema(
        ("block_number", "transaction_index", "transaction_hash", "transaction_type", "success", "gas_used", "nonce",
         "from_address")
    )  # fmt: skip
    return pa.Table.from_pylist(list(each), schema=fields)


def row(number, index, kind, success, gas, *, nonce=77, sender=ADDRESS, tx_hash=HASH):
    return {
        "block_number": number, "transaction_index": index, "transaction_hash": tx_hash, "transaction_type": kind,
        "success": success, "gas_used": gas, "nonce": nonce, "from_address": sender,
    }  # fmt: skip


def log_rows(number, *indices):
    topics = (f"topic{place}" for place in range(4))
    fields = dataset("logs").engine_schema(
        ("block_number", "transaction_index", "log_index", "address", *topics, "data")
    )
    each = [
        {"block_number": number, "transaction_index": index, "log_index": place, "address": ADDRESS, "topic0": TOPIC,
         "data": b"\x00\xff"}
        for place, index in enumerate(indices)
    ]  # fmt: skip
    return pa.Table.from_pylist(each, schema=fields)


def thin(answers, head, chain_id):
    return prove.claimed_receipts(decode_receipts_without_logs(json.dumps(answers).encode()), head, chain_of(chain_id))


def test_logs_of_a_state_sync_receipt_are_compared_with_the_nodes_own_only():
    number = BEFORE_MADHUGIRI
    head = header(encoded(0, 1, 9), number=number)
    answers = [given(0, 9, transactionHash=said(HASH)), outside()]
    table = log_rows(number, 0, 1)
    for inside in (thin(answers, head, 137), receipts(answers, head, 137)):
        assert check_logs(table, [head], [inside]).covered
    with pytest.raises(VerificationFailed, match="logs of a state-sync transaction"):
        check_logs(log_rows(number, 0), [head], [receipts(answers, head, 137)])
    with pytest.raises(VerificationFailed):
        check_logs(log_rows(number, 1), [head], [thin(answers, head, 137)])


def test_logs_prove_themselves_beside_an_unknown_type():
    answers = [given(0x55, 9)]
    head = header(encoded(0x55, 1, 9))
    assert check_logs(log_rows(LATE, 0), [head], [thin(answers, head, 1)]).covered
    with pytest.raises(UnknownForm):
        check_logs(log_rows(LATE), [head], [thin(answers, head, 1)])


def checked(head, table, inside, kinds):
    transactions = [transaction(kind, nonce=77, tx_hash=each) for each, kind in kinds]
    return check_transactions(table, [head], [transactions], [inside])


def test_rows_of_transactions_give_the_roots_of_special_receipts():
    deposit = header(encoded(0x7E, 1, 9, 77, 1), encoded(2, 0, 12))
    answers = [
        given(0x7E, 9, depositNonce="0x4d", depositReceiptVersion="0x1"), given(2, 12, 0),
    ]  # fmt: skip
    inside = receipts(answers, deposit, 10)
    kinds = [(HASH, 0x7E), (HASH[::-1], 2)]
    good = [row(LATE, 0, 0x7E, True, 9), row(LATE, 1, 2, False, 3)]
    assert "success" in checked(deposit, rows(*good), inside, kinds).covered
    for wrong in ({"success": False}, {"success": None}, {"gas_used": 8}):
        with pytest.raises(VerificationFailed):
            checked(deposit, rows({**good[0], **wrong}, good[1]), inside, kinds)


def test_rows_before_byzantium_have_no_success():
    early = header(encoded(0, b"\x44" * 32, 9), number=5)
    inside = receipts([given(0, 9, None, root="0x" + "44" * 32)], early, 1)
    assert "success" in checked(early, rows(row(5, 0, 0, None, 9)), inside, [(HASH, 0)]).covered
    for made_up in (True, False):
        with pytest.raises(VerificationFailed, match="expected=null"):
            checked(early, rows(row(5, 0, 0, made_up, 9)), inside, [(HASH, 0)])


def test_rows_of_receipts_without_a_status_in_the_root_are_those_of_the_receipts():
    classic = header(encoded(0, b"\x00", 9), number=CLASSIC)
    inside = receipts([given(0x78, 9, 0, gasUsed="0x8")], classic, 42161)
    kinds = [(HASH, 0x78)]
    assert not {"success", "gas_used"} & checked(classic, rows(row(CLASSIC, 0, 0x78, False, 8)), inside, kinds).covered
    for success, gas in ((True, 8), (False, 9), (None, 8)):
        with pytest.raises(VerificationFailed, match="is not what the chain says"):
            checked(classic, rows(row(CLASSIC, 0, 0x78, success, gas)), inside, kinds)


def test_receipts_from_rows_know_their_forms():
    span = BlockRange(LATE, LATE + 1)
    deposit = rows(row(LATE, 0, 0x7E, True, 9), row(LATE, 1, 2, False, 3))
    for items in ([encoded(0x7E, 1, 9, 77, 1), encoded(2, 0, 12)], [encoded(0x7E, 1, 9), encoded(2, 0, 12)]):
        [inside] = receipts_of_tables(deposit, None, span, chain_of(10))
        assert check_logs(log_rows(LATE, 0, 1), [header(*items)], [inside]).covered
    with pytest.raises(UnknownForm, match="rows do not hold all fields"):
        receipts_of_tables(deposit.drop_columns(["nonce"]), None, span, chain_of(10))
    with pytest.raises(UnknownForm, match="rows do not hold all fields"):
        receipts_of_tables(rows(row(LATE, 0, 0x7B, True, 9)), None, span, chain_of(42220))
    number = BEFORE_MADHUGIRI
    synced = rows(row(number, 0, 0, True, 9), row(number, 1, 0, True, 0, sender=bytes(20)))
    [inside] = receipts_of_tables(synced, None, BlockRange(number, number + 1), chain_of(137))
    assert check_logs(log_rows(number, 0, 1), [header(encoded(0, 1, 9), number=number)], [inside]).covered
    open_row = with_row(chain_of(1), open=chain_of(25).open)
    [inside] = receipts_of_tables(rows(row(LATE, 0, 0, True, 9)), None, span, open_row)
    assert inside[0].form == "unknown"
