"""What nodes and providers answer in place of what was asked: read right or said clearly, near and through the gateway.

Each case is a kind of answer that public reports show. ``near`` asks the node directly, ``far`` through a gateway.
"""

import gzip
import json
import time
import zlib
from contextlib import ExitStack, contextmanager

import pytest

from tests.support.gateways import gateway, watched
from tests.support.wrong_servers import raw_node
from trace_dagster.devchain.chain import DevChain
from trace_dagster.devchain.server import DevNodeMethods
from trace_dagster.errors import EndpointLacks, InvalidInput, TraceError, Unavailable
from trace_dagster.gateway import batches
from trace_dagster.rpc import block_receipts, client, endpoint_memory, http
from trace_dagster.rpc.block_receipts import call_with_receipts
from trace_dagster.rpc.client import call, call_all
from trace_dagster.rpc.endpoint_memory import EndpointMemory
from trace_dagster.rpc.pools import Endpoint
from trace_dagster.rpc.provider_errors import AnswerTooLarge, MethodLacked

pytestmark = pytest.mark.integration

BLOCKS = 60
RECEIPTS = "eth_getBlockReceipts"
RECEIPT = "eth_getTransactionReceipt"
NEAR, FAR = "near", "far"


@pytest.fixture(scope="module")
def chain():
    return DevChain(7, BLOCKS)


@pytest.fixture(autouse=True)
def fresh_memory(monkeypatch):
    """Forget what other tests learned about endpoints."""
    fresh = EndpointMemory()
    for module in (client, block_receipts):
        monkeypatch.setattr(module, "memory", fresh)
    return fresh


@pytest.fixture
def node(chain):
    with watched(chain) as node:
        yield node


@pytest.fixture(params=[NEAR, FAR])
def way(request):
    return request.param


@contextmanager
def endpoint_at(url, way, batch=50, wanted="", **settings):
    """Yield an endpoint of the pool ``alchemy`` whose URL holds that word and a key."""
    whole = f"{url}/v2/alchemy-KEY0123456789abcdef"
    if way == NEAR:
        yield Endpoint("alchemy", 1, whole, batch=batch)
        return
    with gateway(alchemy=whole, TRACE_RPC_POOL_ALCHEMY_BATCH=str(batch), **settings) as door:
        yield Endpoint("alchemy", 1, whole, f"{door.url}/alchemy/1{wanted}", batch=batch)


@pytest.fixture
def endpoint(node, way):
    with endpoint_at(node.url, way) as endpoint:
        yield endpoint


def honest(chain, method, *params):
    return json.loads(DevNodeMethods(chain).answer({"id": 1, "method": method, "params": list(params)}))["result"]


def heads(count):
    return [("eth_getBlockByNumber", [hex(n), False]) for n in range(count)]


def read(results):
    return [json.loads(bytes(each)) for each in results]


def whole_chain(chain, count):
    return [honest(chain, "eth_getBlockByNumber", hex(n), False) for n in range(count)]


def error_for(calls, code, message, **more):
    """Return the same error for every call of a request, in the form of the request."""
    errors = [
        {"jsonrpc": "2.0", "id": each["id"], "error": {"code": code, "message": message, **more}} for each in calls
    ]
    return 200, json.dumps(errors[0] if len(errors) == 1 else errors).encode()


def raised(endpoint, calls=(("eth_getBlockByNumber", ["0x1", False]),)):
    with pytest.raises(TraceError) as found:
        call_all(endpoint, list(calls))
    return found.value


# --- receipts of whole blocks ------------------------------------------------------------------------------------

LACKING = {
    "unknown": (-32601, "the method eth_getBlockReceipts does not exist/is not available"),
    "not whitelisted": (-32001, "rpc method is not whitelisted"),
    "plan, as an invalid request": (-32600, "eth_getBlockReceipts is not available on the Free tier - upgrade"),
    "plan": (-32000, "this method requires a paid plan"),
    "disabled": (-32000, "method disabled"),
    "unsupported": (-32004, "Method not supported"),
    "without a code": (None, "method eth_getBlockReceipts not supported"),
}


def without_block_receipts(chain, code, message):
    methods = DevNodeMethods(chain)

    def manner(calls):
        error = {"code": code, "message": message}
        answers = [
            json.dumps({"id": each["id"], "error": error}).encode()
            if each["method"] == RECEIPTS
            else methods.answer(each)
            for each in calls
        ]
        return 200, b"[" + b",".join(answers) + b"]" if len(answers) > 1 else answers[0]

    return manner


