"""The follower over nodes that lie, lag or are slow: it goes on, and it says why if it cannot."""

from __future__ import annotations

import asyncio
import json
import re
import time

import pytest

from tests.support.following import (
    eventually,
    follow_job,
    follower_process,
    following,
    hot_blocks,
    reason,
    reorgs,
    stored_chain,
)
from tests.support.nodes import serving, serving_application
from trace_dagster.devchain.chain import DevChain
from trace_dagster.devchain.server import application
from trace_dagster.registry.endpoint_scores import EndpointScores

pytestmark = pytest.mark.integration


class Switch:
    """A URL behind which another node can be put, and which can be slow."""

    def __init__(self, chain):
        self.use(chain)
        self.delay_seconds = 0.0

    def use(self, chain):
        self._node = application(chain)

    async def __call__(self, scope, receive, send):
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)
        await self._node(scope, receive, send)


def chain_in(year, blocks):
    chain = DevChain(7)
    chain.clock = lambda: (year - 1970) * 31_556_952
    chain.grow(blocks)
    return chain


def test_a_head_of_another_chain_does_not_end_the_following(postgres_url, database):
    chain, other = DevChain(7, 60), DevChain(8, 300)
    switch = Switch(chain)
    with serving_application(switch) as url, following(postgres_url, node=url):
        follow_job(database)
        eventually(lambda: len(stored_chain(database)) == 60)
        switch.use(other)
        eventually(lambda: 299 in stored_chain(database))
        switch.use(chain)
        for _ in range(20):
            chain.mine()
            time.sleep(0.2)
        eventually(lambda: stored_chain(database).get(chain.head) == chain.blocks[-1].hash, 10)


def test_another_endpoint_is_asked_if_a_block_lies_after_year_9999(postgres_url, database):
    chain = chain_in(2020, 60)
    with (
        serving(chain_in(10_500, 60)) as lying,
        serving(chain) as honest,
        follower_process(postgres_url, node=f"{lying},{honest}") as runtime,
    ):
        follow_job(database)
        said = runtime.followers.tick(10)
        assert stored_chain(database).get(59) == chain.blocks[-1].hash, said


def test_two_followers_of_a_slow_node_do_not_take_each_others_lease(postgres_url, database):
    chain = DevChain(7, 60)
    switch = Switch(chain)
    switch.delay_seconds = 3.5
    with serving_application(switch) as url, following(postgres_url, node=url), following(postgres_url, node=url):
        follow_job(database)
        eventually(lambda: 59 in stored_chain(database), 25)


class Spoiled:
    """A node whose blocks have another state root than their hash says, as long as ``is_on``."""

    def __init__(self, chain):
        self._node = application(chain)
        self.is_on = False

    async def __call__(self, scope, receive, send):
        async def spoiled(message):
            if self.is_on and message["type"] == "http.response.body":
                message = {**message, "body": message["body"].replace(b'"stateRoot":"0x', b'"stateRoot":"0x0', 1)}
                message["body"] = re.sub(rb'("stateRoot":"0x0[0-9a-f]{63})[0-9a-f]', rb"\1", message["body"])
            if self.is_on and message["type"] == "http.response.start":
                message = {**message, "headers": [h for h in message["headers"] if h[0] != b"content-length"]}
            await send(message)

        await self._node(scope, receive, spoiled)


def test_the_next_endpoint_is_compared_if_the_headers_of_one_do_not_prove_their_hash(postgres_url, database):
    chain = DevChain(7, 60)
    first = Spoiled(chain)
    with (
        serving_application(first) as lying,
        serving(chain) as honest,
        following(postgres_url, node=f"{lying},{honest}"),
    ):
        follow_job(database)
        eventually(lambda: len(stored_chain(database)) == 60)
        first.is_on = True
        with database.connection() as connection:
            connection.execute("update hot.followers set recheck_from = 50")
        eventually(lambda: not rechecks(database), 12)
        (score,) = EndpointScores(database).all()
        assert score.endpoint == "node#1"
        assert score.lies >= 1


def rechecks(database):
    with database.connection() as connection:
        return connection.execute("select 1 from hot.followers where recheck_from is not null").fetchall()


class WithoutReceipts:
    """A node that has no receipts of one block."""

    def __init__(self, chain, number):
        self._node = application(chain)
        self._number = number
        self.asked = 0

    async def __call__(self, scope, receive, send):
        message = await receive()
        body = message.get("body", b"")
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
        lacking = b'eth_getBlockReceipts","params":["%s"]' % hex(self._number).encode()
        compact = body.replace(b" ", b"")
        if lacking in compact:
            self.asked += 1
            calls = json.loads(body)
            for call in calls if isinstance(calls, list) else [calls]:
                if call["method"] == "eth_getBlockReceipts" and call["params"] == [hex(self._number)]:
                    call["params"] = ["0xfffffff"]
            body = json.dumps(calls).encode()

        async def heard():
            return {"type": "http.request", "body": body, "more_body": False}

        await self._node(scope, heard, send)


