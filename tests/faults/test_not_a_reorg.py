"""Nodes whose head goes wrong without a reorganisation: the follower removes nothing and stores no block short of rows.

One chain grows behind a lying proxy, and seven followers, one for each choice of streams, follow it at the same time.
Each scenario lasts for some blocks. All the while every follower's hot rows are compared with the chain.
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pytest

from tests.conftest import cloned_database
from tests.support.gateways import gateway
from tests.support.growing import GrowingChain, dev_node
from tests.support.nodes import forked, serving
from tests.support.tip import COMBINATIONS, HotView, Tip, every_block, following, incomplete, tip_job
from trace_dagster.chaos_rpc.proxy import ChaosRpc, chaos_rpc
from trace_dagster.devchain.blocks import DevBlock
from trace_dagster.devchain.chain import DevChain

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

BLOCKS = 45
BRANCH_AT = 40
CHUNK = 20
SCENARIO_BLOCKS = 3
BLOCK_SECONDS = 0.25
RECOVERY_SECONDS = 15.0
SWITCHED_SECONDS = 0.14
"""Less than the time in which the follower makes sure that the stored head is gone."""

HEADS = (
    "behind", "syncing", "two_backends", "two_backends_mixed", "null_new_block", "repeated_heads", "rewound_heads",
    "silent_heads",
)  # fmt: skip
FAULTS = ("empty_list", "truncate_tail", "stale_fork", "null_result", "neighbour_rows", "duplicate_rows")


@dataclass
class Watched:
    """A follower whose hot rows are compared with the chain again and again, from a thread of its own."""

    tip: Tip
    blocks: dict[bytes, DevBlock]
    wrong: list[str] = field(default_factory=list)
    looks: int = 0
    last: HotView | None = None

    def look(self) -> None:
        view = self.tip.view()
        self.wrong += incomplete(view, self.blocks)
        if self.last is not None:
            self.wrong += removed(self.last, view)
        self.last = view
        self.looks += 1


def removed(before: HotView, after: HotView) -> list[str]:
    """Return what one look found and the next one did not."""
    gone = [f"block {n} is another one" for n, block_hash in before.chain.items() if after.chain.get(n) != block_hash]
    gone += [f"{key} lost {sorted(old - after.covered.get(key, frozenset()))}" for key, old in before.covered.items()
             if not old <= after.covered.get(key, frozenset())]  # fmt: skip
    return [*gone, *["a reorganisation was recorded"] * (after.reorgs - before.reorgs)]


@dataclass
class Stage:
    """A chain, the proxy in front of its node, and the followers behind the proxy."""

    chain: GrowingChain
    proxy: ChaosRpc
    watched: list[Watched]

    def grow(self, blocks: int) -> None:
        for _ in range(blocks):
            time.sleep(BLOCK_SECONDS)
            self.chain.mine()

    def settle(self) -> None:
        """End the scenario, and wait until every follower has the newest block."""
        self.proxy.head, self.proxy.fork_url, self.proxy.rate = None, None, 0.0
        self.chain.mine()
        for each in self.watched:
            each.tip.wait_for(self.chain.head.hash, RECOVERY_SECONDS)

    def hashes(self) -> set[bytes]:
        """Return the hash of every stored block."""
        return {block_hash for each in self.watched for block_hash in each.tip.view().chain.values()}

    def assert_nothing_was_wrong(self) -> None:
        for each in self.watched:
            assert each.wrong == [], each.tip.keys


@pytest.fixture(scope="module")
def branch():
    """Serve a node that stays on another branch."""
    other = forked(7, BRANCH_AT, BLOCKS)
    with serving(other) as url:
        yield other, url


@pytest.fixture(scope="module")
def stage(postgres, template_database):
    devchain = DevChain(7, BLOCKS)
    blocks, stop = every_block(devchain), threading.Event()
    with ExitStack() as stack:
        node = stack.enter_context(dev_node(devchain))
        proxy = stack.enter_context(chaos_rpc(node.url, rate=0, head_blocks=2, seed=5))
        door = stack.enter_context(gateway(tip=proxy.url, TRACE_RPC_POOL_TIP_WS_URL=proxy.url.replace("http", "ws")))
        watched = []
        for place, keys in enumerate(COMBINATIONS):
            url = stack.enter_context(cloned_database(*postgres, template_database))
            gateway_url = door.url if place % 2 == 0 else None
            job = tip_job(keys, chunk_size=CHUNK)
            tip = stack.enter_context(following(url, keys, proxy.url, gateway_url=gateway_url, job=job, stop=stop))
            watched.append(Watched(tip, blocks))
        with looking_at(watched, stop):
            stage = Stage(GrowingChain(node), proxy, watched)
            stage.settle()
            yield stage


@contextmanager
def looking_at(watched, stop):
    """Look at every follower's hot rows in turn until the end of the block; then end the followers."""

    def run():
        while not stop.wait(0.01):
            for each in watched:
                each.look()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)


