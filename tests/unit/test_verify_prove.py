"""Evidence is proven from raw answers: real blocks, devchain blocks, and every type of transaction."""

import copy
import json

import coincurve
import pytest
import rlp
from msgspec.structs import replace

from tests.support.left_out import REAL_BLOCKS, leave_out
from tests.support.proven import DEVCHAIN_ROW, ETHEREUM, REAL, devchain, evidence_of, real, real_folder
from trace_dagster.blocks import BlockRange
from trace_dagster.devchain.crypto import Account, list_root, logs_bloom
from trace_dagster.errors import UnknownForm, UnknownFormat, VerificationFailed
from trace_dagster.verify.commitments import prove
from trace_dagster.verify.commitments.hex import data
from trace_dagster.verify.commitments.keccak import keccak
from trace_dagster.verify.commitments.prove import recover_sender, require_linked
from trace_dagster.verify.commitments.rpc_json import decode_block, decode_receipts
from trace_dagster.verify.model import Header

TO = bytes(range(20))
KEY = b"\x07" * 32


def prove_header(raw, number, chain=DEVCHAIN_ROW):
    return prove.prove_header(raw, number, chain)


def prove_transactions(raw, header, **more):
    return prove.prove_transactions(raw, header, DEVCHAIN_ROW, **more)


def receipts_of(raw, header):
    return prove.receipts_of(raw, header, DEVCHAIN_ROW)


def block(answer, *, full=True):
    return decode_block(json.dumps(answer).encode(), full=full)


def receipts(answer):
    return decode_receipts(json.dumps(answer).encode())


def changed(answer, **members):
    return {**copy.deepcopy(answer), **members}


def header_with(**roots):
    given = {"transactions_root": bytes(32), "receipts_root": bytes(32), "logs_bloom": bytes(256), **roots}
    return Header(9, b"\x01" * 32, b"\x02" * 32, base_fee_per_gas=100, **given)


def test_devchain_blocks_prove_to_what_the_chain_holds():
    found = devchain().evidence
    assert {each.kind for inside in found.transactions for each in inside} == {0, 1, 2, 4}
    for (answer, receipts_), header in zip(devchain().answers, found.headers, strict=True):
        assert header.timestamp == int(answer["timestamp"], 16)
        assert len(receipts_) == len(answer["transactions"])


@pytest.mark.parametrize("number", REAL)
def test_real_blocks_prove_whole(number):
    if real_folder() is None:
        leave_out(REAL_BLOCKS)
    found = real(number)
    answer, receipts_ = found.answers[0]
    [header], [transactions], [outcomes] = (
        found.evidence.headers, found.evidence.transactions, found.evidence.receipts,
    )  # fmt: skip
    assert header.hash.hex() == answer["hash"][2:]
    assert [each.hash.hex() for each in transactions] == [each["hash"][2:] for each in answer["transactions"]]
    assert [each.gas_price for each in transactions] == [int(each["gasPrice"], 16) for each in answer["transactions"]]
    assert [each.gas_used for each in outcomes] == [int(each["gasUsed"], 16) for each in receipts_]
    small = {**answer, "transactions": [each["hash"] for each in answer["transactions"]]}
    assert prove_header(block(small, full=False), number, ETHEREUM) == header


HEADER = {
    "parentHash": b"\x01" * 32, "sha3Uncles": b"\x02" * 32, "miner": TO, "stateRoot": b"\x03" * 32,
    "transactionsRoot": b"\x04" * 32, "receiptsRoot": b"\x05" * 32, "logsBloom": b"\x06" * 256, "difficulty": 2**80,
    "number": 7, "gasLimit": 0, "gasUsed": 30, "timestamp": 0, "extraData": b"x", "mixHash": b"\x08" * 32,
    "nonce": b"\x09" * 8, "baseFeePerGas": 11, "withdrawalsRoot": b"\x0a" * 32, "blobGasUsed": 0, "excessBlobGas": 13,
    "parentBeaconBlockRoot": b"\x0b" * 32, "requestsHash": b"\x0c" * 32, "blockAccessListHash": b"\x0d" * 32,
    "slotNumber": 14,
}  # fmt: skip


