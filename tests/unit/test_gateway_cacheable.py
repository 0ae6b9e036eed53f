"""Which calls are equal, which answers may be cached, and that a derived answer equals the node's own answer."""

import json

import msgspec
import pytest

from trace_dagster.devchain.chain import DevChain
from trace_dagster.devchain.server import DevNodeMethods
from trace_dagster.gateway.cache import _ENTRY_BYTES, AnswerCache
from trace_dagster.gateway.cacheable import CacheableCall, cacheable_call, derive, is_cacheable_result
from trace_dagster.gateway.connections import HttpReply
from trace_dagster.gateway.jsonrpc import Answer, is_refusal
from trace_dagster.gateway.outcome import of_reply

BLOCKS = 120


@pytest.fixture(scope="module")
def methods():
    return DevNodeMethods(DevChain(7, BLOCKS))


def asked(methods, method, *params):
    return json.loads(methods.answer({"id": 1, "method": method, "params": list(params)}))["result"]


def question(method, *params):
    return cacheable_call(method, msgspec.Raw(json.dumps(params).encode()))


def test_a_header_out_of_the_full_block_is_the_nodes_own(methods):
    for number in range(BLOCKS):
        thin = question("eth_getBlockByNumber", hex(number), False)
        assert thin.wider == question("eth_getBlockByNumber", hex(number), True)
        whole = json.dumps(asked(methods, "eth_getBlockByNumber", hex(number), True)).encode()
        honest = asked(methods, "eth_getBlockByNumber", hex(number), False)
        derived = json.loads(derive(thin, whole))
        assert derived == honest
        assert list(derived) == list(honest)


def test_logs_out_of_receipts_are_the_nodes_own(methods):
    found = 0
    for number in range(BLOCKS):
        logs = question("eth_getLogs", {"fromBlock": hex(number), "toBlock": hex(number)})
        assert logs.wider == question("eth_getBlockReceipts", hex(number))
        receipts = json.dumps(asked(methods, "eth_getBlockReceipts", hex(number))).encode()
        honest = asked(methods, "eth_getLogs", {"fromBlock": hex(number), "toBlock": hex(number)})
        assert json.loads(derive(logs, receipts)) == honest
        found += len(honest)
    assert found > BLOCKS


def receipts_without(methods, number, *names, per_transaction=False):
    """Return a block's receipts, without some fields of their logs, or with logs counted in each transaction."""
    receipts = asked(methods, "eth_getBlockReceipts", hex(number))
    for receipt in receipts:
        receipt["logs"] = [{name: value for name, value in log.items() if name not in names} for log in receipt["logs"]]
        for position, log in enumerate(receipt["logs"]):
            if per_transaction:
                log["logIndex"] = hex(position)
    return json.dumps(receipts).encode()


@pytest.mark.parametrize(
    "names",
    [
        ("logIndex",),
        ("blockTimestamp", "removed"),
        ("blockHash", "blockNumber", "transactionHash", "transactionIndex", "logIndex"),
    ],
)
def test_logs_are_whole_though_a_node_leaves_fields_out_of_receipts(methods, names):
    span = {"fromBlock": "0x0", "toBlock": hex(BLOCKS - 1)}
    found = []
    for number in range(BLOCKS):
        logs = question("eth_getLogs", {"fromBlock": hex(number), "toBlock": hex(number)})
        found += json.loads(derive(logs, receipts_without(methods, number, *names)))
    kept = {name for log in found for name in log}
    assert kept >= {"blockHash", "blockNumber", "transactionHash", "transactionIndex", "logIndex"}
    honest = asked(methods, "eth_getLogs", span)
    assert found == [{name: value for name, value in log.items() if name in kept} for log in honest]


def test_logs_that_a_node_counts_in_each_transaction_are_counted_in_the_block(methods):
    several = 0
    for number in range(BLOCKS):
        logs = question("eth_getLogs", {"fromBlock": hex(number), "toBlock": hex(number)})
        odd = receipts_without(methods, number, per_transaction=True)
        honest = asked(methods, "eth_getLogs", {"fromBlock": hex(number), "toBlock": hex(number)})
        assert json.loads(derive(logs, odd)) == honest
        several += len({log["transactionHash"] for log in honest}) > 1
    assert several > 10


