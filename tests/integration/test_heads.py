"""Where new heads come from: subscriptions that the gateway holds, and polls while there are none."""

import json
import socket
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from statistics import median
from urllib.parse import urlsplit

import pytest
import trustme

from tests.support.anvil_node import find_anvil, running_anvil
from tests.support.gateways import fetch, gateway, gateway_process, watched
from tests.support.nodes import serving
from tests.support.push_server import notification, pushing
from trace_dagster.chaos_rpc.proxy import chaos_rpc
from trace_dagster.devchain.chain import DevChain
from trace_dagster.devchain.encode import header_json
from trace_dagster.errors import Unavailable
from trace_dagster.follow.heads import PolledHeads, SubscribedHeads, head_source
from trace_dagster.gateway.heads_client import OPEN_SECONDS, HeadStream
from trace_dagster.gateway.websocket import MOST_MESSAGE_BYTES
from trace_dagster.rpc.pools import Endpoint, Limits, RpcPool

pytestmark = pytest.mark.integration

SECRET = "SECRETKEY0123456789"
HEAD = {"number": "0x999", "hash": "0x" + "1" * 64, "parentHash": "0x" + "2" * 64}


@pytest.fixture
def chain():
    return DevChain(7, 20)


@pytest.fixture
def node(chain):
    with watched(chain) as node:
        yield node


def pool_behind(door):
    return RpcPool("dev", ("http://hidden",), gateway_urls=(f"{door.url}/dev/1",))


@contextmanager
def heads_of(door, block_seconds=None):
    source = head_source(pool_behind(door), lambda: block_seconds)
    assert isinstance(source, SubscribedHeads)
    try:
        yield source
    finally:
        source.close()


def until(source, number, seconds=5.0):
    """Return the head with this number, and the seconds until it came."""
    started = time.monotonic()
    while (left := started + seconds - time.monotonic()) > 0:
        head = source.next(left)
        if head is not None and head.number == number:
            return head, time.monotonic() - started
    raise AssertionError(f"no head {number} within {seconds} s")


def mined(chain, source, blocks=1, seconds=5.0):
    """Mine blocks one by one, and return the seconds that each took to arrive."""
    took = []
    for _ in range(blocks):
        block = chain.mine()
        head, seconds_taken = until(source, chain.head, seconds)
        assert (head.hash, head.parent_hash) == (block.hash, block.parent_hash)
        took.append(seconds_taken)
    return took


def wait_for(condition, seconds=5.0):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)


def is_subscribed(door):
    return lambda: door.counts()["is_subscribed"] is True


def test_heads_are_pushed_to_every_caller_through_one_subscription(chain):
    with serving(chain) as url, gateway(dev=url, TRACE_RPC_POOL_DEV_WS_URL=url.replace("http", "ws")) as door:
        with ExitStack() as stack:
            sources = [stack.enter_context(heads_of(door, 0.3)) for _ in range(3)]
            assert [until(source, 19)[0].hash for source in sources] == [chain.blocks[19].hash] * 3
            wait_for(is_subscribed(door))
            asked = door.counts()["calls_asked"]
            took = mined(chain, sources[0], 20)
            assert median(took) < 0.1, took
            for source in sources[1:]:
                assert until(source, 39)[0].position == 1
            assert len(chain.listeners) == 1
            assert (door.counts()["heads"], door.counts()["calls_asked"]) == (20, asked)
        assert 'trace_gateway_is_subscribed{endpoint="dev#1"} 1.0' in fetch(f"{door.url}/metrics")[1].decode()


def test_a_slow_caller_gets_only_the_newest_head(chain, node):
    with (
        pushing(chain) as server,
        gateway(dev=node.url, TRACE_RPC_POOL_DEV_WS_URL=server.url) as door,
        heads_of(door) as source,
    ):
        until(source, 19)
        wait_for(is_subscribed(door))
        for _ in range(50):
            chain.mine()
        time.sleep(0.3)
        head = source.next(1)
        assert head is not None
        assert head.number == 69
        assert source.next(0.2) is None


def test_a_reorganisation_is_pushed_even_if_its_head_is_lower(chain, node):
    other = DevChain(8, 19)
    with (
        pushing(chain) as server,
        gateway(dev=node.url, TRACE_RPC_POOL_DEV_WS_URL=server.url) as door,
        heads_of(door) as source,
    ):
        until(source, 19)
        wait_for(is_subscribed(door))
        server.push(header_json(other.blocks[18]))
        assert until(source, 18)[0].hash == other.blocks[18].hash


def test_heads_are_polled_while_the_socket_is_gone_and_pushed_again_when_it_is_back(chain, node):
    with pushing(chain) as server:
        url = server.url
    with gateway(dev=node.url, TRACE_RPC_POOL_DEV_WS_URL=url) as door, heads_of(door, 0.3) as source:
        until(source, 19)
        for _ in range(2):
            assert median(mined(chain, source, 3)) < 0.5
            with pushing(chain, port=urlsplit(url).port):
                wait_for(is_subscribed(door))
                before = door.counts()["heads"]
                mined(chain, source, 3)
                assert door.counts()["heads"] == before + 3
            wait_for(lambda: door.counts()["is_subscribed"] is False)
        assert door.counts()["subscriptions_lost"] >= 2


