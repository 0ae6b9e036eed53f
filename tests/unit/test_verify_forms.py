"""Every form of a transaction beyond types 0 to 4, encoded here a second time with the `rlp` package."""

import copy
import json
from contextlib import suppress
from dataclasses import replace as with_row

import coincurve
import pytest
import rlp

from trace_dagster.datasets.chain import Chain, Form
from trace_dagster.datasets.chains import chain_of
from trace_dagster.devchain.crypto import list_root
from trace_dagster.errors import UnknownForm, VerificationFailed
from trace_dagster.verify.commitments import prove
from trace_dagster.verify.commitments.keccak import keccak
from trace_dagster.verify.commitments.rpc_json import decode_block
from trace_dagster.verify.model import Header

KEY = b"\x07" * 32
SIGNER = keccak(coincurve.PrivateKey(KEY).public_key.format(compressed=False)[1:])[12:]
ME, YOU, THIRD = b"\x11" * 20, b"\x22" * 20, b"\x33" * 20
ARBOS = bytes(17) + b"\x0a\x4b\x05"
RETRYABLES = bytes(19) + b"\x6e"
ONE, TWO = b"\x01" * 32, b"\x02" * 32
NITRO = 30_000_000
"""A block number after every fork of the table."""


def said(value):
    if isinstance(value, bool) or value is None:
        return value
    return hex(value) if isinstance(value, int) else "0x" + value.hex()


def answer(kind, tx_hash, **members):
    zero = {"v": 0, "r": 0, "s": 0, "gasPrice": 0, "nonce": 0}
    found = {**zero, "value": 5, "gas": 21_000, "input": b"\xab\xcd", "to": YOU, "from": ME, **members}
    return {**{name: said(value) for name, value in found.items()}, "type": hex(kind), "hash": said(tx_hash)}


def typed(kind, fields):
    return bytes([kind]) + rlp.encode(fields)


def carried(kind, fields, **members):
    """Return (encoding, answer) of a transaction that carries its sender."""
    encoded = typed(kind, fields)
    return encoded, answer(kind, keccak(encoded), **members)


def signed(kind, fields, **members):
    """Return (encoding, answer) of a transaction that is signed with KEY."""
    unsigned = typed(kind, fields) if kind else rlp.encode([*fields, 42220, 0, 0])
    signature = coincurve.PrivateKey(KEY).sign_recoverable(keccak(unsigned), hasher=None)
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
    v = signature[64] if kind else signature[64] + 35 + 2 * 42220
    encoded = typed(kind, [*fields, v, r, s]) if kind else rlp.encode([*fields, v, r, s])
    return encoded, answer(kind, keccak(encoded), **{"v": v, "r": r, "s": s, "from": SIGNER, **members})


def op_deposit(**more):
    mint = more.get("mint", 7)
    fields = [
        ONE,
        ME,
        more.get("to", YOU) or b"",
        mint or 0,
        5,
        21_000,
        int(more.get("isSystemTx", False)),
        b"\xab\xcd",
    ]
    return carried(0x7E, fields, **{"sourceHash": ONE, "mint": mint, **more})


def retryable(retry_data=b"\x99" * 40, retry_to=THIRD):
    fields = [42161, ONE, ME, 11, 12, 13, 21_000, retry_to or b"", 14, YOU, 15, THIRD, retry_data]
    words = [ONE, *[each.to_bytes(32, "big") for each in (11, 12, 14, 13, 21_000, 15)]]
    words += [bytes(12) + each for each in (THIRD, YOU, retry_to or bytes(20))]
    words += [(352).to_bytes(32, "big"), len(retry_data).to_bytes(32, "big")]
    padded = retry_data + bytes(-len(retry_data) % 32)
    return carried(
        0x69, fields, chainId=42161, requestId=ONE, l1BaseFee=11, depositValue=12, maxFeePerGas=13, gasPrice=13,
        retryTo=retry_to, retryValue=14, beneficiary=YOU, maxSubmissionFee=15, refundTo=THIRD, retryData=retry_data,
        to=RETRYABLES, value=0, input=bytes.fromhex("c9f95d32") + b"".join(words) + padded,
    )  # fmt: skip


