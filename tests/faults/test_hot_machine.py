"""Random interleavings of all that moves hot and committed blocks, over the real SQL, checked after every step.

Hypothesis runs followers that are fenced without knowing it, a node that is reorganised at any depth, workers that
commit what they extracted before a fork, people who refresh and rebuild, and readers that look at one snapshot for
long. After each step every block is visible at most once, everything that is stored is of one linked chain, and the
change log tells the same. In the end a follower fills all gaps: nothing is lost.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.support.clock import advance
from tests.support.hot_chain import MadeUpChain, apply_followed, claim, commit_cold
from tests.support.hot_follower import ModelFollower
from tests.support.hot_soundness import assert_changes_tell_hot_blocks, assert_hot_sound, hot_faults
from trace_dagster.blocks import BlockRange
from trace_dagster.config.chain_sync import parse
from trace_dagster.errors import ForkConflict, LeaseLost, Refused
from trace_dagster.registry.connection import Database
from trace_dagster.registry.forks import Forks
from trace_dagster.registry.hot import FollowerLease
from trace_dagster.registry.jobs import Bounds, Jobs
from trace_dagster.registry.streams import StreamRow
from trace_dagster.registry.tasks import Lease

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

CHUNK = 10
MOST = 30
EXAMPLES = int(os.environ.get("TRACE_FAULTS_EXAMPLES", "15"))
COLD = "  calls: {cryo_dataset_name: geth_calls}"
STREAMS = "blocks: {cryo_dataset_name: blocks}\n  logs: {cryo_dataset_name: logs}\n" + COLD
REBUILT = """
kind: chain_sync
name: tip
chain_id: 99
mode: {kind: follow_head, from_block: 0}
defaults: {rpc_pool: none, chunk_size: 10}
streams:
  blocks: {cryo_dataset_name: blocks}
  logs: {cryo_dataset_name: logs, columns: [COLUMN]}