def forbidden(calls):
    if all(each["method"] != RECEIPTS for each in calls):
        return None
    return 403, b'{"error":{"message":"eth_getBlockReceipts is not available on your current plan. Please upgrade."}}'


@pytest.fixture
def lacking(chain):
    """Return manners of a node without eth_getBlockReceipts, by their name."""
    return {name: without_block_receipts(chain, *error) for name, error in LACKING.items()} | {FORBIDDEN: forbidden}


FORBIDDEN = "403 about the plan"


def receipts_of(chain, numbers):
    return [honest(chain, RECEIPTS, hex(n)) for n in numbers]


@pytest.mark.parametrize("manner", [*LACKING, FORBIDDEN])
def test_receipts_are_fetched_by_transaction_where_blocks_of_them_are_not_offered(
    chain, node, endpoint, lacking, manner
):
    node.manner = lacking[manner]
    chain_id, *blocks = call_with_receipts(endpoint, [("eth_chainId", []), *heads(20)], range(20))
    assert read(blocks) == [*whole_chain(chain, 20), *receipts_of(chain, range(20))]
    transactions = sum(len(each["transactions"]) for each in whole_chain(chain, 20))
    assert json.loads(bytes(chain_id)) == honest(chain, "eth_chainId")
    assert node.calls[RECEIPT] == transactions > 20
    if manner == FORBIDDEN:  # this refuses the other calls of a batch as well
        return
    assert node.calls["eth_getBlockByNumber"] == 20, "the hashes are in the blocks that were fetched anyway"
    assert len(node.requests) < transactions / 4, "receipts travel in batches"


