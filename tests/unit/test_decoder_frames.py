"""Call frames of a node's traces: equal to Cryo's rows, and no hostile answer passes or crashes."""

import json
import random

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cryo_tables import cryo_table
from tests.support.proven import CASES, case
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.decoder import frames as module
from trace_dagster.decoder.frames import MOST_DEPTH, Frames
from trace_dagster.errors import TraceError, Unavailable, VerificationFailed

CALLS = dataset("geth_calls")
COLUMNS = list(CALLS.all_columns)
A, B = "0x" + "0a" * 20, "0x" + "0b" * 20
HASHES = [bytes([1]) * 32, bytes([2]) * 32]
FRAME = {"type": "CALL", "from": A, "to": B, "value": "0x5", "gas": "0x10", "gasUsed": "0x9", "input": "0x0102"}


def trace(frame=None, at=0, **more):
    return {"txHash": "0x" + HASHES[at].hex(), "result": FRAME if frame is None else frame, **more}


def rows(traces, hashes=HASHES, columns=COLUMNS):
    found = Frames()
    found.add_block(7, traces if isinstance(traces, bytes) else json.dumps(traces).encode(), hashes)
    return found.table(CALLS, columns, 1).cast(CALLS.engine_schema(columns))


def expected(traces):
    block = {"number": "0x7"}
    receipts = [{"transactionHash": "0x" + each.hex()} for each in HASHES[: len(traces)]]
    return cryo_table("geth_calls", block, receipts, [each["result"] for each in traces], 1)


@pytest.mark.parametrize("which", CASES)
def test_rows_are_cryos(which):
    found = case(which)
    tables = []
    for (block, receipts), number in zip(found.answers, range(found.piece.start, found.piece.end), strict=True):
        hashes = [bytes.fromhex(each["transactionHash"][2:]) for each in receipts]
        if not hashes:
            continue
        traces = found.traces[number - found.piece.start]
        made = Frames()
        made.add_block(number, json.dumps(traces).encode(), hashes)
        tables.append(made.table(CALLS, COLUMNS, found.chain_id))
        assert int(block["number"], 16) == number
    joined = pa.concat_tables(tables).cast(CALLS.engine_schema(COLUMNS))
    assert joined.equals(found.tables["geth_calls"].select(COLUMNS))


leaves = st.fixed_dictionaries(
    {"type": st.sampled_from(["CALL", "CREATE2", "SELFDESTRUCT"]), "from": st.just(A), "input": st.just("0x")},
    optional={
        "to": st.just(B),
        "value": st.integers(0, 2**256 - 1).map(hex),
        "gas": st.integers(0, 2**64).map(hex),
        "output": st.binary(max_size=40).map(lambda data: "0x" + data.hex()),
        "error": st.text(max_size=20),
    },
)
trees = st.recursive(
    leaves,
    lambda inner: st.builds(lambda frame, calls: {**frame, "calls": calls}, leaves, st.lists(inner, max_size=4)),
    max_leaves=30,
)


@given(st.lists(trees, min_size=2, max_size=2))
def test_any_tree_is_what_cryo_makes_of_it(found):
    traces = [trace(frame, at) for at, frame in enumerate(found)]
    assert rows(traces).equals(expected(traces))


@given(trees)
def test_the_deep_decoder_reads_the_same(frame):
    text = json.dumps([trace(frame)], ensure_ascii=False).encode()
    plain = rows(text, HASHES[:1])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "_decoded", module._decoded_deep)
        assert rows(text, HASHES[:1]).equals(plain)


def nested(depth, innermost=FRAME):
    """Return the answer with one trace, whose frames are ``depth`` levels below the root."""
    opening = json.dumps(FRAME)[:-1] + ', "calls": ['
    tree = opening * depth + json.dumps(innermost) + "]}" * depth
    return f'[{{"txHash": "0x{HASHES[0].hex()}", "result": {tree}}}]'.encode()


def test_a_tree_as_deep_as_the_evm_allows_is_read():
    found = rows(nested(1024), HASHES[:1])
    assert found.num_rows == 1025
    assert found["trace_address"][-1].as_py() == " ".join(["0"] * 1024)


@pytest.mark.parametrize("depth", [MOST_DEPTH + 1, 50_000])
def test_a_deeper_one_is_refused(depth):
    with pytest.raises(VerificationFailed):
        rows(nested(depth), HASHES[:1])


@pytest.mark.parametrize("member", ["error", "type", "input", "from", "value"])
def test_half_a_surrogate_pair_is_refused_at_any_depth(member):
    for depth in (0, 1000):
        with pytest.raises(VerificationFailed):
            rows(nested(depth, {**FRAME, member: "\ud800"}), HASHES[:1])


MALFORMED = {
    "no list": {"result": FRAME},
    "null": None,
    "an item that is no object": [5, 6],
    "a frame that is a text": [trace("CALL"), trace(at=1)],
    "no type": [trace({**FRAME, "type": None}), trace(at=1)],
    "no sender": [trace({"type": "CALL"}), trace(at=1)],
    "a short sender": [trace({**FRAME, "from": "0x0a"}), trace(at=1)],
    "a sender without 0x": [trace({**FRAME, "from": "0a" * 21}), trace(at=1)],
    "odd hex": [trace({**FRAME, "input": "0x1"}), trace(at=1)],
    "hex with a space": [trace({**FRAME, "input": "0x 1 2"}), trace(at=1)],
    "no hex": [trace({**FRAME, "output": "0xzz"}), trace(at=1)],
    "a negative number": [trace({**FRAME, "value": "-0x1"}), trace(at=1)],
    "a long number": [trace({**FRAME, "gas": "0x" + "1" * 65}), trace(at=1)],
    "an empty number": [trace({**FRAME, "gasUsed": "0x"}), trace(at=1)],
    "a hash of another": [trace(at=1), trace(at=0)],
    "one hash twice": [trace(), trace()],
    "an unknown hash": [trace(txHash="0x" + "ff" * 32), trace(at=1)],
    "a hash that is none": [trace(txHash="0x01"), trace(at=1)],
    "without hashes too few": [{"result": FRAME}],
    "without hashes too many": [{"result": FRAME}] * 3,
    "calls that are no list": [trace({**FRAME, "calls": {}}), trace(at=1)],
}


@pytest.mark.parametrize("answer", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_answer_is_refused(answer):
    with pytest.raises(VerificationFailed):
        rows(answer)


@pytest.mark.parametrize("answer", [b"", b"{", b"[", b'[{"result": ', b"\xff\xfe", b"[" * 100_000])
def test_text_that_is_no_json_is_refused(answer):
    with pytest.raises(VerificationFailed):
        rows(answer)


def test_a_transaction_that_the_node_left_out_is_left_to_the_check():
    assert rows([trace(at=1)])["transaction_index"].to_pylist() == [1]


def test_traces_without_hashes_are_in_order_of_transactions():
    plain = [{"result": FRAME}, {"result": FRAME}]
    assert rows(plain).equals(expected(plain))


def test_a_transaction_that_the_node_cannot_trace_is_no_lie():
    with pytest.raises(Unavailable, match="could not trace"):
        rows([{"error": "tracing failed"}, {"result": FRAME}])


def test_changed_bytes_never_crash():
    text = bytearray(json.dumps([trace({**FRAME, "calls": [FRAME, FRAME]}), trace(at=1)]).encode())
    randomly = random.Random(7)
    for _ in range(3000):
        changed = bytearray(text)
        for _ in range(randomly.randint(1, 3)):
            changed[randomly.randrange(len(changed))] = randomly.randrange(256)
        try:
            rows(bytes(changed))
        except TraceError:
            pass