"""
_READ = (
    "select 'logs' as t, block_number as n, block_hash as h from hot.logs"
    " union all select 'blocks', block_number, block_hash from hot.blocks"
    " union all select v.dataset_uuid::text, lower(v.block_range), v.last_block_hash from trace.dataset_versions v"
    " where v.visible order by 1, 2"
)


@dataclass
class Extracted:
    """A range that a worker has extracted from the chain of that time, and may commit."""

    stream: StreamRow
    block_range: BlockRange
    chain: MadeUpChain
    lease: Lease


class Hot(RuleBasedStateMachine):
    """All parts together."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.database = Database(self.url)
        self.sql(
            "truncate trace.jobs, trace.datasets, trace.streams, trace.tasks, trace.attempts, trace.dataset_versions,"
            " trace.files, trace.version_files, trace.outbox, trace.batches, trace.changes, hot.followers, hot.chain,"
            " hot.heads, hot.reorgs, hot.blocks, hot.transactions, hot.logs cascade"
        )
        self.streams = apply_followed(self.database, STREAMS, chunk=CHUNK)
        self.node, self.end, self.forks = MadeUpChain("a"), 12, 0
        self.holders: list[FollowerLease] = []
        self.work: list[Extracted] = []
        self.readers = ExitStack()
        self.reading: list[tuple] = []
        self.followers = 0
        self.a_follower_takes_over()
        self.follower.put(self.holders[-1], self.node, 4, self.end)

    def sql(self, statement: str, *values: object) -> list[dict]:
        with self.database.connection() as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    @property
    def follower(self) -> ModelFollower:
        return ModelFollower(self.database, {key: self.streams[key] for key in ("blocks", "logs")})

    # the chain

    @precondition(lambda self: self.end < MOST)
    @rule(count=st.integers(1, 3))
    def the_chain_grows(self, count):
        self.end += count

    @rule(depth=st.integers(1, 14), grows=st.integers(-2, 3))
    def the_chain_is_reorganised(self, depth, grows):
        fork_block = max(self.end - depth, 1)
        self.forks += 1
        self.node = self.node.fork(fork_block, f"f{self.forks}")
        self.end = max(fork_block + 1, min(MOST, self.end + grows))

    # followers: the last one holds the lease, others are zombies

    @rule()
    def a_follower_takes_over(self):
        advance(self.database, 61)
        self.followers += 1
        lease = self.follower.hold(f"follower {self.followers}")
        assert lease is not None
        self.holders = [*self.holders[-1:], lease]

    @rule(data=st.data(), at=st.sampled_from(["head", "gap"]))
    def a_follower_stores(self, data, at):
        lease = self.holders[-1] if at == "head" else data.draw(st.sampled_from(self.holders))
        last = self.end if at == "head" else data.draw(st.integers(1, self.end))
        first = max(0, last - data.draw(st.integers(1, 4)))
        self.expect_lost(lease, lambda: self.follower.put(lease, self.node, first, last))

    @rule(blocks=st.integers(5, 15))
    def a_follower_fills_gaps(self, blocks):
        self.follower.put(self.holders[-1], self.node, max(0, self.end - blocks), self.end)

    @rule(data=st.data())
    def a_follower_settles(self, data):
        lease = data.draw(st.sampled_from(self.holders))
        blocks = data.draw(st.sampled_from([1, 4, 20]))
        self.expect_lost(lease, lambda: self.follower.settle(lease, self.node, self.end, blocks))

    @rule(drop=st.booleans())
    def rows_are_dropped(self, drop):
        key = "logs" if drop else "blocks"
        self.follower.store.drop(self.holders[-1], self.streams[key].dataset_uuid, "because")

    def expect_lost(self, lease, call):
        """A holder that was fenced changes nothing, whatever it tries."""
        if lease == self.holders[-1]:
            call()
            return
        before = self.sql(_READ)
        try:
            call()
        except (LeaseLost, ForkConflict, Refused):
            assert self.sql(_READ) == before
        else:
            assert self.sql(_READ) == before

    # workers

    @rule(data=st.data(), key=st.sampled_from(["blocks", "logs", "calls"]))
    def a_worker_extracts(self, data, key):
        self.extract(data, key)

    def extract(self, data, key):
        start = data.draw(st.integers(0, max(0, (self.end - 1) // CHUNK))) * CHUNK
        span = BlockRange(start, start + CHUNK)
        lease = claim(self.database, self.streams[key], span)
        if lease is not None:
            self.work.append(Extracted(self.streams[key], span, self.node, lease))
        return lease is not None

    @rule(data=st.data(), key=st.sampled_from(["blocks", "logs", "calls"]))
    def a_worker_extracts_and_commits_at_once(self, data, key):
        if self.extract(data, key):
            self.commit(self.work.pop())

    @precondition(lambda self: self.work)
    @rule(data=st.data())
    def a_worker_commits(self, data):
        self.commit(self.work.pop(data.draw(st.integers(0, len(self.work) - 1))))

    def commit(self, done: Extracted) -> None:
        with suppress(ForkConflict, LeaseLost, Refused):
            commit_cold(self.database, done.stream, done.block_range, done.chain, done.lease)

    @rule(data=st.data())
    def a_version_is_invalidated(self, data):
        rows = self.sql("select dataset_version from trace.dataset_versions where visible order by dataset_version")
        if rows:
            row = rows[data.draw(st.integers(0, len(rows) - 1))]
            Forks(self.database).invalidate([row["dataset_version"]], "its objects are lost")

    @rule(column=st.sampled_from(["address", "data", "topic0"]))
    def the_logs_are_rebuilt(self, column):
        Jobs(self.database).apply(parse((REBUILT + COLD).replace("COLUMN", column)), Bounds(0, None), rebuild=True)
        self.streams = {stream.dataset_key: stream for stream in Jobs(self.database).streams()}

    # readers

    @precondition(lambda self: len(self.reading) < 3)
    @rule()
    def a_reader_opens_a_snapshot(self):
        connection = self.readers.enter_context(self.database.connection())
        connection.execute("set transaction isolation level repeatable read, read only")
        self.reading.append((connection, connection.execute(_READ).fetchall()))

    @precondition(lambda self: self.reading)
    @rule()
    def readers_still_see_the_same(self):
        for connection, seen in self.reading:
            assert connection.execute(_READ).fetchall() == seen
            assert hot_faults(connection) == {}
        self.readers.close()
        self.reading = []

    # what always holds

    @invariant()
    def everything_is_sound(self):
        assert_hot_sound(self.database)
        assert_changes_tell_hot_blocks(self.database)

    def teardown(self):
        self.readers.close()
        try:
            self.everything_is_filled()
        finally:
            self.database.close()

    def everything_is_filled(self):
        lease = self.holders[-1]
        self.follower.fill(lease, self.node, 0, self.end)
        assert_hot_sound(self.database)
        state = self.follower.store.state(99)
        for key in ("blocks", "logs"):
            dataset = self.streams[key].dataset_uuid
            hot = {n for each in state.blocks[dataset] for n in range(each.start, each.end)}
            cold = {n for each in state.committed[dataset] for n in range(each.start, each.end)}
            assert set(range(self.end)) <= hot | cold
        found = self.follower.store.hashes(99, 0, self.end - 1)
        assert found == {number: self.node.hash(number) for number in range(self.end)}


def test_hot_and_committed_blocks_stay_one_chain(registry):
    Hot.url = registry
    run_state_machine_as_test(
        Hot,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        ),
    )