def test_the_lack_is_remembered_for_an_hour_and_then_asked_again(chain, node, lacking, fresh_memory, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(fresh_memory, "_clock", lambda: now[0])
    node.manner = lacking["unknown"]
    with endpoint_at(node.url, NEAR) as endpoint:
        for start in (0, 10):
            found = call_with_receipts(endpoint, [], range(start, start + 10))
            assert read(found) == receipts_of(chain, range(start, start + 10))
            assert node.calls[RECEIPTS] == 10
        now[0] += endpoint_memory.REMEMBERED_SECONDS
        node.manner = lambda calls: None
        call_with_receipts(endpoint, [], range(10))
        assert node.calls[RECEIPTS] == 20


def test_logs_come_out_of_receipts_that_were_fetched_by_transaction(chain, node, lacking):
    node.manner = lacking["not whitelisted"]
    with endpoint_at(node.url, FAR, wanted="/blocks+receipts") as endpoint:
        where = {"fromBlock": "0x3", "toBlock": "0x9"}
        assert call(endpoint, "eth_getLogs", [where]) == honest(chain, "eth_getLogs", where)
        found = call_with_receipts(endpoint, [], range(3, 10))
        assert read(found) == receipts_of(chain, range(3, 10))
    assert node.calls["eth_getLogs"] == 0
    assert node.calls[RECEIPT] == sum(len(each) for each in receipts_of(chain, range(3, 10))), "each only once"


def test_a_node_with_neither_says_which_method_it_lacks(node, endpoint):
    def manner(calls):
        if any("Receipt" in each["method"] for each in calls):
            return error_for(calls, -32601, "Method not found")
        return None

    node.manner = manner
    with pytest.raises(EndpointLacks, match="rpc endpoint alchemy#1 does not support eth_getTransactionReceipt"):
        call_with_receipts(endpoint, [], range(5))


def test_a_receipt_that_a_node_does_not_have_is_no_receipt(node, endpoint, lacking):
    plain = lacking["unknown"]

    def manner(calls):
        if any(each["method"] == RECEIPT for each in calls):
            nothing = [{"id": each["id"], "result": None} for each in calls]
            return 200, json.dumps(nothing if len(nothing) > 1 else nothing[0]).encode()
        return plain(calls)

    node.manner = manner
    with pytest.raises(Unavailable, match="does not have the receipt of every transaction of a block"):
        call_with_receipts(endpoint, [], range(3))


TOO_MANY = json.dumps({"transactions": ["0x1"] * 100_001})


@pytest.mark.parametrize(
    "block",
    ['{"number":"0x1"}', '{"transactions":[7]}', '"text"', '{"transactions":null}', TOO_MANY],
    ids=["none", "numbers", "text", "null", "too many"],
)
def test_a_block_without_hashes_is_refused(node, endpoint, lacking, block):
    plain = lacking["unknown"]

    def manner(calls):
        if calls[0]["method"] == "eth_getBlockByNumber":
            return 200, b'{"id":%d,"result":%b}' % (calls[0]["id"], block.encode())
        return plain(calls)

    node.manner = manner
    with pytest.raises(TraceError, match=r"block.* list of transactions"):
        call_with_receipts(endpoint, [], [5])


def test_receipts_that_are_too_large_for_one_answer_are_fetched_by_transaction(chain, node, way, monkeypatch):
    monkeypatch.setattr(http, "MAX_ANSWER_BYTES", 9_000)
    monkeypatch.setattr("trace_dagster.gateway.connections.MAX_ANSWER_BYTES", 9_000)
    monkeypatch.setattr("trace_dagster.gateway.gateway.MAX_ANSWER_BYTES", 9_000)
    sizes = [len(json.dumps(each)) for each in receipts_of(chain, range(BLOCKS))]
    number = max(range(BLOCKS), key=lambda n: sizes[n])
    assert sizes[number] > 10_000, "a block whose receipts are larger than an answer may be"
    assert max(len(json.dumps(each)) for each in receipts_of(chain, [number])[0]) < 8_000
    with endpoint_at(node.url, way) as endpoint:
        found = call_with_receipts(endpoint, [], [number, 1])
        assert read(found) == receipts_of(chain, [number, 1])
    assert node.calls[RECEIPTS] <= 4, "a too large answer is not asked for again and again"


def test_an_answer_that_the_node_does_not_send_because_of_its_size_is_fetched_in_parts(chain, node, endpoint):
    def manner(calls):
        if calls[0]["method"] == RECEIPTS:
            return error_for(calls, -32008, "Response is too big")
        return None

    node.manner = manner
    assert read(call_with_receipts(endpoint, [], range(4))) == receipts_of(chain, range(4))


def test_a_receipt_that_is_too_large_by_itself_says_the_way_out(chain, node, way, monkeypatch):
    for module in ("rpc.http", "gateway.connections", "gateway.gateway"):
        monkeypatch.setattr(f"trace_dagster.{module}.MAX_ANSWER_BYTES", 1_000)
    number = next(n for n in range(BLOCKS) if receipts_of(chain, [n])[0])
    block = json.dumps(whole_chain(chain, number + 1)[-1]).encode()
    monkeypatch.setattr(block_receipts, "call_all", lambda *_: [block])  # else it would be too large as well
    with (
        endpoint_at(node.url, way) as endpoint,
        pytest.raises(EndpointLacks, match="a receipt that is too large to be read: use verify: structural"),
    ):
        call_with_receipts(endpoint, [], [number])


# --- empty blocks ------------------------------------------------------------------------------------------------


@pytest.fixture
def empty_blocks(node):
    """Return how the node answers about blocks 0 to 9, which have no transactions: their receipts are ``null``."""

    def answer(each):
        number = int(each["params"][0], 16)
        block = {"number": hex(number), "hash": "0x" + "ab" * 32, "transactions": []}
        result = None if each["method"] == RECEIPTS or number > 9 else block
        return {"jsonrpc": "2.0", "id": each["id"], "result": result}

    def manner(calls):
        answers = [answer(each) for each in calls]
        return 200, json.dumps(answers if len(answers) > 1 else answers[0]).encode()

    node.manner = manner


@pytest.mark.usefixtures("empty_blocks")
def test_null_receipts_of_an_empty_block_are_passed_on_without_retries(node, way):
    with endpoint_at(node.url, way, wanted="/blocks+receipts") as endpoint:
        started = time.monotonic()
        *blocks, receipts = call_with_receipts(endpoint, heads(1), range(1))
        assert bytes(receipts) == b"null"
        if way == FAR:
            assert call(endpoint, "eth_getLogs", [{"fromBlock": "0x0", "toBlock": "0x0"}]) == []
            assert bytes(call_with_receipts(endpoint, [], range(1))[0]) == b"[]", "the block is known to be empty"
        assert time.monotonic() - started < 2
    assert len(blocks) == 1
    assert node.calls == {"eth_getBlockByNumber": node.calls["eth_getBlockByNumber"], RECEIPTS: 1}
    assert node.calls["eth_getBlockByNumber"] <= 2


@pytest.mark.usefixtures("empty_blocks")
def test_null_receipts_of_a_block_that_is_not_there_are_asked_for_again(node):
    with endpoint_at(node.url, FAR) as endpoint:
        assert bytes(call_with_receipts(endpoint, [], [11])[0]) == b"null"
    assert node.calls[RECEIPTS] > 1


# --- batches -----------------------------------------------------------------------------------------------------


def test_an_endpoint_without_batches_gets_single_objects(chain, node, way):
    with endpoint_at(node.url, way, batch=1) as endpoint:
        assert read(call_all(endpoint, heads(12))) == whole_chain(chain, 12)
    assert set(node.forms) == {dict}


def test_a_single_call_is_a_single_object(chain, node, endpoint):
    assert read(call_all(endpoint, heads(1))) == whole_chain(chain, 1)
    assert node.forms == [dict]


def at_most_ten(answer):
    return lambda calls: answer(calls) if len(calls) > 10 else None


MAXIMUM = "maximum 10 calls in 1 batch"
REFUSED_BATCHES = {
    "-32014, one object": lambda calls: (200, b'{"id":null,"error":{"code":-32014,"message":"%b"}}' % MAXIMUM.encode()),
    "-32014, for each": lambda calls: error_for(calls, -32014, MAXIMUM),
    "-32014, HTTP 429": lambda calls: (429, json.dumps({"error": {"code": -32014, "message": MAXIMUM}}).encode()),
    "413": lambda calls: (413, b"<html><h1>413 Request Entity Too Large</h1></html>"),
    "400": lambda calls: (400, b"batch too large"),
    "-32005, batches": lambda calls: (200, b'{"id":null,"error":{"code":-32005,"message":"Batch limit 10 exceeded"}}'),
    "403, batches": lambda calls: (403, b'{"error":"batches of more than 10 are not available on the free plan"}'),
    "-32600, one object": lambda calls: (200, b'{"id":null,"error":{"code":-32600,"message":"batch too large"}}'),
}  # fmt: skip


@pytest.mark.parametrize("manner", REFUSED_BATCHES)
def test_the_size_of_batches_is_learned_and_nothing_fails(chain, node, endpoint, manner):
    node.manner = at_most_ten(REFUSED_BATCHES[manner])
    assert read(call_all(endpoint, heads(50))) == whole_chain(chain, 50)
    before = len(node.requests)
    calls = [("eth_getBlockByNumber", [hex(n), True]) for n in range(50)]
    assert read(call_all(endpoint, calls)) == [honest(chain, "eth_getBlockByNumber", hex(n), True) for n in range(50)]
    later = [len(asked) for _, asked in node.requests[before:]]
    assert max(later) <= 10, "the size is known now"
    assert len(later) <= 10


def test_a_size_that_is_said_is_used_at_once(chain, node, endpoint):
    node.manner = at_most_ten(REFUSED_BATCHES["-32014, one object"])
    call_all(endpoint, heads(50))
    assert sorted({len(asked) for _, asked in node.requests}) == [10, 50]


def test_an_error_of_one_call_does_not_make_batches_smaller(chain, node, endpoint):
    """The code is one of those that also refuse batches."""

    def manner(calls):
        answers = [
            {"id": each["id"], "error": {"code": -32600, "message": "invalid argument"}}
            if each["params"][0] == "0x5"
            else {"id": each["id"], "result": "0x1"}
            for each in calls
        ]
        return 200, json.dumps(answers if len(answers) > 1 else answers[0]).encode()

    node.manner = manner
    error = raised(endpoint, heads(20))
    assert "invalid argument" in error.message
    node.manner = lambda calls: None
    seen = len(node.requests)
    assert read(call_all(endpoint, heads(60)[20:])) == whole_chain(chain, 60)[20:]
    if not endpoint.gateway_url:  # the gateway tries larger batches again after a minute
        assert [len(calls) for _, calls in node.requests[seen:]] == [40]


# --- compression -------------------------------------------------------------------------------------------------

RAW = zlib.compressobj(wbits=-15)


def raw_deflate(data):
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKED = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "Deflate": raw_deflate,
    "GZIP": lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:]),
}