@pytest.mark.parametrize("name", HEADS)
def test_a_wrong_head_removes_nothing(stage, name):
    stage.proxy.head = name
    stage.grow(SCENARIO_BLOCKS)
    assert stage.proxy.injected[name] > 0
    stage.settle()
    stage.assert_nothing_was_wrong()


@pytest.mark.parametrize(
    ("name", "rate"), [*((name, 0.6) for name in FAULTS), ("empty_list", 1.0), ("stale_fork", 1.0)]
)
def test_a_wrong_answer_about_a_new_block_is_not_stored(stage, name, rate):
    before = stage.proxy.injected[name]
    stage.proxy.faults, stage.proxy.rate = [name], rate
    stage.grow(SCENARIO_BLOCKS)
    assert stage.proxy.injected[name] > before
    stage.settle()
    stage.assert_nothing_was_wrong()


@pytest.mark.parametrize("name", ["two_backends", "two_backends_mixed"])
def test_a_second_backend_on_another_branch_removes_nothing(stage, branch, name):
    other, url = branch
    other.grow(len(stage.chain.node.chain.blocks))
    stage.proxy.fork_url, stage.proxy.head = url, name
    stage.grow(SCENARIO_BLOCKS)
    assert stage.proxy.injected[name] > 0
    stage.settle()
    assert {block.hash for block in other.blocks[BRANCH_AT:]}.isdisjoint(stage.hashes())
    stage.assert_nothing_was_wrong()


def test_short_looks_at_a_backend_on_another_branch_remove_nothing(stage, branch):
    """For some requests in a row the URL is another node, whose head is lower than the stored one."""
    other, url = branch
    node = stage.proxy.upstream_url
    other.grow(len(stage.chain.node.chain.blocks))
    for _ in range(2 * SCENARIO_BLOCKS):
        stage.settle()
        stage.proxy.upstream_url = url
        time.sleep(SWITCHED_SECONDS)
        stage.proxy.upstream_url = node
        time.sleep(SWITCHED_SECONDS)
    stage.settle()
    stage.assert_nothing_was_wrong()


def test_receipts_of_an_abandoned_branch_are_not_stored(stage, branch):
    stage.proxy.fork_url = branch[1]
    stage.proxy.faults, stage.proxy.rate = ["stale_fork"], 0.5
    stage.grow(SCENARIO_BLOCKS)
    stage.settle()
    stage.assert_nothing_was_wrong()


def test_two_backends_that_grow_apart_leave_whole_blocks_of_one_chain(stage):
    """A longer branch may be adopted, because its headers prove the fork, and is left again when it is gone."""
    chain = stage.chain.node.chain
    other = forked(7, BRANCH_AT, len(chain.blocks))
    blocks = stage.watched[0].blocks
    blocks |= {block.hash: block for block in other.blocks}
    other.listeners.append(lambda block: blocks.setdefault(block.hash, block))
    with serving(other) as url:
        stage.proxy.fork_url, stage.proxy.head = url, "two_backends"
        for _ in range(3 * SCENARIO_BLOCKS):
            other.mine()
            stage.grow(1)
        stage.proxy.head = stage.proxy.fork_url = None
    stage.grow(2)
    stage.settle()
    for each in stage.watched:
        assert [wrong for wrong in each.wrong if "is another one" not in wrong and "reorganisation" not in wrong] == []
        assert set(each.tip.view().chain.values()) <= {block.hash for block in chain.blocks}