def arbitrum(kind):
    call = [13, 21_000, YOU, 5, b"\xab\xcd"]
    cap = {"chainId": 42161, "maxFeePerGas": 13, "gasPrice": 13}
    return {
        0x64: lambda: carried(
            0x64, [42161, ONE, ME, YOU, 5], chainId=42161, requestId=ONE, input=b"", gas=0
        ),
        0x65: lambda: carried(0x65, [42161, ME, 9, *call], chainId=42161, nonce=9, gasPrice=13),
        0x66: lambda: carried(0x66, [42161, ONE, ME, *call], requestId=ONE, **cap),
        0x68: lambda: carried(
            0x68, [42161, 9, ME, *call, TWO, THIRD, 21, 22], nonce=9, ticketId=TWO, refundTo=THIRD, maxRefund=21,
            submissionFeeRefund=22, **cap,
        ),
        0x69: retryable,
        0x6A: lambda: carried(
            0x6A, [42161, b"\xab\xcd"], chainId=42161, gas=0, value=0, to=ARBOS, **{"from": ARBOS}
        ),
    }[kind]()  # fmt: skip


ACCESS = [{"address": said(YOU), "storageKeys": [said(ONE)]}]
FEES = {"chainId": 42220, "nonce": 3, "maxPriorityFeePerGas": 2, "maxFeePerGas": 90, "gasPrice": 77}


def celo(kind, currency=THIRD):
    head, call, access = [42220, 3, 2, 90, 21_000], [YOU, 5, b"\xab\xcd"], [[YOU, [ONE]]]
    gateway = {"gatewayFeeRecipient": ME, "gatewayFee": 6, "feeCurrency": currency}
    encoded, found = {
        0x7B: lambda: signed(0x7B, [*head, *call, access, currency or b""], feeCurrency=currency, **FEES),
        0x7A: lambda: signed(
            0x7A, [*head, *call, access, currency or b"", 8], feeCurrency=currency, maxFeeInFeeCurrency=8, **FEES
        ),
        0x7C: lambda: signed(0x7C, [*head, currency or b"", ME, 6, *call, access], **gateway, **FEES),
        0: lambda: signed(
            0, [3, 77, 21_000, currency or b"", ME, 6, *call], nonce=3, gasPrice=77, ethCompatible=False, **gateway
        ),
    }[kind]()
    return encoded, {**found, "accessList": ACCESS} if kind else found


def scroll():
    return carried(0x7E, [4, 21_000, YOU, 5, b"\xab\xcd", ME], queueIndex=4)


CASES = {
    **{f"op {name}": (10, op_deposit(**more)) for name, more in {
        "deposit": {}, "without mint": {"mint": None}, "of the system": {"isSystemTx": True}, "creation": {"to": None},
    }.items()},
    **{f"arbitrum {kind:#x}": (42161, arbitrum(kind)) for kind in (0x64, 0x65, 0x66, 0x68, 0x69, 0x6A)},
    "arbitrum 0x69 creation": (42161, retryable(retry_to=None)),
    "arbitrum 0x69 without data": (42161, retryable(retry_data=b"")),
    **{f"celo {kind:#x}": (42220, celo(kind)) for kind in (0, 0x7A, 0x7B, 0x7C)},
    **{f"celo {kind:#x} in its own currency": (42220, celo(kind, None)) for kind in (0, 0x7A, 0x7B, 0x7C)},
    "scroll": (534352, scroll()),
}  # fmt: skip


def header_with(encodings, number=NITRO, **more):
    given = {
        "transactions_root": list_root(encodings), "receipts_root": bytes(32), "logs_bloom": bytes(256),
        "base_fee_per_gas": 10,
    }  # fmt: skip
    return Header(number, ONE, TWO, **{**given, **more})


def block(*transactions):
    required = ["hash", "parentHash", "miner", "stateRoot", "transactionsRoot", "receiptsRoot", "logsBloom", "number",
                "gasUsed", "timestamp", "extraData"]  # fmt: skip
    return decode_block(json.dumps({**dict.fromkeys(required, "0x"), "transactions": transactions}).encode(), full=True)