@pytest.mark.parametrize("encoding", PACKED)
def test_an_answer_that_is_packed_is_read(chain, node, endpoint, encoding):
    def manner(calls):
        answers = [{"id": each["id"], "result": honest(chain, each["method"], *each["params"])} for each in calls]
        body = json.dumps(answers if len(answers) > 1 else answers[0]).encode()
        return 200, PACKED[encoding](body), {"content-encoding": encoding}

    node.manner = manner
    assert read(call_all(endpoint, heads(30))) == whole_chain(chain, 30)
    assert read(call_all(endpoint, heads(1))) == whole_chain(chain, 1)


BOMBS = {
    "a bomb": (gzip.compress(b" " * 40_000_000), "gzip", r"more than 1000000 bytes"),
    "a bomb of deflate": (zlib.compress(b" " * 40_000_000), "deflate", r"more than 1000000 bytes"),
    "bombs in a row": (gzip.compress(b" " * 900_000) * 50, "gzip", r"more than 1000000 bytes"),
    "cut short": (gzip.compress(b'{"id":1,"result":"0x1"}')[:-9], "gzip", "(be unpacked|be decompressed)"),
    "not packed": (b'{"id":1,"result":"0x1"}', "gzip", "(be unpacked|be decompressed)"),
    "another way": (b"\x1b\x00", "br", "(be unpacked|be decompressed)"),
}