def said(value):
    return hex(value) if isinstance(value, int) else "0x" + value.hex()


def header_answer(fields, **more):
    found = {name: said(value) for name, value in fields.items()}
    return {**found, "hash": said(keccak(rlp.encode(list(fields.values())))), "transactions": [], **more}


def first(count):
    return dict(list(HEADER.items())[:count])


@pytest.mark.parametrize("count", [15, 16, 17, 19, 20, 21, 23])
def test_headers_of_every_fork(count):
    header = prove_header(block(header_answer(first(count))), 7)
    assert header == Header(
        number=7, hash=keccak(rlp.encode(list(first(count).values()))), parent_hash=b"\x01" * 32,
        transactions_root=b"\x04" * 32, receipts_root=b"\x05" * 32, logs_bloom=b"\x06" * 256, state_root=b"\x03" * 32,
        author=TO, gas_used=30, extra_data=b"x", timestamp=0, base_fee_per_gas=11 if count > 15 else None,
    )  # fmt: skip


@pytest.mark.parametrize("name", HEADER)
def test_a_header_with_any_field_altered_does_not_prove(name):
    value = HEADER[name] + 1 if isinstance(HEADER[name], int) else bytes([HEADER[name][0] ^ 1]) + HEADER[name][1:]
    with pytest.raises(VerificationFailed, match=r"another block|does not give the block's hash"):
        prove_header(block({**header_answer(HEADER), name: said(value)}), 7)


@pytest.mark.parametrize("name", list(HEADER)[15:-1])
def test_a_gap_between_later_fields_is_refused(name):
    """A base fee given as blobGasUsed gives the same hash."""
    fields = {key: value for key, value in HEADER.items() if key != name}
    with pytest.raises(VerificationFailed, match=r"lacks a field that later ones need block=7$"):
        prove_header(block(header_answer(fields)), 7)


def test_a_member_that_is_no_header_field_is_harmless():
    prove_header(block(header_answer(HEADER, size="0x1", l2Extra={"deep": []}, uncles=[])), 7)


def test_a_header_field_this_version_does_not_know_is_an_unknown_format():
    fields = {**HEADER, "newHash": b"\x0d" * 32, "a": 1}
    with pytest.raises(
        UnknownFormat,
        match=r"^the header has members this version does not know block=7 members=a,newHash$",
    ):
        prove_header(block(header_answer(fields, size="0x1", author="0x", sealFields=[], totalDifficulty="0x0")), 7)


def test_a_wrong_hash_with_known_members_names_both():
    answer = header_answer(HEADER, withdrawals=[], uncles=[])
    with pytest.raises(
        VerificationFailed,
        match=f"^the header does not give the block's hash block=7 expected=0x{'11' * 32} got={answer['hash']}$",
    ):
        prove_header(block({**answer, "hash": "0x" + "11" * 32}), 7)


def test_another_block_is_named():
    with pytest.raises(VerificationFailed, match="another block block=8 expected=8 got=7"):
        prove_header(block(header_answer(HEADER)), 8)


def test_link_wants_each_parent():
    headers = devchain().evidence.headers
    require_linked(headers, None)
    require_linked(headers, headers[0].parent_hash)
    with pytest.raises(VerificationFailed, match="the block before block=20"):
        require_linked(headers, b"\x01" * 32)
    with pytest.raises(VerificationFailed, match="block=22"):
        require_linked([headers[0], headers[2]], None)


