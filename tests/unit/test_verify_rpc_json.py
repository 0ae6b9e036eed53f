"""Any hostile answer raises VerificationFailed or UnknownFormat."""

import copy
import json
import os

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.proven import DEVCHAIN_ROW, devchain
from trace_dagster.errors import RETRYABLE, TraceError, UnknownFormat, VerificationFailed
from trace_dagster.verify.commitments.prove import prove_header, prove_transactions, receipts_of
from trace_dagster.verify.commitments.rpc_json import decode_block, decode_receipts

EXAMPLES = int(os.environ.get("TRACE_VERIFY_EXAMPLES", "40"))
BLOCK, RECEIPTS = max(devchain().answers, key=lambda answer: len(answer[0]["transactions"]))
HEADER = next(each for each in devchain().evidence.headers if each.number == int(BLOCK["number"], 16))

hostile = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(10**400, 10**401),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        ["", "0x", "0x0", "-0x1", "0x-1", "0x 1", "0xzz", "0x" + "f" * 65, "0x" + "f" * 64, "0x5", "0x１", "é"]
    ),
    st.lists(st.none(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.none(), max_size=2),
    st.binary(max_size=40).map(lambda data: "0x" + data.hex()),
)


def places(node, path=()):
    """Yield the path of every value in a JSON document."""
    yield path
    if isinstance(node, dict | list):
        for key, child in node.items() if isinstance(node, dict) else enumerate(node):
            yield from places(child, (*path, key))


def altered(document, path, value):
    if not path:
        return value
    found = copy.deepcopy(document)
    at = found
    for key in path[:-1]:
        at = at[key]
    if value is KeyError:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return found


def harmless(call):
    """Call it. Any other result than success or one of the two errors fails the test."""
    said = ""
    try:
        call()
    except (VerificationFailed, UnknownFormat) as error:
        said = str(error)
    assert said.isascii()
    assert len(said) < 700


def prove_block(answer):
    raw = decode_block(json.dumps(answer).encode(), full=True)
    prove_transactions(raw, prove_header(raw, HEADER.number, DEVCHAIN_ROW), DEVCHAIN_ROW, deep=True)


BLOCK_PLACES, RECEIPT_PLACES = list(places(BLOCK)), list(places(RECEIPTS))
fuzz = settings(max_examples=4 * EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@fuzz
@given(st.sampled_from(BLOCK_PLACES), st.one_of(hostile, st.just(KeyError)))
def test_a_block_with_anything_anywhere(path, value):
    if path or value is not KeyError:
        harmless(lambda: prove_block(altered(BLOCK, path, value)))


@fuzz
@given(st.sampled_from(RECEIPT_PLACES), st.one_of(hostile, st.just(KeyError)))
def test_receipts_with_anything_anywhere(path, value):
    if path or value is not KeyError:
        found = altered(RECEIPTS, path, value)
        harmless(lambda: receipts_of(decode_receipts(json.dumps(found).encode()), HEADER, DEVCHAIN_ROW))


@fuzz
@given(st.binary(max_size=60))
@example(b"")
@example(b"null")
@example(b"\xff")
@example(b'{"a":')
@example(b"[" * 100_000)
@example(b'{"withdrawals":' * 50_000)
@example(b'{"hash":"\\ud800"}')
def test_bytes_that_are_no_block(data):
    for decode in (lambda: decode_block(data, full=True), lambda: decode_block(data, full=False)):
        with pytest.raises(VerificationFailed, match="not of the form of a block reason="):
            decode()
    harmless(lambda: decode_receipts(data))


def test_depth_in_a_member_nobody_reads():
    text = json.dumps(BLOCK).encode()
    deep = text[:-1] + b',"more":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    harmless(lambda: prove_header(decode_block(deep, full=True), HEADER.number, DEVCHAIN_ROW))


def test_receipts_that_are_none():
    with pytest.raises(VerificationFailed, match="not of the form of receipts reason=Expected"):
        decode_receipts(b"null")


def test_raw_json_inside_an_answer_is_taken_as_is():
    answer = msgspec.json.decode(json.dumps({"result": BLOCK}).encode(), type=dict[str, msgspec.Raw])
    assert prove_header(decode_block(answer["result"], full=True), HEADER.number, DEVCHAIN_ROW) == HEADER


def test_a_small_block_lists_hashes():
    small = {**BLOCK, "transactions": [each["hash"] for each in BLOCK["transactions"]]}
    found = decode_block(json.dumps(small).encode(), full=False)
    assert found.transactions == small["transactions"]
    with pytest.raises(VerificationFailed):
        decode_block(json.dumps(small).encode(), full=True)


BYTES = ["hash", "parentHash", "sha3Uncles", "miner", "stateRoot", "transactionsRoot", "receiptsRoot", "logsBloom",
         "extraData", "mixHash", "nonce", "withdrawalsRoot", "parentBeaconBlockRoot", "requestsHash"]  # fmt: skip


@pytest.mark.parametrize("name", BYTES)
def test_a_header_member_of_another_length_does_not_prove(name):
    value = BLOCK[name]
    for wrong in (value[:-1], value + "0", value[:-2], value + "00", value[2:], None, 5, "0X" + value[2:]):
        with pytest.raises(VerificationFailed):
            prove_header(
                decode_block(json.dumps({**BLOCK, name: wrong}).encode(), full=True), HEADER.number, DEVCHAIN_ROW
            )


@pytest.mark.parametrize("wrong", ["", "0x", "5", "-0x5", "0x5g", " 0x5", "0x" + "0" * 65, None])
def test_a_number_that_is_none(wrong):
    with pytest.raises(VerificationFailed):
        prove_header(
            decode_block(json.dumps({**BLOCK, "gasUsed": wrong}).encode(), full=True), HEADER.number, DEVCHAIN_ROW
        )


def test_unknown_formats_are_not_tried_again():
    assert issubclass(UnknownFormat, TraceError)
    assert UnknownFormat not in RETRYABLE
    assert not issubclass(UnknownFormat, RETRYABLE)