@pytest.mark.parametrize("case", BOMBS)
def test_what_cannot_be_unpacked_or_is_too_large_then_is_said(node, endpoint, case, monkeypatch):
    body, encoding, text = BOMBS[case]
    monkeypatch.setattr(http, "MAX_ANSWER_BYTES", 1_000_000)
    monkeypatch.setattr("trace_dagster.gateway.connections.MAX_ANSWER_BYTES", 1_000_000)
    monkeypatch.setattr("trace_dagster.gateway.connections._TOO_LARGE", "the answer has more than 1000000 bytes")
    monkeypatch.setattr("trace_dagster.gateway.endpoint_client.RETRIES", 1)
    node.manner = lambda calls: (200, body, {"content-encoding": encoding})
    with pytest.raises(Unavailable, match=text):
        call(endpoint, "eth_blockNumber", [])


# --- what providers say ------------------------------------------------------------------------------------------

SAID = {
    "not whitelisted": ((200, b'{"id":ID,"error":{"code":-32001,"message":"rpc method is not whitelisted"}}'),
                        MethodLacked, "does not support", "rpc method is not whitelisted"),
    "free tier": ((200, b'{"id":ID,"error":{"code":-32600,"message":"Not available on the Free tier"}}'),
                  MethodLacked, "does not support", "Not available on the Free tier"),
    "403, plan": ((403, b'{"message":"This method is not available on your plan"}'),
                  MethodLacked, "does not support", "This method is not available on your plan"),
    "403, archive": ((403, b'{"error":"archive data requires a paid plan"}'),
                     EndpointLacks, "does not serve", "archive data requires a paid plan"),
    "403, page": ((403, b"<html><head><title>403 Forbidden</title><style>p</style><body>Attention</body></html>"),
                  TraceError, "refuses its key", "403 Forbidden Attention"),
    "401": ((401, b'{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"Must be authenticated!"}}'),
            TraceError, "refuses its key", "Must be authenticated!"),
    "an error as text": ((200, b'{"id":ID,"error":"no state for this block"}'),
                         Unavailable, "", "no state for this block"),
    "without a code": ((200, b'{"id":ID,"error":{"message":"missing trie node"}}'),
                       Unavailable, "", "missing trie node"),
    "result and error": ((200, b'{"id":ID,"result":"0x1","error":{"code":-1,"message":"half done"}}'),
                         Unavailable, "", "half done"),
    "error with a null id": ((200, b'{"id":null,"error":{"code":-32700,"message":"parse error"}}'),
                             Unavailable, "", "parse error"),
    "a page": ((200, b"<!DOCTYPE html><html><body><h1>Sign in</h1><script>var x='y'</script></body></html>"),
               Unavailable, "not JSON-RPC", "Sign in"),
    "a plain text": ((200, b"upstream connect error"), Unavailable, "not JSON-RPC", "upstream connect error"),
}  # fmt: skip