def test_logs_of_a_filter_are_the_nodes_own(methods):
    honest = asked(methods, "eth_getLogs", {"fromBlock": "0x0", "toBlock": hex(BLOCKS - 1)})
    address, topics = honest[0]["address"], honest[0]["topics"]
    selected = 0
    for rest in (
        {"address": address},
        {"address": [address.upper().replace("0X", "0x"), "0x" + "11" * 20]},
        {"topics": [topics[0]]},
        {"topics": [None, topics[1]]},
        {"topics": [[topics[0], "0x" + "22" * 32], None]},
        {"address": address, "topics": [topics[0], None, None]},
        {"topics": [None, None, None, None]},
        {"address": []},
    ):
        for number in range(BLOCKS):
            wanted = {"fromBlock": hex(number), "toBlock": hex(number), **rest}
            receipts = json.dumps(asked(methods, "eth_getBlockReceipts", hex(number))).encode()
            expected = asked(methods, "eth_getLogs", wanted)
            assert json.loads(derive(question("eth_getLogs", wanted), receipts)) == expected
            selected += len(expected)
    assert selected > BLOCKS


@pytest.mark.parametrize("rest", [{"address": 7}, {"topics": "0x1"}, {"topics": [7]}, {"address": [7]}])
def test_a_filter_of_an_unknown_form_is_left_to_the_node(methods, rest):
    receipts = json.dumps(asked(methods, "eth_getBlockReceipts", "0x5")).encode()
    assert derive(question("eth_getLogs", {"fromBlock": "0x5", "toBlock": "0x5", **rest}), receipts) is None


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("block", b"null"),
        ("block", b'{"number":"0x1"}'),
        ("block", b'{"transactions":["0xabc"]}'),
        ("block", b'{"transactions":[{"nonce":"0x1"}]}'),
        ("logs", b"null"),
        ("logs", b'[{"status":"0x1"}]'),
        ("logs", b'[{"logs":[{"address":"0x1"}]}]'),
        ("logs", b'[{"logs":null}]'),
        ("logs", b'[{"logs":[{"address":"0x1","topics":"0x2","data":"0x"}]}]'),
        ("logs", b'{"logs":[]}'),
    ],
)
def test_what_does_not_tell_it_is_not_read(name, whole):
    asks = {
        "block": question("eth_getBlockByNumber", "0x1", False),
        "logs": question("eth_getLogs", {"fromBlock": "0x1", "toBlock": "0x1"}),
    }
    assert derive(asks[name], whole) is None


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("eth_getBlockByNumber", ["latest", False]),
        ("eth_getBlockByNumber", ["finalized", True]),
        ("eth_getBlockByNumber", ["0x01", True]),
        ("eth_getBlockByNumber", []),
        ("eth_getBlockReceipts", ["0x" + "ab" * 32]),
        ("eth_getLogs", [{"fromBlock": "0x1"}]),
        ("eth_getLogs", [{"fromBlock": "0x1", "toBlock": "latest"}]),
        ("eth_getLogs", [{"blockHash": "0x" + "ab" * 32}]),
        ("eth_getBalance", ["0x" + "ab" * 20, "0x1"]),
        ("debug_traceTransaction", ["0x" + "ab" * 32]),
        ("trace_filter", [{"fromBlock": "0x1", "toBlock": "0x2"}]),
        ("eth_blockNumber", []),
    ],
)
def test_what_may_change_is_no_question_to_share(method, params):
    assert question(method, *params) is None


def test_the_same_question_has_one_form():
    one = question("eth_getLogs", {"fromBlock": "0xA", "toBlock": "0xa", "address": None, "topics": []})
    assert one == question("eth_getLogs", {"toBlock": "0xa", "fromBlock": "0xa"})
    assert one.wider == CacheableCall("eth_getBlockReceipts", b'["0xa"]')
    assert question("eth_getBlockByNumber", "0xa") == question("eth_getBlockByNumber", "0xA", False)
    assert question("eth_getLogs", {"fromBlock": "0xa", "toBlock": "0xa", "topics": [["0x1"]]}).wider == one.wider
    assert question("eth_getLogs", {"fromBlock": "0xa", "toBlock": "0xa", "limit": 1}).wider is None
    assert question("eth_getLogs", {"fromBlock": "0xa", "toBlock": "0xb"}).wider is None
    tracer = {"tracer": "callTracer", "timeout": "9s"}
    assert question("debug_traceBlockByNumber", "0xa", tracer) == question(
        "debug_traceBlockByNumber", "0xA", dict(reversed(tracer.items()))
    )


@pytest.mark.parametrize("result", [b"null", b"[]", b"{}", b'""'])
def test_what_says_nothing_is_not_kept(result):
    assert not is_cacheable_result(result)