def proven(chain_id, encoded, *transactions, **more):
    return prove.prove_transactions(block(*transactions), header_with([encoded]), chain_of(chain_id), **more)


@pytest.mark.parametrize("name", CASES)
def test_every_form_gives_its_hash_and_root_with_its_sender(name):
    chain_id, (encoded, given) = CASES[name]
    [found] = proven(chain_id, encoded, given, deep=True)
    assert said(found.hash) == given["hash"]
    assert said(found.sender) == given["from"]
    assert said(found.value) == given["value"]
    assert said(found.input) == given["input"]
    assert said(found.gas_price) == given["gasPrice"]
    assert (found.kind, found.form is None) == (int(given["type"], 16), False)


@pytest.mark.parametrize("name", CASES)
def test_a_form_belongs_to_its_family_alone(name):
    """Another family refuses the form, and does not call it a lie."""
    chain_id, (encoded, given) = CASES[name]
    if given["type"] == "0x0":
        return
    for other in (1, 137, 10 if chain_id != 10 else 534352):
        if int(given["type"], 16) in chain_of(other).types:
            continue
        with pytest.raises(UnknownForm) as caught:
            proven(other, encoded, given)
        assert (caught.value.part, caught.value.kind) == ("transactions", int(given["type"], 16))
    if chain_id in (10, 534352):  # 0x7e is one thing here and another there
        with pytest.raises(VerificationFailed):
            proven(10 if chain_id != 10 else 534352, encoded, given)


UNHASHED = {"type", "hash", "gasPrice", "nonce", "v", "r", "s", "gas"}
"""Members that some forms do not hash and that are not derived either, or that are altered elsewhere."""


@pytest.mark.parametrize("name", CASES)
def test_every_altered_hashed_or_derived_member_is_refused(name):
    chain_id, (encoded, given) = CASES[name]
    for member, value in given.items():
        if member in UNHASHED or not isinstance(value, str):
            continue
        altered = {**given, member: value[:-1] + ("1" if value[-1] != "1" else "2") if len(value) > 2 else "0x01"}
        if member == "maxPriorityFeePerGas" and chain_id != 42220:
            continue
        with pytest.raises(VerificationFailed):
            proven(chain_id, encoded, altered, deep=True)


@pytest.mark.parametrize("name", CASES)
def test_every_hostile_value_of_a_member_is_refused_or_harmless(name):
    chain_id, (encoded, given) = CASES[name]
    [honest] = proven(chain_id, encoded, given)
    for member in given:
        for wrong in (None, 5, True, [], {}, "0xzz", "", "0x" + "f" * 65, [{"address": 1}], 10**400):
            with suppress(VerificationFailed, UnknownForm):
                [found] = proven(chain_id, encoded, {**given, member: wrong}, deep=True)
                for name_of_field in ("hash", "kind", "sender", "to", "value", "input", "form"):
                    assert getattr(found, name_of_field) == getattr(honest, name_of_field)


@pytest.mark.parametrize("name", CASES)
def test_an_invented_or_dropped_type_is_a_lie(name):
    chain_id, (encoded, given) = CASES[name]
    for claimed in {"0x5", "0x63", "0x1", "0x0"} - {given["type"]}:
        with pytest.raises(VerificationFailed):
            proven(chain_id, encoded, {**given, "type": claimed if claimed != "0x0" else None})


def test_nodes_leave_out_what_a_deposit_does_not_have():
    encoded, given = op_deposit()
    bare = {name: value for name, value in given.items() if name not in ("r", "s", "v")}
    [found] = proven(10, encoded, {**bare, "gasPrice": None})
    assert found.gas_price is None
    with pytest.raises(UnknownForm, match="leaves out the nonce of a deposit"):
        proven(10, encoded, {name: value for name, value in given.items() if name != "nonce"})
    with pytest.raises(VerificationFailed, match="no boolean"):
        proven(10, encoded, {**given, "isSystemTx": "0x1"})


def test_the_root_covers_special_transactions():
    encoded, given = op_deposit()
    with pytest.raises(VerificationFailed, match="the transactions root does not come out"):
        prove.prove_transactions(block(given), header_with([encoded, encoded]), chain_of(10))


