"""A crash before each statement and around each commit of the transactions that move hot blocks.

The fault is an error of the connection, or the end of its server process: nothing of the transaction is left. After a
commit whose answer was lost everything of it is there. Then another follower goes on, and no block is lost or double.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import psycopg
import pytest

from tests.support.clock import advance
from tests.support.hot_chain import CHAIN, MadeUpChain, apply_followed, commit_cold, hashes_of
from tests.support.hot_follower import ModelFollower
from tests.support.hot_soundness import assert_changes_tell_hot_blocks, assert_hot_sound
from tests.support.tripwire import Tripwire
from trace_dagster.blocks import BlockRange
from trace_dagster.errors import TraceError
from trace_dagster.registry.connection import Database, Session

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

A = MadeUpChain("a")
B = A.fork(7, "b")
STREAMS = "blocks: {cryo_dataset_name: blocks}\n  logs: {cryo_dataset_name: logs}"
_SEEN = (
    "select 'logs' as t, block_number as n, block_hash as h from hot.logs"
    " union all select 'blocks', block_number, block_hash from hot.blocks"
    " union all select v.dataset_uuid::text, lower(v.block_range), v.last_block_hash from trace.dataset_versions v"
    " where v.visible union all select 'chain', block_number, block_hash from hot.chain order by 1, 2"
)


class Case:
    """Dataset blocks is committed up to block 9, both datasets are hot from 5 to 19, and a follower holds the lease."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        with self.database.connection() as connection:
            connection.execute(
                "truncate trace.jobs, trace.datasets, trace.streams, trace.tasks, trace.attempts, trace.outbox,"
                " trace.dataset_versions, trace.files, trace.version_files, trace.changes, hot.followers, hot.chain,"
                " hot.heads, hot.reorgs, hot.blocks, hot.transactions, hot.logs cascade"
            )
        self.streams = apply_followed(self.database, STREAMS)
        self.follower = ModelFollower(self.database, self.streams)
        self.lease = self.follower.hold("first")
        commit_cold(self.database, self.streams["blocks"], BlockRange(0, 10), A)
        self.follower.put(self.lease, A, 5, 20)

    def store(self) -> None:
        self.follower.store.store(self.lease, hashes_of(self.streams), A.blocks(20, 22, self.streams))

    def commit(self) -> None:
        commit_cold(self.database, self.streams["logs"], BlockRange(0, 10), A)

    def fork(self) -> None:
        branch = B.blocks(7, 22, self.streams)
        self.follower.store.replace(self.lease, hashes_of(self.streams), 7, branch)

    def seen(self) -> list[dict]:
        with self.database.connection() as connection:
            return connection.execute(_SEEN).fetchall()

    def go_on(self, node: MadeUpChain) -> None:
        """Let another follower take over and store all of the node's chain."""
        advance(self.database, 61)
        lease = self.follower.hold("second")
        self.follower.settle(lease, node, 22)
        self.follower.put(lease, node, 0, 22)
        assert_hot_sound(self.database)
        assert_changes_tell_hot_blocks(self.database)
        state = self.follower.store.state(CHAIN)
        for stream in self.streams.values():
            hot, cold = state.blocks[stream.dataset_uuid], state.committed[stream.dataset_uuid]
            assert {n for each in (*hot, *cold) for n in range(each.start, each.end)} == set(range(22))
        assert self.follower.store.hashes(CHAIN, 0, 30) == {n: node.hash(n) for n in range(22)}


class EndedBackend(Tripwire):
    """Ends the server process of the connection instead of raising an error."""

    def _sql(self, name):
        real = getattr(Session, name)

        def call(session, statement, *args, **values):
            try:
                self.point(f"before sql {statement}", psycopg.OperationalError)
            except psycopg.OperationalError:
                _end_backend(session)
            return real(session, statement, *args, **values)

        return call


def _end_backend(session: Session) -> None:
    info = session.connection.info
    with psycopg.connect(info.dsn, password=info.password, autocommit=True) as other:
        other.execute("select pg_terminate_backend(%s, 5000)", [info.backend_pid])


ACTS: dict[str, tuple[Callable[[Case], None], MadeUpChain, set[str]]] = {
    "store": (
        Case.store,
        A,
        {"fence_follower", "lock_block_borders", "insert_chain", "add_hot_blocks", "insert_change"},
    ),
    "commit": (
        Case.commit,
        A,
        {"share_chain", "chain_at_borders", "delete_hot_logs", "insert_version", "insert_change"},
    ),
    "fork": (Case.fork, B, {"tasks_above_fork", "delete_chain", "hide_above_fork", "insert_reorg", "rehash_heads"}),
}


@pytest.mark.parametrize("kind", [Tripwire, EndedBackend])
@pytest.mark.parametrize("name", ACTS)
def test_a_crash_at_any_point_loses_and_doubles_nothing(registry, name, kind):
    act, node, expected = ACTS[name]
    points = _points(registry, act)
    assert {f"before sql {each}" for each in expected} <= set(points)
    for at in range(len(points)):
        case = Case(registry)
        try:
            before, wire = case.seen(), kind(at)
            with wire.strung(), suppress(TraceError):
                act(case)
            assert len(wire.passed) > at
            assert_hot_sound(case.database)
            took_effect = "after commit" in wire.passed[: at + 1] and name != "commit"
            if name != "commit":  # which begins with transactions of its own
                assert (case.seen() != before) == took_effect, points[at]
            case.go_on(node)
        finally:
            case.database.close()


def _points(registry: str, act: Callable[[Case], None]) -> list[str]:
    case, wire = Case(registry), Tripwire()
    try:
        with wire.strung():
            act(case)
    finally:
        case.database.close()
    return wire.passed