def test_a_socket_that_goes_silent_is_noticed_and_left(chain, node):
    with (
        pushing(chain) as server,
        gateway(dev=node.url, TRACE_RPC_POOL_DEV_WS_URL=server.url) as door,
        heads_of(door, 0.1) as source,
    ):
        until(source, 19)
        wait_for(is_subscribed(door))
        mined(chain, source, 5)
        server.is_silent = True
        took = []
        while server.accepted < 2:
            took += mined(chain, source, 1)
        assert max(took) < 2.5, took
        server.is_silent = False
        wait_for(is_subscribed(door))
        assert min(mined(chain, source, 5)) < 0.1


def test_a_socket_that_lags_behind_its_endpoint_does_not_hold_back_the_heads(chain, node):
    with (
        pushing(chain) as server,
        gateway(dev=node.url, TRACE_RPC_POOL_DEV_WS_URL=server.url) as door,
        heads_of(door, 0.1) as source,
    ):
        until(source, 19)
        wait_for(is_subscribed(door))
        server.is_silent = True
        chain.mine()
        server.push(header_json(chain.blocks[3]))
        until(source, chain.head, 15)


def test_heads_are_pushed_while_the_node_is_slow_to_answer_calls(chain, node):
    node.delay = lambda calls: 2.0 if calls[0]["method"] == "eth_getBlockByNumber" else 0.0
    with (
        pushing(chain) as server,
        gateway(dev=node.url, TRACE_RPC_POOL_DEV_WS_URL=server.url) as door,
        closing(HeadStream(f"{door.url}/dev/heads")) as stream,
    ):
        wait_for(is_subscribed(door))
        for _ in range(5):
            chain.mine()
            started = time.monotonic()
            while (head := stream.head(1)) is None:
                assert time.monotonic() - started < 1.0
            assert head.number == chain.head
        assert door.counts()["under_way"] == 1  # the first call is not answered yet


SENT = {
    "no JSON": ["no JSON"],
    "broken UTF-8": [b'{"a":"\xff'],
    "a deep nest": ["[" * 100_000],
    "other JSON": ["null", "[]", "7", '"x"', "{}", '{"params":7}', '{"params":{"subscription":[]}}', '{"id":{}}'],
    "a huge message": ['"' + "x" * (MOST_MESSAGE_BYTES + 1) + '"'],
    "no head": [json.dumps(notification(each)) for each in (None, 7, [], {}, {**HEAD, "hash": None})],
    "a number out of range": [json.dumps(notification({**HEAD, "number": "0x" + "f" * 16}))],
    "another's subscription": [json.dumps(notification(HEAD, "0x99"))],
    "a flood": [json.dumps(notification({}))] * 20_000,
}


@pytest.mark.parametrize("sent", SENT.values(), ids=SENT)
def test_no_message_is_taken_for_a_head_or_ends_the_heads(chain, node, sent):
    with (
        pushing(chain) as server,
        gateway(dev=node.url, TRACE_RPC_POOL_DEV_WS_URL=server.url) as door,
        heads_of(door, 0.3) as source,
    ):
        until(source, 19)
        wait_for(is_subscribed(door))
        for message in sent:
            server.say(message)
        assert source.next(0.5) is None
        mined(chain, source, 2)
        wait_for(is_subscribed(door))
        mined(chain, source, 2)


def test_a_socket_of_another_chain_or_without_subscriptions_is_not_used(chain, node):
    for member, value in (("chain_id", 1), ("refusal", {"code": -32601, "message": "no eth_subscribe"})):
        with (
            pushing(chain) as server,
            gateway(dev=node.url, TRACE_RPC_POOL_DEV_WS_URL=server.url) as door,
            heads_of(door, 0.3) as source,
        ):
            setattr(server, member, value)
            until(source, chain.head)
            wait_for(lambda door=door: door.counts()["subscriptions_lost"] > 0)
            mined(chain, source, 2)
            assert (door.counts()["heads"], door.counts()["is_subscribed"]) == (0, False)


def test_a_subscription_through_tls_and_no_url_in_anything_that_is_said(chain, node, tmp_path):
    authority, proof, trusted = trustme.CA(), tmp_path / "node.pem", tmp_path / "trusted.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(proof)
    authority.cert_pem.write_to_path(trusted)
    with pushing(chain, certificate=proof) as server:
        url = f"{server.url}/v1/{SECRET}?key={SECRET}".replace("//", f"//user:{SECRET}@", 1)
        given = {
            "TRACE_RPC_POOL_DEV_WS_URL": url,
            "ALL_PROXY": "http://127.0.0.1:9",
            "HTTPS_PROXY": "http://127.0.0.1:9",
        }
        with gateway_process(dev=node.url, SSL_CERT_FILE=str(trusted), **given) as door, heads_of(door) as source:
            until(source, 19)
            wait_for(is_subscribed(door))
            mined(chain, source, 2)
            for connection in list(server.connections):
                connection.close(1008, f"bad key, see {url}"[:120])
            wait_for(lambda: door.counts()["subscriptions_lost"] == 1)
            seen = [door.end()]
        with gateway_process(dev=node.url, **given) as door, heads_of(door) as source:
            mined(chain, source)
            wait_for(lambda: door.counts()["subscriptions_lost"] > 0)
            seen.append(door.end())
    assert "subscription_lost" in seen[0]
    assert "(1008)" in seen[0]
    assert "SSLCertVerificationError" in seen[1]
    assert SECRET not in "".join(seen)
    assert f":{urlsplit(server.url).port}" not in "".join(seen)