def test_a_lie_goes_before_an_unknown_form():
    """A transaction that contradicts its hash is a lie, even beside one of an unknown type."""
    unknown = answer(0x44, TWO)
    encoded, given = op_deposit()
    with pytest.raises(UnknownForm):
        prove.prove_transactions(block(unknown, given), header_with([encoded]), chain_of(10))
    with pytest.raises(VerificationFailed, match="does not give its hash"):
        prove.prove_transactions(block(unknown, {**given, "value": "0x6"}), header_with([encoded]), chain_of(10))


LEGACY = {"nonce": 3, "gasPrice": 10**20, "gas": 21_000}


def classic(*, unsigned=False):
    fields = [3, 10**20, 21_000, YOU, 5, b"\xab\xcd"]
    if unsigned:
        return rlp.encode([*fields, 0, 0, 0]), answer(0x78, b"\x0f" * 32, **LEGACY)
    digest = keccak(rlp.encode([*fields, 42161, 0, 0]))
    signature = coincurve.PrivateKey(KEY).sign_recoverable(digest, hasher=None)
    v = signature[64] + 35 + 2 * 42161
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
    encoded = rlp.encode([*fields, v, r, s])
    return encoded, answer(0x78, keccak(encoded), **{**LEGACY, "v": v, "r": r, "s": s, "from": SIGNER})


CLASSIC = 22_207_816
ARBITRUM = chain_of(42161)


def test_a_signed_transaction_of_arbitrum_classic_is_a_legacy_one_whatever_type_nodes_show():
    encoded, given = classic()
    for kind in ("0x78", None, "0x0"):
        [found] = prove.prove_transactions(
            block({**given, "type": kind}), header_with([encoded], CLASSIC, base_fee_per_gas=None), ARBITRUM, deep=True
        )
        assert (found.form, found.gas_price, found.sender) == ("arbitrum_classic", 10**20, SIGNER)
    with pytest.raises(VerificationFailed, match="does not give its hash"):
        prove.prove_transactions(block({**given, "value": "0x6"}), header_with([encoded], CLASSIC), ARBITRUM)
    with pytest.raises(VerificationFailed, match="not of the type"):  # there are none after Nitro
        prove.prove_transactions(block(given), header_with([encoded], CLASSIC + 1), ARBITRUM)


def test_the_hash_of_an_unsigned_transaction_of_arbitrum_classic_stays_open_but_not_its_fields():
    encoded, given = classic(unsigned=True)
    with pytest.raises(UnknownForm, match="unsigned Arbitrum Classic") as caught:
        prove.prove_transactions(block(given), header_with([encoded], CLASSIC), ARBITRUM)
    assert ARBITRUM.open_form(Form(caught.value.part, caught.value.kind), CLASSIC) is not None
    with pytest.raises(VerificationFailed, match="transactions root"):
        prove.prove_transactions(block({**given, "value": "0x6"}), header_with([encoded], CLASSIC), ARBITRUM)


def test_a_signed_transaction_that_claims_to_be_unsigned_contradicts_the_root():
    encoded, given = classic()
    stripped = {**given, "v": "0x0", "r": "0x0", "s": "0x0", "hash": said(TWO)}
    with pytest.raises(VerificationFailed, match="transactions root"):
        prove.prove_transactions(block(stripped), header_with([encoded], CLASSIC), ARBITRUM)


POLYGON = chain_of(137)
BEFORE, AFTER = 80_084_784, 80_084_800
"""Two starts of a sprint, before the Madhugiri fork and at it."""


def derived(number):
    return keccak(b"matic-bor-receipt-" + number.to_bytes(8, "big") + ONE)


def state_sync(**more):
    zero = {"from": bytes(20), "to": bytes(20), "value": 0, "gas": 0, "input": b"", **more}
    return answer(0, derived(BEFORE), **zero)