def signed(kind, *, chain=5, to=TO, protected=True, **more):
    """Return a transaction of any type, encoded by another RLP library as its EIP specifies, and its JSON."""
    given = {"nonce": 3, "gas": 90000, "value": 10**18, "input": b"\x00\x01", "price": 77, "tip": 9, "cap": 300, **more}
    body = [given["gas"], to or b"", given["value"], given["input"]]
    access = [[TO, [b"\x01" * 32, b"\x02" * 32]], [TO, []]]
    fees = [given["tip"], given["cap"]]
    auth = [[chain, TO, 4, 1, 2**200, 2**201], [0, TO, 2**63, 0, 1, 2]]
    fields = {
        0: [given["nonce"], given["price"], *body],
        1: [chain, given["nonce"], given["price"], *body, access],
        2: [chain, given["nonce"], *fees, *body, access],
        3: [chain, given["nonce"], *fees, *body, access, 8, [b"\x01" + bytes(31)]],
        4: [chain, given["nonce"], *fees, *body, access, auth],
    }[kind]
    head = bytes([kind]) if kind else b""
    unsigned = head + rlp.encode([*fields, chain, 0, 0] if kind == 0 and protected else fields)
    signature = coincurve.PrivateKey(KEY).sign_recoverable(keccak(unsigned), hasher=None)
    v = signature[64] + ((chain * 2 + 35 if protected else 27) if kind == 0 else 0)
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
    encoded = head + rlp.encode([*fields, v, r, s])
    sender = keccak(coincurve.PrivateKey(KEY).public_key.format(compressed=False)[1:])[12:]
    answer = {
        "type": hex(kind), "hash": said(keccak(encoded)), "nonce": said(given["nonce"]), "gas": said(given["gas"]),
        "value": said(given["value"]), "input": said(given["input"]), "to": said(to) if to else None,
        "from": said(sender), "v": hex(v), "r": hex(r), "s": hex(s), "gasPrice": said(given["price"]),
    }  # fmt: skip
    if kind:
        answer["chainId"] = hex(chain)
        answer["accessList"] = [{"address": said(a), "storageKeys": [said(k) for k in keys]} for a, keys in access]
    if kind >= 2:
        answer |= {"maxFeePerGas": said(given["cap"]), "maxPriorityFeePerGas": said(given["tip"])}
    if kind == 3:
        answer |= {"maxFeePerBlobGas": "0x8", "blobVersionedHashes": [said(b"\x01" + bytes(31))]}
    if kind == 4:
        names = ("chainId", "address", "nonce", "yParity", "r", "s")
        answer["authorizationList"] = [dict(zip(names, map(said, each), strict=True)) for each in auth]
    return encoded, answer


def full_block(*answers):
    return block({**header_answer(HEADER), "transactions": list(answers)})


@pytest.mark.parametrize("kind", range(5))
@pytest.mark.parametrize("to", [TO, None])
def test_every_type_of_transaction(kind, to):
    encoded, answer = signed(kind, to=to)
    header = header_with(transactions_root=list_root([encoded]))
    [found] = prove_transactions(full_block(answer), header, deep=True)
    assert (found.hash, found.kind, found.to) == (keccak(encoded), kind, to)
    assert (found.nonce, found.gas_limit, found.value, found.input) == (3, 90000, 10**18, b"\x00\x01")
    assert (found.max_fee_per_gas, found.max_priority_fee_per_gas) == ((300, 9) if kind >= 2 else (None, None))
    assert found.gas_price == (109 if kind >= 2 else 77)
    assert found.sender.hex() == answer["from"][2:]


def test_variants_nodes_write():
    legacy, of_legacy = signed(0, protected=False)
    del of_legacy["type"]
    typed, of_typed = signed(2, cap=104)
    of_typed["yParity"], of_typed["v"] = of_typed["v"], "0x1b"
    authorized, of_authorized = signed(4)
    for entry in of_authorized["authorizationList"]:
        entry["v"] = entry.pop("yParity")
    header = header_with(transactions_root=list_root([legacy, typed, authorized]))
    found = prove_transactions(full_block(of_legacy, of_typed, of_authorized), header, deep=True)
    assert [each.kind for each in found] == [0, 2, 4]
    assert found[1].gas_price == 104


def test_a_sender_is_hearsay_until_deep():
    encoded, answer = signed(2)
    header = header_with(transactions_root=list_root([encoded]))
    lied = full_block({**answer, "from": said(TO)})
    assert prove_transactions(lied, header)[0].sender == TO
    assert prove_transactions(full_block({k: v for k, v in answer.items() if k != "from"}), header)[0].sender is None
    with pytest.raises(VerificationFailed, match=r"signed by another than its sender block=9 expected=0x.* got=0x0001"):
        prove_transactions(lied, header, deep=True)