@pytest.mark.parametrize("case", SAID)
def test_the_words_of_a_provider_are_kept_beside_ours(node, endpoint, case, monkeypatch):
    (status, body), kind, ours, theirs = SAID[case]
    monkeypatch.setattr("trace_dagster.gateway.endpoint_client.RETRIES", 1)
    node.manner = lambda calls: (status, body.replace(b"ID", str(calls[0]["id"]).encode()))
    error = raised(endpoint, [("debug_traceBlockByNumber", ["0x1", {}])])
    if not (endpoint.gateway_url and kind is TraceError):
        assert isinstance(error, kind)
    assert "alchemy#1" in error.message
    assert ours in error.message
    assert theirs in error.message
    assert "<" not in error.message
    if "key" not in ours:
        assert "refuses its key" not in error.message


def test_a_plan_that_lacks_one_method_refuses_no_other(chain, node, endpoint):
    node.manner = forbidden
    assert read(call_all(endpoint, heads(10))) == whole_chain(chain, 10)
    mixed = [*heads(5), (RECEIPTS, ["0x1"]), ("eth_chainId", [])]
    found = client.call_each(endpoint, mixed)
    assert isinstance(found[5], MethodLacked) or endpoint.gateway_url
    assert read(found[:5]) == whole_chain(chain, 5)


@pytest.mark.parametrize("body", [b"", b" \n"])
def test_an_empty_answer_is_said(node, endpoint, body, monkeypatch):
    monkeypatch.setattr("trace_dagster.gateway.endpoint_client.RETRIES", 1)
    node.manner = lambda calls: (200, body)
    assert any(said in raised(endpoint).message for said in ("answered with nothing", "the answer is empty"))


def test_a_pools_name_is_never_redacted_and_a_key_always(node, endpoint):
    said = f"alchemy: see {endpoint.url} or alchemy-KEY0123456789abcdef, {'long ' * 100}"
    node.manner = lambda calls: error_for(calls, -32000, said)
    error = raised(endpoint)
    assert error.message.startswith("rpc endpoint alchemy#1 ")
    assert "alchemy: see [redacted] or" in error.message
    assert "KEY0123456789" not in str(error)
    assert "127.0.0.1" not in str(error)
    assert error.message.endswith("long..."), "it is cut at a word"
    assert len(error.message) < 300


REDIRECTS = {
    "https, same host": ("https://127.0.0.1/v2/alchemy-KEY0123456789abcdef", "begin with https"),
    "nowhere": ("", "begin with https"),
    "another host": ("https://alchemy-KEY0123456789abcdef.node.example.com/KEY0123456789abcdef?a=b", "of example.com"),
    "no URL": ("https://[", "correct TRACE_RPC_POOL_ALCHEMY_URL"),
    "a path": ("/login?key=alchemy-KEY0123456789abcdef", "redirects to another address"),
    "an odd host": ("https://a.b<script>.com\u00e4/", "redirects to another address"),
}


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("case", REDIRECTS)
def test_a_redirect_says_what_to_correct(node, endpoint, status, case):
    location, text = REDIRECTS[case]
    node.manner = lambda calls: (status, b"moved", {"location": location} if location else {})
    started = time.monotonic()
    error = raised(endpoint)
    assert time.monotonic() - started < 20, "it is no cause for another try"
    assert text in error.message
    assert "TRACE_RPC_POOL_ALCHEMY_URL" in error.message
    assert str(status) in str(error)
    assert "KEY0123" not in str(error)
    assert isinstance(error, InvalidInput) or endpoint.gateway_url
    assert len(node.requests) == 1


# --- the transport -----------------------------------------------------------------------------------------------


def result(identity, value="0x7"):
    return {"jsonrpc": "2.0", "id": identity, "result": value}


def chunked(body, trailer=b""):
    return (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        + trailer
    )


def sized(body):
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


READ_RIGHT = {
    "a byte order mark": lambda body: sized(b"\xef\xbb\xbf" + body),
    "white space": lambda body: sized(b"\r\n\t " + body + b"\n\n"),
    "HTTP/1.0 until the end": lambda body: b"HTTP/1.0 200 OK\r\n\r\n" + body,
    "chunked": chunked,
    "chunked, garbage behind": lambda body: chunked(body, b"GARBAGE\r\n\r\n\x00\xff"),
    "sized, garbage behind": lambda body: sized(body) + b"HTTP/9.9 what\r\n",
    "another content type": lambda body: (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    ),
}


def in_form_of(asked, answers):
    return json.dumps(answers if isinstance(asked, list) else answers[0]).encode()


