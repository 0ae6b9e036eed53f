"""Reorganisations of depth 1 to 64 while every choice of streams is followed, committed and queried.

``TRACE_STORM_FORKS=43`` runs so many random ones, of large blocks, for each choice of streams, and is strict about the
age of an answer's head.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack, contextmanager

import pytest

from tests.conftest import cloned_database
from tests.support import lake_truth
from tests.support.gateways import gateway
from tests.support.growing import dev_node, growing
from tests.support.nodes import serving_application
from tests.support.storm import CANONICAL_SECONDS, Fork, Storm, commit_cold, random_forks, repeating, run_forks
from tests.support.tip import COMBINATIONS, every_block, following, incomplete, tip_job
from trace_dagster.chaos_rpc.proxy import chaos_rpc
from trace_dagster.devchain.chain import BusyBlocks, DevChain
from trace_dagster.devchain.server import application

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

FROM_BLOCK, BLOCKS, CHUNK, FINAL_BEHIND = 50, 100, 10, 12
BLOCK_SECONDS = 0.3
COLUMNS = {key: [*dict.fromkeys(["block_hash", *columns])] for key, columns in lake_truth.COLUMNS.items()}
SLOW_SECONDS = 15.0
"""How long before a question the answer's head must have been canonical, if other tests keep the machine busy."""

RANDOM_FORKS = int(os.environ.get("TRACE_STORM_FORKS", "0"))
MEAN_SECONDS = 1.2

FORKS = (
    [Fork(0.5, 1, 1), Fork(0.5, 2, 3)],
    [Fork(0.5, 3, 3), Fork(0.05, 4, 5)],  # the second one inside the repair of the first
    [Fork(0.5, 8, 7), Fork(0.4, 1, 2)],  # leaves a lower head
    [Fork(0.5, 16, 17), Fork(0.1, 16, 16), Fork(0.1, 2, 3)],  # into final blocks, three within a second
    [Fork(0.5, 31, 32)],  # into committed blocks
    [Fork(0.5, 47, 48), Fork(0.4, 1, 1)],  # deeper than any hot row
    [Fork(0.5, 2, 2), Fork(0.3, 64, 64), Fork(0.3, 5, 6)],
)
"""One plan for each choice of streams."""

PLANS = [
    (keys, random_forks(place, RANDOM_FORKS, MEAN_SECONDS) if RANDOM_FORKS else FORKS[place])
    for place, keys in enumerate(COMBINATIONS)
]


@pytest.fixture(params=PLANS, ids=lambda plan: "+".join(plan[0]))
def plan(request):
    return request.param


@pytest.fixture
def storm(plan, postgres, template_database, s3):
    keys, _ = plan
    devchain = DevChain(7, BLOCKS)
    devchain.final_behind = FINAL_BEHIND
    devchain.busy = BusyBlocks(20, 40) if RANDOM_FORKS else None
    blocks = every_block(devchain)
    job = tip_job(keys, from_block=FROM_BLOCK, chunk_size=CHUNK, columns=COLUMNS)
    with ExitStack() as stack:
        node = stack.enter_context(dev_node(devchain))
        url = stack.enter_context(cloned_database(*postgres, template_database))
        gateway_url = stack.enter_context(announcing_twice(node.url)) if len(keys) != 2 else None
        tip = stack.enter_context(following(url, keys, node.url, gateway_url=gateway_url, s3=s3, job=job))
        chain = stack.enter_context(growing(node, BLOCK_SECONDS))
        yield Storm(chain, blocks, [tip], s3, CANONICAL_SECONDS if RANDOM_FORKS else SLOW_SECONDS)


@contextmanager
def announcing_twice(url):
    """Run a gateway whose subscription announces each head twice; yield its URL."""
    with ExitStack() as stack:
        proxy = stack.enter_context(chaos_rpc(url, rate=0, head="repeated_heads"))
        door = stack.enter_context(gateway(tip=url, TRACE_RPC_POOL_TIP_WS_URL=proxy.url.replace("http", "ws")))
        yield door.url


def test_every_answer_is_of_one_canonical_chain(storm, plan):
    (tip,), (_, forks) = storm.tips, plan
    with storm.chain.paused():
        tip.wait_for(storm.chain.head.hash, 30)
        while commit_cold(tip):
            pass
    with repeating([lambda: commit_cold(tip)], 0.1) as failed, repeating([lambda: storm.ask(tip)], 0.1) as errors:
        run_forks(storm.chain, forks)
        time.sleep(1)
    assert storm.wrong == []
    assert not errors
    assert storm.answers > 0
    with storm.chain.paused():
        assert_settles(storm, tip, forks, failed)
    storm.ask(tip, FROM_BLOCK)
    assert storm.wrong == []
    print(f"{'+'.join(tip.keys)}: {len(forks)} forks, {storm.summary()}")


def assert_settles(storm, tip, forks, failed):
    """Check that hot and cold are the node's rows, row for row, when all invalidated ranges are committed again."""
    chain = storm.chain.node.chain.blocks
    tip.wait_for(storm.chain.head.hash, 30)
    deadline = time.monotonic() + 30
    while (wrong := storm.differences(tip, FROM_BLOCK, chain)) and time.monotonic() < deadline:
        commit_cold(tip)
    assert not wrong, (tip.keys, failed)
    assert tip.view().reorgs > 0
    if max(fork.depth for fork in forks) > CHUNK + FINAL_BEHIND:
        with tip.database.connection() as connection:
            found = connection.execute("select max(generation) as again from trace.dataset_versions").fetchone()
        assert found["again"] > 0  # ranges were committed, left the view, and were committed again


class ForksOnce:
    """A node whose chain forks right after it has answered a request for headers only."""

    def __init__(self, chain):
        self._chain = chain
        self._app = application(chain)
        self.fork = None

    async def __call__(self, scope, receive, send):
        body = []

        async def heard():
            message = await receive()
            body.append(message.get("body", b""))
            return message

        async def answered(message):
            await send(message)
            if self.fork and message["type"] == "http.response.body" and _asks_for_headers(b"".join(body)):
                fork, self.fork = self.fork, None
                self._chain.reorg(fork.depth, fork.blocks)

        await self._app(scope, heard, answered)


def _asks_for_headers(body):
    calls = json.loads(body)
    if not isinstance(calls, list) or len(calls) < 2:
        return False
    return all(call["method"] == "eth_getBlockByNumber" and call["params"][0].startswith("0x") for call in calls)


def until(is_true, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_fork_below_the_fork_that_was_found_is_found_again(postgres_url):
    """The branch that is stored begins after the block before the fork, also if that block is another one by now."""
    devchain = DevChain(7, BLOCKS)
    blocks, node = every_block(devchain), ForksOnce(devchain)
    with serving_application(node) as url, following(postgres_url, ["blocks", "logs"], url) as tip:
        until(lambda: len(tip.view().chain) == BLOCKS)
        node.fork = Fork(0, 5, 6)
        devchain.reorg(3, 4)
        until(lambda: len(devchain.blocks) == BLOCKS + 2)
        view = tip.wait_for(devchain.blocks[-1].hash)
        assert incomplete(view, blocks) == []
        assert set(view.chain.values()) == {block.hash for block in devchain.blocks}