def test_a_state_sync_transaction_before_madhugiri_is_in_no_root():
    legacy, given = signed(0, [3, 77, 21_000, YOU, 5, b"\xab\xcd"], nonce=3, gasPrice=77)
    header = header_with([legacy], BEFORE)
    found = prove.prove_transactions(block(given, state_sync()), header, POLYGON, deep=True)
    assert [each.form for each in found] == [None, "polygon_state_sync"]
    assert len(prove.prove_transactions(block(given), header, POLYGON)) == 1
    for lie in ({"value": 1}, {"to": YOU}, {"from": ME}, {"input": b"\x01"}, {"nonce": 1}, {"r": 1}, {"gas": 1}):
        with pytest.raises(VerificationFailed, match="a state-sync transaction has"):
            prove.prove_transactions(block(given, state_sync(**lie)), header, POLYGON)
    with pytest.raises(VerificationFailed, match="not the last of its block"):
        prove.prove_transactions(block(state_sync(), given), header, POLYGON)
    with pytest.raises(VerificationFailed, match="of another type"):
        prove.prove_transactions(block(given, {**state_sync(), "type": "0x2"}), header, POLYGON)
    with pytest.raises(VerificationFailed):  # another hash is an unsigned transaction that the root lacks
        prove.prove_transactions(block(given, {**state_sync(), "hash": said(TWO)}), header, POLYGON)
    after = {**state_sync(), "hash": said(derived(AFTER))}
    with pytest.raises(VerificationFailed):  # after the fork there is none
        prove.prove_transactions(block(given, after), header_with([legacy], AFTER), POLYGON)
    for number in (BEFORE - 1, BEFORE - 8, 38_189_056 - 16):  # nor between the starts of sprints
        between = {**state_sync(), "hash": said(derived(number))}
        with pytest.raises(VerificationFailed):
            prove.prove_transactions(block(given, between), header_with([legacy], number), POLYGON)
    with pytest.raises(VerificationFailed):  # nor on another chain
        prove.prove_transactions(block(given, state_sync()), header, chain_of(1))


def test_a_state_sync_transaction_since_madhugiri_is_proven_by_its_bytes():
    legacy, given = signed(0, [3, 77, 21_000, YOU, 5, b"\xab\xcd"], nonce=3, gasPrice=77)
    encoded = typed(0x7F, [[1, YOU, b"\x01\x02", ONE], [2, ME, b"", TWO]])
    last = answer(0x7F, keccak(encoded), **{"from": bytes(20), "to": bytes(20), "value": 0, "gas": 0, "input": b""})
    raw, header = block(given, last), header_with([legacy, encoded], AFTER)
    assert prove.raw_needed(raw, header, POLYGON) == [1]
    assert prove.raw_needed(raw, header, chain_of(1)) == []
    found = prove.prove_transactions(raw, header, POLYGON, raw_bytes={1: encoded})
    assert (found[1].kind, found[1].form) == (0x7F, "polygon_state_sync")
    with pytest.raises(UnknownForm) as caught:
        prove.prove_transactions(raw, header, POLYGON)
    assert POLYGON.open_form(Form(caught.value.part, caught.value.kind), AFTER).after_all
    for wrong in (legacy, encoded + b"\x00", b"", encoded[1:]):
        with pytest.raises(VerificationFailed):
            prove.prove_transactions(raw, header, POLYGON, raw_bytes={1: wrong})
    for lie in ({"value": "0x1"}, {"input": "0x01"}):
        with pytest.raises(VerificationFailed, match="has a value or an input"):
            prove.prove_transactions(block(given, {**last, **lie}), header, POLYGON, raw_bytes={1: encoded})


@pytest.mark.parametrize("sender", [b"\x22" * 20, b"\x20" + bytes(17) + b"\x01\x02"])
def test_a_system_transaction_of_hyperliquid_is_in_no_root_and_leaves_its_block_open(sender):
    encoded = rlp.encode([3, 0, 21_000, YOU, 5, b"\xab\xcd", 0, 0, 0])
    given = answer(0, keccak(encoded), **{"nonce": 3, "from": sender})
    with pytest.raises(UnknownForm, match="own address") as caught:
        prove.prove_transactions(block(given), header_with([]), chain_of(999))
    assert chain_of(999).open_form(Form("transactions", caught.value.kind), NITRO).after_all
    with pytest.raises(VerificationFailed):
        prove.prove_transactions(block(given), header_with([]), chain_of(1))
    with pytest.raises(VerificationFailed):
        prove.prove_transactions(block({**given, "from": said(ME)}), header_with([]), chain_of(999))