@pytest.mark.parametrize("case", READ_RIGHT)
def test_an_answer_in_an_odd_envelope_is_read(way, case):
    def respond(asked):
        calls = asked if isinstance(asked, list) else [asked]
        return READ_RIGHT[case](in_form_of(asked, [result(each["id"], each["params"][0]) for each in calls]))

    with raw_node(respond) as url, endpoint_at(url, way) as endpoint:
        found = [read(call_all(endpoint, heads(count))) for count in (1, 12, 3)]
    assert found == [[hex(n) for n in range(count)] for count in (1, 12, 3)]


def shuffled(calls):
    return [result(each["id"], each["params"][0]) for each in reversed(calls)]


def with_more(calls):
    extra = [result(10_000), {"id": None, "error": {"code": 1, "message": "x"}}, {"method": "eth_subscription"}]
    return [*extra, *[result(each["id"], each["params"][0]) for each in calls]] if len(calls) > 1 else shuffled(calls)


@pytest.mark.parametrize("answers", [shuffled, with_more], ids=["another order", "extra answers"])
def test_answers_are_found_by_their_ids(way, answers):
    def respond(asked):
        calls = asked if isinstance(asked, list) else [asked]
        return sized(in_form_of(asked, answers(calls)))

    with raw_node(respond) as url, endpoint_at(url, way) as endpoint:
        assert read(call_all(endpoint, heads(9))) == [hex(n) for n in range(9)]


SAID_CLEARLY = {
    "ids as text": lambda calls: [result(str(each["id"])) for each in calls],
    "no ids": lambda calls: [{"result": "0x1"} for _ in calls],
    "ids of another kind": lambda calls: [result([each["id"]]) for each in calls],
    "every answer twice": lambda calls: [result(each["id"]) for each in [*calls, *calls]],
    "neither": lambda calls: [{"id": each["id"]} for each in calls],
    "no objects": lambda calls: [1, None, "x"],
    "deep": lambda calls: "DEEP",
    "huge data": lambda calls: [
        {"id": each["id"], "error": {"code": -32000, "message": "m " * 50_000, "data": "d" * 500_000}} for each in calls
    ],
    "an error of another kind": lambda calls: [{"id": each["id"], "error": ["a", {"b": 1}]} for each in calls],
    "error true": lambda calls: [{"id": each["id"], "error": True} for each in calls],
    "an empty error": lambda calls: [{"id": each["id"], "error": {}} for each in calls],
    "a code of another kind": lambda calls: [
        {"id": each["id"], "error": {"code": "x" * 9, "message": {"a": 1}}} for each in calls
    ],
}


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("case", SAID_CLEARLY)
def test_an_answer_of_another_form_is_one_clear_error(way, case, count, monkeypatch):
    monkeypatch.setattr("trace_dagster.gateway.endpoint_client.RETRIES", 1)
    monkeypatch.setattr(batches, "PROBE_SECONDS", 1000.0)

    def respond(asked):
        calls = asked if isinstance(asked, list) else [asked]
        answers = SAID_CLEARLY[case](calls)
        if answers == "DEEP":
            return sized(b'{"id":1,"result":' + b"[" * 100_000)
        is_one = not isinstance(asked, list) and len(answers) == 1
        return sized(json.dumps(answers[0] if is_one else answers).encode())

    with raw_node(respond) as url, endpoint_at(url, way) as endpoint:
        started = time.monotonic()
        error = raised(endpoint, heads(count))
    assert isinstance(error, Unavailable)
    assert not isinstance(error, AnswerTooLarge)
    assert error.message.startswith("rpc endpoint alchemy#1")
    assert len(str(error)) < 2_500
    assert time.monotonic() - started < 10


BROKEN = {
    "chunks without an end": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc",
    "a chunk of no number": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n",
    "shorter than it says": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "nothing": b"",
    "a negative length": b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n{}",
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_transport_is_one_clear_error(way, case, monkeypatch):
    monkeypatch.setattr("trace_dagster.gateway.endpoint_client.RETRIES", 1)
    with ExitStack() as stack:
        url = stack.enter_context(raw_node(lambda _: BROKEN[case]))
        endpoint = stack.enter_context(endpoint_at(url, way))
        started = time.monotonic()
        error = raised(endpoint, heads(2))
    assert isinstance(error, Unavailable)
    assert error.message.startswith("rpc endpoint alchemy#1")
    assert time.monotonic() - started < 10