def test_a_signature_of_no_key():
    _, answer = signed(2)
    [raw] = full_block({**answer, "r": "0x" + "ff" * 32}).transactions
    with pytest.raises(VerificationFailed, match="belongs to no key block=9 hash=0x"):
        recover_sender(raw, 9)
    [raw] = full_block({**answer, "type": "0x0", "v": "0x0"}).transactions
    with pytest.raises(VerificationFailed, match="belongs to no key"):
        recover_sender(raw, 9)


def test_a_fee_cap_without_base_fee():
    encoded, answer = signed(2)
    header = replace(header_with(transactions_root=list_root([encoded])), base_fee_per_gas=None)
    with pytest.raises(VerificationFailed, match="a block without base fee block=9"):
        prove_transactions(full_block(answer), header)


@pytest.mark.parametrize("kind", ["0x5", "0x7e"])
def test_a_type_not_known_is_an_unknown_form(kind):
    _, answer = signed(2)
    unknown = {**answer, "type": kind, "hash": "0x" + "11" * 32}
    with pytest.raises(
        UnknownForm,
        match=f"^a transaction has a type this version does not know on this chain block=9 type={kind}$",
    ) as caught:
        prove_transactions(full_block(unknown), header_with())
    assert (caught.value.part, caught.value.kind, caught.value.block) == ("transactions", int(kind, 16), 9)
    with pytest.raises(UnknownForm, match=f"block=9 type={kind}$") as caught:
        receipts_of(receipts([{"type": kind, "status": "0x1", "cumulativeGasUsed": "0x1", "logs": []}]), header_with())
    assert (caught.value.part, caught.value.kind, caught.value.block) == ("receipts", int(kind, 16), 9)


def test_a_number_that_is_no_type():
    _, answer = signed(2)
    for kind in ("0x100", "0x" + "f" * 64):
        with pytest.raises(VerificationFailed, match="a transaction's type is no type block=9 expected=below 256"):
            prove_transactions(full_block({**answer, "type": kind}), header_with())


@pytest.mark.parametrize("true_type", range(5))
def test_an_invented_type_of_a_transaction_whose_fields_give_its_hash_is_a_lie(true_type):
    _, answer = signed(true_type)
    with pytest.raises(
        VerificationFailed, match=f"not of the type that the node claims block=9 expected={true_type:#x} got=0x5"
    ):
        prove_transactions(full_block({**answer, "type": "0x5"}), header_with())


REQUIRED = ["nonce", "gas", "value", "input", "r", "s", "v", "hash", "chainId", "maxFeePerGas", "maxPriorityFeePerGas",
            "accessList", "maxFeePerBlobGas", "blobVersionedHashes"]  # fmt: skip


@pytest.mark.parametrize("name", REQUIRED)
def test_a_transaction_that_lacks_a_member(name):
    encoded, answer = signed(3)
    header = header_with(transactions_root=list_root([encoded]))
    for broken in ({**answer, name: None}, {key: value for key, value in answer.items() if key != name}):
        with pytest.raises(VerificationFailed):
            prove_transactions(full_block(broken), header)
    _, other = signed(4)
    with pytest.raises(VerificationFailed, match=r"^a transaction lacks a list its type has block=9$"):
        prove_transactions(full_block({**other, "authorizationList": None}), header)


def test_a_wrong_hash_or_root_is_named():
    encoded, answer = signed(2)
    with pytest.raises(
        VerificationFailed,
        match=f"a transaction does not give its hash block=9 expected=0x{'11' * 32} got={answer['hash']}",
    ):
        prove_transactions(full_block({**answer, "hash": "0x" + "11" * 32}), header_with())
    with pytest.raises(
        VerificationFailed, match=r"the transactions root does not come out block=9 expected=0x00.* got=0x"
    ):
        prove_transactions(full_block(answer), header_with())
    assert encoded


LOG = {"address": said(TO), "topics": ["0x" + "0a" * 32, "0x" + "0b" * 32], "data": "0x00ff"}


def receipt_json(**members):
    return {"type": "0x2", "status": "0x1", "cumulativeGasUsed": "0x64", "logs": [LOG], **members}