def test_a_block_that_no_endpoint_has_does_not_keep_those_below_it_from_being_hot(postgres_url, database):
    chain = DevChain(7, 150)
    number = next(block.number for block in chain.blocks[90:] if block.transactions)
    node = WithoutReceipts(chain, number)
    with serving_application(node) as url, following(postgres_url, node=url):
        streams = follow_job(database)
        missing = set(range(150)) - {number}
        eventually(lambda: missing <= set(hot_blocks(database, streams["logs"].dataset_uuid)))
        assert f"block {number} is missing" in eventually(lambda: reason(database))
        asked = node.asked
        chain.mine()
        eventually(lambda: 150 in stored_chain(database))
        time.sleep(2)
        assert node.asked == asked, "it is asked for again and again"


def test_a_node_far_below_the_stored_head_is_said_to_be_behind(postgres_url, database):
    chain = DevChain(7, 400)
    switch = Switch(chain)
    with serving_application(switch) as url, following(postgres_url, node=url):
        follow_job(database, chunk=100)
        eventually(lambda: set(range(300, 400)) <= set(stored_chain(database)))
        switch.use(DevChain(7, 200))
        said = eventually(lambda: reason(database))
        assert said == "the chain's nodes are at block 199, below the stored head 399"
        before = confirmed_at(database)
        time.sleep(2.5)
        assert confirmed_at(database) == before
        switch.use(chain)
        eventually(lambda: reason(database) is None and confirmed_at(database) > before)
        assert set(range(300, 400)) <= set(stored_chain(database))


def confirmed_at(database):
    with database.connection() as connection:
        return connection.execute("select observed_at from hot.heads where tag = 'latest'").fetchone()["observed_at"]


class Announcing:
    """A node that shows a head which nobody has."""

    def __init__(self, chain, number):
        self._node = application(chain)
        self._number = b'"number":"%s"' % hex(number).encode()

    async def __call__(self, scope, receive, send):
        message = await receive()
        body = message.get("body", b"")

        async def heard():
            return {"type": "http.request", "body": body, "more_body": False}

        async def announced(message):
            if b"latest" in body and message["type"] == "http.response.body":
                message = {**message, "body": re.sub(rb'"number": ?"0x[0-9a-f]+"', self._number, message["body"])}
            if message["type"] == "http.response.start":
                message = {**message, "headers": [h for h in message["headers"] if h[0] != b"content-length"]}
            await send(message)

        await self._node(scope, heard, announced)


def test_the_next_endpoint_is_followed_if_nobody_has_the_head_that_one_shows(postgres_url, database):
    chain = DevChain(7, 60)
    with (
        serving_application(Announcing(chain, 2**62)) as announcing,
        serving(chain) as honest,
        follower_process(postgres_url, node=f"{announcing},{honest}") as runtime,
    ):
        follow_job(database)
        said = runtime.followers.tick(5)
        assert stored_chain(database).get(59) == chain.blocks[-1].hash, said


class Alternating:
    """A URL behind which another node answers for a while after the first call about a block."""

    def __init__(self, chain, other, number, seconds):
        self._nodes = application(chain), application(other)
        self._asks = b'"%s"' % hex(number).encode()
        self._seconds = seconds
        self.is_on = False
        self.asked_at = None

    async def __call__(self, scope, receive, send):
        message = await receive()
        body = message.get("body", b"")

        async def heard():
            return {"type": "http.request", "body": body, "more_body": False}

        if self.is_on and self.asked_at is None and self._asks in body:
            self.asked_at = time.monotonic()
        is_other = self.is_on and (self.asked_at is None or time.monotonic() < self.asked_at + self._seconds)
        await self._nodes[is_other](scope, heard, send)


def test_a_lower_branch_is_not_adopted_if_the_node_shows_it_for_a_moment_only(postgres_url, database):
    chain, other = DevChain(7, 60), DevChain(7, 60)
    other.reorg(9, 5)
    node = Alternating(chain, other, 59, 0.5)
    with serving_application(node) as url, following(postgres_url, node=url):
        follow_job(database)
        eventually(lambda: len(stored_chain(database)) == 60)
        node.is_on = True
        eventually(lambda: node.asked_at is not None)
        time.sleep(2)
        assert reorgs(database) == []
        assert stored_chain(database) == {block.number: block.hash for block in chain.blocks}