def test_a_legacy_transaction_without_a_signature_has_no_sender_to_recover():
    """OP before Bedrock took transactions from L1 in this form."""
    encoded = rlp.encode([3, 0, 21_000, YOU, 5, b"\xab\xcd", 0, 0, 0])
    given = answer(0, keccak(encoded), nonce=3)
    [found] = prove.prove_transactions(block(given), header_with([encoded], 10_000), chain_of(10), deep=True)
    assert found.sender == ME


def test_arbitrum_nodes_show_the_base_fee_alone_as_the_price():
    fields = [42161, 3, 2, 90, 21_000, YOU, 5, b"\xab\xcd", []]
    encoded, given = signed(2, fields, chainId=42161, nonce=3, maxPriorityFeePerGas=2, maxFeePerGas=90, accessList=None)
    given = {**given, "accessList": []}
    for shown, price in ((10, 10), (12, 12), (11, 12)):
        [found] = proven(42161, encoded, {**given, "gasPrice": hex(shown)})
        assert found.gas_price == price
    [found] = proven(1, encoded, {**given, "gasPrice": "0xa"})
    assert found.gas_price == 12


def test_a_chain_whose_transactions_root_never_comes_out_leaves_transactions_open():
    encoded, given = signed(0, [3, 77, 21_000, YOU, 5, b"\xab\xcd"], nonce=3, gasPrice=77)
    header = header_with([], is_proven=False)
    with pytest.raises(UnknownForm) as caught:
        prove.prove_transactions(block(given), header, chain_of(324))
    assert (caught.value.part, caught.value.kind) == ("transactions", None)
    priority = answer(0xFF, TWO)
    with pytest.raises(UnknownForm) as caught:
        prove.prove_transactions(block(priority), header, chain_of(324))
    assert caught.value.kind == 0xFF
    assert chain_of(324).open_form(Form(caught.value.part, caught.value.kind), 5) is not None
    assert encoded


def test_an_unlisted_chain_has_standard_types_only():
    unlisted = Chain(987654321, "x", is_listed=False)
    encoded, given = op_deposit()
    with pytest.raises(UnknownForm):
        prove.prove_transactions(block(given), header_with([encoded]), unlisted)
    row = with_row(unlisted, types={0x7E: "op_deposit"})
    assert prove.prove_transactions(block(copy.deepcopy(given)), header_with([encoded]), row)


@pytest.mark.parametrize("kind", [0x65, 0x66, 0x68, 0x69])
def test_a_price_beside_the_hashed_cap_of_an_arbitrum_transaction_is_said_to_be_unproven(kind):
    """The hash covers the cap: a node that shows one is believed any other gasPrice."""
    encoded, found = arbitrum(kind)
    found |= {"maxFeePerGas": said(13), "gasPrice": said(999)}
    assert proven(42161, encoded, found)[0].gas_price == 999
    assert f"gas_price of type {kind:#x} transactions" in prove.unproven_columns(chain_of(42161), [kind], NITRO)


def test_a_price_that_may_be_one_of_two_is_said_to_be_unproven():
    """Some of Arbitrum's nodes show the base fee alone, others the price with its tip: a node may choose."""
    fees = {**FEES, "chainId": 42161}
    encoded, given = signed(2, [42161, 3, 2, 90, 21_000, YOU, 5, b"\xab\xcd", []], **{**fees, "gasPrice": 10})
    given["accessList"] = []
    prices = {proven(42161, encoded, {**given, "gasPrice": said(each)})[0].gas_price for each in (10, 12, 77)}
    assert prices == {10, 12}
    assert prove.unproven_columns(chain_of(42161), [0, 2, 0x6A], NITRO)[0].startswith("nonce of type 0x6a")
    assert "gas_price of type 0x2 transactions" in prove.unproven_columns(chain_of(42161), [0, 2], NITRO)
    assert prove.unproven_columns(chain_of(10), [0, 2], NITRO * 10) == []