def receipts_header(*fields):
    bloom = logs_bloom([TO, b"\x0a" * 32, b"\x0b" * 32])
    log = [TO, [b"\x0a" * 32, b"\x0b" * 32], b"\x00\xff"]
    encoded = [
        (bytes([kind]) if kind else b"") + rlp.encode([first_, gas, bloom, [log]]) for kind, first_, gas in fields
    ]
    return header_with(receipts_root=list_root(encoded), logs_bloom=bloom)


def test_receipts_with_status_and_type():
    header = receipts_header((2, 1, 100), (0, 0, 250))
    given = [
        receipt_json(transactionHash="0x" + "33" * 32),
        receipt_json(type=None, status="0x0", cumulativeGasUsed="0xfa"),
    ]
    one, two = receipts_of(receipts(given), header)
    assert (one.kind, one.succeeded, one.gas_used, one.transaction_hash) == (2, True, 100, b"\x33" * 32)
    assert (two.kind, two.succeeded, two.gas_used, two.transaction_hash) == (0, False, 150, None)
    assert one.logs == ((TO, (b"\x0a" * 32, b"\x0b" * 32), b"\x00\xff"),)
    with pytest.raises(VerificationFailed, match="the receipts root does not come out block=9"):
        receipts_of(receipts(given[::-1]), header)
    with pytest.raises(VerificationFailed, match="the logs bloom does not come out block=9"):
        receipts_of(receipts(given), replace(header, logs_bloom=bytes(256)))


def test_receipts_before_byzantium_hold_a_state_root():
    header = receipts_header((0, b"\x44" * 32, 100))
    [found] = receipts_of(receipts([receipt_json(type=None, status=None, root="0x" + "44" * 32)]), header)
    assert (found.succeeded, found.post_state) == (None, b"\x44" * 32)


def test_a_status_goes_before_a_state_root():
    header = receipts_header((2, 1, 100))
    [found] = receipts_of(receipts([receipt_json(root="0x" + "44" * 32)]), header)
    assert (found.succeeded, found.post_state) == (True, None)


def test_messages_of_receipts():
    with pytest.raises(
        VerificationFailed, match=r"^a receipt's status is neither 0 nor 1 block=9 expected=0 or 1 got=2$"
    ):
        receipts_of(receipts([receipt_json(status="0x2")]), header_with())
    many = [{**LOG, "topics": LOG["topics"] * 3}]
    with pytest.raises(VerificationFailed, match=r"^a log has too many topics block=9 expected=4 got=6$"):
        receipts_of(receipts([receipt_json(logs=many)]), header_with())


@pytest.mark.parametrize(
    "members",
    [
        {"status": "0x2"}, {"status": None}, {"status": ""}, {"cumulativeGasUsed": "-0x1"}, {"type": "x"},
        {"status": None, "root": "0x00"}, {"transactionHash": "0x33"},
        {"logs": [{**LOG, "topics": [LOG["topics"][0]] * 5}]},
        {"logs": [{**LOG, "address": "0x00"}]}, {"logs": [{**LOG, "topics": ["0x00"]}]},
        {"logs": [{**LOG, "data": "00"}]},
        {"cumulativeGasUsed": "0x" + "f" * 65},
    ],
)  # fmt: skip
def test_broken_receipts(members):
    with pytest.raises(VerificationFailed, match="block=9"):
        receipts_of(receipts([receipt_json(**members)]), receipts_header((2, 1, 100)))


def test_every_count_of_topics_and_size_of_data():
    logs = [
        [TO, [bytes([n]) * 32 for n in range(count)], b"\x05" * size] for count in range(5) for size in (0, 1, 60, 300)
    ]
    bloom = logs_bloom([TO, *[bytes([n]) * 32 for n in range(4)]])
    header = header_with(receipts_root=list_root([rlp.encode([1, 5, bloom, logs])]), logs_bloom=bloom)
    said_logs = [{"address": said(a), "topics": [said(t) for t in topics], "data": said(d)} for a, topics, d in logs]
    [found] = receipts_of(receipts([receipt_json(type="0x0", cumulativeGasUsed="0x5", logs=said_logs)]), header)
    assert len(found.logs) == 20