def test_kept_answers_are_bounded_and_those_used_last_stay():
    now = [0.0]
    kept = AnswerCache(3 * (_ENTRY_BYTES + 100), lambda: now[0])
    keys = [("node", CacheableCall("eth_getBlockByNumber", str(n).encode())) for n in range(4)]
    for key in keys[:3]:
        kept.put(key, b"x" * 100)
    assert kept.get(keys[0]) == b"x" * 100
    kept.put(keys[3], b"y" * 100)
    assert [kept.get(key) is not None for key in keys] == [True, False, True, True]
    kept.put(keys[3], b"z" * 10)
    assert kept.bytes == 3 * _ENTRY_BYTES + 210
    kept.put(keys[1], b"x" * 10_000)  # larger than the whole cache
    assert kept.get(keys[1]) is None
    chain_id = ("node", CacheableCall("eth_chainId", b"[]"))
    kept.put(chain_id, b'"0x1"')
    assert kept.get(chain_id) == b'"0x1"'
    now[0] = 31.0
    assert kept.get(chain_id) is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"code": 429, "message": "Too Many Requests"}, True),
        ({"code": -32005, "message": "limit exceeded"}, True),
        ({"code": -32603, "message": "overloaded, try again later"}, True),
        ({"code": -32000, "message": "Rate limit reached"}, True),
        ({"code": -32000, "message": "too many requests"}, True),
        ({"code": -32005, "message": "query returned more than 10000 results"}, False),
        ({"code": -32000, "message": "header not found"}, False),
        ({"code": -32603, "message": "response exceeds size limit"}, False),
        ({"code": -32601, "message": "too many requests"}, False),
        ("broken", False),
    ],
)
def test_which_errors_ask_us_to_slow_down(error, expected):
    assert is_refusal(json.dumps(error).encode()) is expected


def told(identity, **rest):
    return {"jsonrpc": "2.0", "id": identity, **rest}


def read(said, ids, status=200):
    return of_reply(HttpReply(status, said if isinstance(said, bytes) else json.dumps(said).encode()), ids)


def test_an_answer_counts_only_under_the_id_of_its_call():
    good = [told(1, result="0x1"), told(2, result="0x2")]
    assert read(good, [1, 2]).answers == {1: Answer(b'"0x1"'), 2: Answer(b'"0x2"')}
    assert read(good[::-1], [1, 2]).answers[1] == Answer(b'"0x1"')
    assert set(read([*good, told(2, result="0x3")], [1, 2]).answers) == {1}
    foreign = read([told(1, result="0x1"), told(9, result="0x2")], [1, 2])
    assert set(foreign.answers) == {1}
    assert not foreign.splits
    assert not read(told(9, result="0x1"), [1]).answers
    assert not read(told("1", result="0x1"), [1]).answers
    assert not read(told(1), [1]).answers
    assert not read(told(True, result="0x1"), [1]).answers


def test_a_nodes_error_is_its_last_word_and_stays_as_it_is():
    error = {"code": -32000, "message": "header not found", "data": {"n": 1}}
    found = read(told(1, error=error), [1])
    assert json.loads(found.answers[1].error) == error
    assert json.loads(found.answers[1].to(msgspec.Raw(b'"abc"'))) == told("abc", error=error)
    assert read(told(1, error=error), [1], status=400).answers == found.answers


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (told(None, error={"code": -32600, "message": "batches are not supported"}), 200),
        ([told(1, result="0x1")], 200),
        ([], 200),
        ([told(1, result="0x1"), told(2, error={"code": -32003, "message": "response too large"})], 200),
        (b"request entity too large", 413),
        (b"", 400),
    ],
)
def test_a_batch_that_is_not_served_is_to_be_split(said, status):
    assert read(said, [1, 2], status).splits


@pytest.mark.parametrize(
    ("said", "status", "ids"),
    [
        (b"slow down", 429, [1, 2]),
        (told(None, error={"code": 429, "message": "x"}), 200, [1, 2]),
        (told(None, error={"code": 429, "message": "x"}), 200, [1]),
        ([told(n, error={"code": -32005, "message": "limit exceeded"}) for n in (1, 2)], 200, [1, 2]),
    ],
)
def test_a_refusal_fails_nothing(said, status, ids):
    found = read(said, ids, status)
    assert found.refused == set(ids)
    assert not found.answers
    assert not found.splits


@pytest.mark.parametrize(
    ("said", "status"), [(b"oops", 500), (told(1, result="0x1"), 500), (b'{"id":1', 200), (b"<html>", 200), (b"", 302)]
)
def test_what_is_no_answer_says_why(said, status):
    found = read(said, [1], status)
    assert not found.answers
    assert not found.refused
    assert found.reason
    assert not found.is_final
    assert read(b"", [1], 401).is_final