def test_a_gateway_that_ends_is_an_error_until_another_one_runs(chain, node):
    with pushing(chain) as server:
        given = {"dev": node.url, "TRACE_RPC_POOL_DEV_WS_URL": server.url}
        with gateway(**given) as door, heads_of(door, 0.3) as source:
            until(source, 19)
            return_to = urlsplit(door.url).port
        source = head_source(pool_behind(door), lambda: 0.3)
        with pytest.raises(Unavailable, match="rpc endpoint dev#1 does not answer"):
            source.next(5)
        with gateway(at=return_to, **given):
            wait_for(lambda: _head_or_none(source), 5)
            mined(chain, source, 2)
        with pytest.raises(Unavailable):
            until(source, 99)
        source.close()
        assert source.next(5) is None


SAID = {
    "half a head": b"HTTP/1.1 200 OK\r\n",
    "another status": b"HTTP/1.1 500 \r\n\r\n",
    "no HTTP": b"hello\r\n\r\n",
    "garbage": b"HTTP/1.1 200 OK\r\n\r\nhello\n",
}


@pytest.mark.parametrize("said", SAID.values(), ids=SAID)
def test_what_is_no_stream_of_heads_is_an_error_in_time(said):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/token/dev/heads"
        held = []

        def answer():
            held.append(server.accept()[0])
            held[0].sendall(said)

        threading.Thread(target=answer, daemon=True).start()
        started = time.monotonic()
        with pytest.raises(Unavailable, match="the rpc gateway does not stream heads"):
            HeadStream(url)
        assert time.monotonic() - started < OPEN_SECONDS + 1
        held[0].close()


def _head_or_none(source):
    try:
        return source.next(0.1)
    except Unavailable:
        return None


def test_without_a_websocket_the_heads_are_polled_on_the_tips_route(chain, node):
    with gateway(dev=node.url) as door, heads_of(door, 0.3) as source:
        assert fetch(f"{door.url}/dev/heads")[0] == fetch(f"{door.url}/other/heads")[0] == 404
        until(source, 19)
        took = mined(chain, source, 5)
        assert median(took) < 0.5, took
        assert door.counts()["tip_calls"] == door.counts()["calls_sent"] >= 6


def test_polls_go_on_at_the_next_endpoint_and_stay_within_their_part_of_a_limit(chain, node):
    endpoints = [Endpoint("dev", 1, "http://127.0.0.1:9"), Endpoint("dev", 2, node.url)]
    source = PolledHeads(endpoints, lambda: 0.2, limits=Limits(requests_per_second=20))
    assert until(source, 19)[0].position == 2
    node.requests.clear()
    assert source.next(2.0) is None
    assert 8 <= len(node.requests) <= 11
    source.close()
    assert source.next(5) is None
    silent = PolledHeads(endpoints[:1], lambda: None)
    with pytest.raises(Unavailable, match="rpc endpoint dev#1 does not answer"):
        silent.next(5)
    started = time.monotonic()
    with pytest.raises(Unavailable):
        silent.next(5)
    assert time.monotonic() - started > 0.4


@pytest.mark.parametrize("scenario", ["repeated_heads", "rewound_heads", "silent_heads"])
def test_every_block_is_shown_soon_whatever_a_socket_announces(chain, scenario):
    with serving(chain) as url, chaos_rpc(url) as proxy:
        proxy.head = scenario
        websocket_url = proxy.url.replace("http", "ws")
        with gateway(dev=url, TRACE_RPC_POOL_DEV_WS_URL=websocket_url) as door, heads_of(door, 0.1) as source:
            until(source, 19)
            wait_for(is_subscribed(door))
            took = mined(chain, source, 10)
    assert max(took) < 2.5, took
    assert median(took) < 0.3 or scenario == "silent_heads", took


def test_heads_of_a_real_node():
    binary = find_anvil()
    assert binary is not None, "there is no anvil: make node"
    with (
        running_anvil(binary) as anvil,
        gateway(dev=anvil.url, TRACE_RPC_POOL_DEV_WS_URL=anvil.url.replace("http", "ws")) as door,
        heads_of(door) as source,
    ):
        until(source, 0)
        wait_for(is_subscribed(door))
        took = []
        for number in range(1, 6):
            anvil.mine()
            head, seconds = until(source, number)
            assert f"0x{head.hash.hex()}" == anvil.rpc("eth_getBlockByNumber", hex(number), False)["hash"]
            took.append(seconds)
        assert median(took) < 0.2, took
        assert door.counts()["heads"] == 5
