"""Followers, workers, invalidations and readers at the same time, over the real SQL: none waits in a circle, readers
see no block twice and one linked chain, and in the end nothing is lost.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.clock import advance
from tests.support.hot_chain import CHAIN, MadeUpChain, apply_followed, claim, commit_cold
from tests.support.hot_follower import ModelFollower
from tests.support.hot_soundness import assert_changes_tell_hot_blocks, assert_hot_sound, hot_faults
from trace_dagster.blocks import BlockRange
from trace_dagster.errors import ForkConflict, LeaseLost, OutcomeUnknown, Refused, Unavailable
from trace_dagster.registry.connection import Database
from trace_dagster.registry.forks import Forks

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

SECONDS = 6.0
CHUNK = 10
STREAMS = (
    "blocks: {cryo_dataset_name: blocks}\n  logs: {cryo_dataset_name: logs}\n  calls: {cryo_dataset_name: geth_calls}"
)
REFUSALS = (ForkConflict, LeaseLost, Refused, Unavailable, OutcomeUnknown)
"""How the registry refuses a write: its caller looks again, or tries again."""


class Node:
    """A node whose chain grows and is reorganised. Thread-safe."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._lock = threading.Lock()
        self._state = (MadeUpChain("a"), 12)
        self._forks = 0

    def now(self) -> tuple[MadeUpChain, int]:
        """Return the chain, and the end of its blocks."""
        return self._state

    def grow(self) -> None:
        """Mine a block; one time in four, on another fork."""
        with self._lock:
            chain, end = self._state
            if self._chance.random() < 0.25:
                self._forks += 1
                chain = chain.fork(max(1, end - self._chance.randint(1, 12)), f"f{self._forks}")
            self._state = (chain, end + 1)


class Together:
    """What runs at the same time, each in a thread with a database connection of its own."""

    def __init__(self, url: str, seed: int) -> None:
        self.url = url
        self.database = Database(url)
        self.streams = apply_followed(self.database, STREAMS, chunk=CHUNK)
        self.node = Node(random.Random(seed))
        self.seed = seed
        self.done: Counter[str] = Counter()
        self._ends_at = time.monotonic() + SECONDS

    def follower(self, database: Database) -> ModelFollower:
        return ModelFollower(database, {key: self.streams[key] for key in ("blocks", "logs")})

    def repeat(self, name: str, act: Callable[[Database, random.Random], None]) -> None:
        database, chance = Database(self.url), random.Random(f"{name}{self.seed}")
        try:
            while time.monotonic() < self._ends_at:
                try:
                    act(database, chance)
                    self.done[name] += 1
                except REFUSALS as error:
                    self.done[f"{name}: {type(error).__name__}"] += 1
        finally:
            database.close()

    def follow(self, database: Database, chance: random.Random) -> None:
        follower = self.follower(database)
        lease = follower.hold("follower")
        if lease is None:
            with database.connection() as connection:  # the holder seems dead, but it goes on as a zombie
                connection.execute("update hot.followers set expires_at = now() - interval '1 second'")
            return
        for _ in range(chance.randint(3, 12)):
            self.node.grow()
            chain, end = self.node.now()
            first = end - chance.choice([1, 1, 1, 4])
            follower.put(lease, chain, max(0, first), end)

    def commit(self, database: Database, chance: random.Random) -> None:
        chain, end = self.node.now()
        start = max(0, end // CHUNK - chance.randint(1, 4)) * CHUNK
        span = BlockRange(start, start + CHUNK)
        stream = self.streams[chance.choice(["blocks", "logs", "calls"])]
        lease = claim(database, stream, span)
        if lease is not None:
            commit_cold(database, stream, span, chain, lease)

    def invalidate(self, database: Database, chance: random.Random) -> None:
        with database.connection() as connection:
            rows = connection.execute("select dataset_version from trace.dataset_versions where visible").fetchall()
        if rows:
            Forks(database).invalidate([chance.choice(rows)["dataset_version"]], "its objects are lost")
        time.sleep(0.3)

    def read(self, database: Database, chance: random.Random) -> None:
        with database.connection() as connection:
            connection.execute("set transaction isolation level repeatable read, read only")
            assert hot_faults(connection) == {}
        time.sleep(chance.random() / 20)


def _deadlocks(database: Database) -> int:
    with database.connection() as connection:
        connection.execute("select pg_stat_force_next_flush()")
    with database.connection() as connection:
        row = connection.execute("select deadlocks from pg_stat_database where datname = current_database()").fetchone()
    return row["deadlocks"]


@pytest.mark.parametrize("seed", [1, 2])
def test_all_at_the_same_time(postgres_url, seed):
    together = Together(postgres_url, seed)
    acts = [("follow", together.follow)] * 2 + [("commit", together.commit)] * 2
    acts += [("invalidate", together.invalidate), ("read", together.read)]
    with ThreadPoolExecutor(len(acts)) as pool:
        for each in [pool.submit(together.repeat, name, act) for name, act in acts]:
            each.result()
    assert {"follow", "commit", "invalidate", "read"} <= set(together.done), together.done
    assert _deadlocks(together.database) == 0, together.done
    _finish(together)


def _finish(together: Together) -> None:
    """Let a last follower store all of the chain, and check that it is there once."""
    database = together.database
    advance(database, 61)
    follower = together.follower(database)
    lease = follower.hold("last")
    chain, end = together.node.now()
    follower.settle(lease, chain, end)
    follower.put(lease, chain, 0, end)
    assert_hot_sound(database)
    assert_changes_tell_hot_blocks(database)
    state = follower.store.state(CHAIN)
    for stream in follower.streams.values():
        hot, cold = state.blocks[stream.dataset_uuid], state.committed[stream.dataset_uuid]
        assert {n for each in (*hot, *cold) for n in range(each.start, each.end)} >= set(range(end))
    assert follower.store.hashes(CHAIN, 0, end - 1) == {n: chain.hash(n) for n in range(end)}
    database.close()