def test_an_account_of_the_devchain_recovers():
    account = Account("x")
    assert data("0x" + account.address.hex(), 0) == account.address


def test_evidence_of_a_wrong_block_does_not_prove():
    with pytest.raises(VerificationFailed, match="another block block=21"):
        evidence_of(BlockRange(21, 22), devchain().answers[:1])


def broken_anywhere(answer, wrong="0xzz"):
    """Yield the answer with each of its texts replaced, one at a time."""
    for key in answer if isinstance(answer, dict) else range(len(answer)):
        value = answer[key]
        given = [wrong] if isinstance(value, str) else broken_anywhere(value, wrong) if value else []
        for each in given:
            found = copy.copy(answer)
            found[key] = each
            yield found


MALFORMED = (
    r"^a member of the answer is missing or (no hex|no number|not of its length) "
    r"block={}( expected=\d+ bytes of hex)? got=0xzz$"
)


@pytest.mark.parametrize("kind", range(5))
def test_every_malformed_member_of_a_transaction_names_block_and_text(kind):
    encoded, answer = signed(kind)
    header = header_with(transactions_root=list_root([encoded]))
    unread = {"from", "gasPrice"} if kind >= 2 else {"from"}
    for broken in broken_anywhere({name: value for name, value in answer.items() if name not in unread}):
        with pytest.raises(VerificationFailed, match=MALFORMED.format(9)):
            prove_transactions(full_block(broken), header)
    with pytest.raises(VerificationFailed, match=MALFORMED.format(9)):
        prove_transactions(full_block({**answer, "from": "0xzz"}), header)
    [raw] = full_block({**answer, "v": "0xzz"}).transactions
    with pytest.raises(VerificationFailed, match=MALFORMED.format(9)):
        recover_sender(raw, 9)


def test_every_malformed_member_of_a_header_or_receipt_names_block_and_text():
    for broken in broken_anywhere(header_answer(HEADER)):
        with pytest.raises(VerificationFailed, match=MALFORMED.format(7)):
            prove_header(block(broken), 7)
    answer = receipt_json(transactionHash="0x" + "33" * 32)
    for broken in broken_anywhere(answer):
        with pytest.raises(VerificationFailed, match=MALFORMED.format(9)):
            receipts_of(receipts([broken]), receipts_header((2, 1, 100)))


@pytest.mark.parametrize("chain", [0, 1, 5])
def test_signatures_of_both_parities(chain):
    """Legacy v contains parity and chain id (EIP-155). An additional yParity only counts for typed transactions."""
    seen = set()
    for nonce in range(8):
        for kind, protected in ((0, True), (0, False), (1, True), (2, True)):
            _, answer = signed(kind, chain=chain, nonce=nonce, protected=protected)
            seen.add((kind, protected, int(answer["v"], 16) % 2))
            odd = {**answer, "yParity": "0x7"} if kind == 0 else {**answer, "yParity": answer["v"], "v": "0x9"}
            for given in (answer, odd):
                [raw] = full_block(given).transactions
                assert said(recover_sender(raw, 9)) == answer["from"]
                encoded = signed(kind, chain=chain, nonce=nonce, protected=protected)[0]
                header = header_with(transactions_root=list_root([encoded]))
                assert prove_transactions(full_block(given), header)[0].nonce == nonce
    assert len(seen) == 8


def test_roots_that_do_not_come_out_name_both():
    header = receipts_header((2, 1, 100))
    with pytest.raises(VerificationFailed, match=f"block=9 expected=0x{'11' * 32} got={said(header.receipts_root)}$"):
        receipts_of(receipts([receipt_json()]), replace(header, receipts_root=b"\x11" * 32))
    bloom = said(header.logs_bloom)[:18]
    with pytest.raises(
        VerificationFailed, match=rf"block=9 expected=0x0000.*\(256 bytes\) got={bloom}\.\.\(256 bytes\)$"
    ):
        receipts_of(receipts([receipt_json()]), replace(header, logs_bloom=bytes(256)))
