"""Hot rows in Postgres: each block is visible once, hot or committed, and everything lies on one linked chain."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from decimal import Decimal

import pytest

from tests.support.clock import advance
from tests.support.hot_chain import CHAIN, MadeUpChain, apply_followed, claim, commit_cold, followed, hashes_of
from tests.support.hot_soundness import assert_changes_tell_hot_blocks, assert_hot_sound
from tests.support.paused import paused_before
from trace_dagster.blocks import BlockRange
from trace_dagster.config.chain_sync import parse
from trace_dagster.errors import ForkConflict, LeaseLost, Refused
from trace_dagster.registry.changes import OLDEST, ChangeLog
from trace_dagster.registry.forks import Forks
from trace_dagster.registry.hot import MOST_STORED_BLOCKS, HotRows, HotStore
from trace_dagster.registry.hot_commit import NotOnHotChain
from trace_dagster.registry.jobs import Bounds, Jobs

pytestmark = pytest.mark.integration

A = MadeUpChain("a")


class Followed:
    """A chain's streams with a lease of their follower."""

    def __init__(self, database, **options):
        self.database = database
        self.streams = apply_followed(database, **options)
        self.store = HotStore(database)
        self.lease = followed(database)

    def put(self, chain, first, end, **options):
        blocks = chain.blocks(first, end, self.streams, options.pop("logs", 2))
        self.store.store(self.lease, hashes_of(self.streams), blocks, **options)

    def fork(self, fork_block, chain, first, end, **options):
        blocks = chain.blocks(first, end, self.streams)
        return self.store.replace(self.lease, hashes_of(self.streams), fork_block, blocks, **options)

    def cold(self, key, first, end, chain=A):
        return commit_cold(self.database, self.streams[key], BlockRange(first, end), chain)

    def hot(self, key="logs"):
        """Return the hot blocks of a dataset, by its coverage and by its rows."""
        blocks = self.store.state(CHAIN).blocks[self.streams[key].dataset_uuid]
        with self.database.connection() as connection:
            rows = connection.execute(
                f"select distinct block_number as n from hot.{key} where dataset_uuid = %s order by 1",
                [self.streams[key].dataset_uuid],
            ).fetchall()
        numbers = [row["n"] for row in rows]
        assert numbers == [number for each in blocks for number in range(each.start, each.end)]
        return numbers

    def sound(self):
        assert_hot_sound(self.database)
        assert_changes_tell_hot_blocks(self.database)


@pytest.fixture
def tip(database):
    return Followed(database)


def changes(database, kind=None):
    found, _ = ChangeLog(database).after(OLDEST)
    return [each for each in found if kind in (None, each.kind)]


# storing


def test_blocks_come_with_their_rows_in_all_types(tip, database):
    tip.put(A, 20, 23)
    (block,) = A.blocks(21, 22, {"transactions": tip.streams["transactions"]})
    stored = block.rows[tip.streams["transactions"].dataset_uuid]
    with database.connection() as connection:
        rows = connection.execute(
            "select * from hot.transactions where block_number = 21 order by transaction_index"
        ).fetchall()
    for row, expected in zip(rows, stored.rows, strict=True):
        assert {name: row[name] for name in stored.columns} == dict(zip(stored.columns, expected, strict=True))
        assert isinstance(row["gas_price"], Decimal)
        assert row["n_rlp_bytes"] is None  # a column that the stream does not store
    state = tip.store.state(CHAIN)
    assert [(each.first.number, each.last.number) for each in state.segments] == [(20, 22)]
    assert (state.head.hash, state.head.parent_hash) == (A.hash(22), A.hash(21))
    assert state.config_hashes == hashes_of(tip.streams)
    assert tip.hot("blocks") == [20, 21, 22]
    tip.sound()


def test_so_many_blocks_that_their_locks_would_leave_none_for_others_are_refused(tip):
    with pytest.raises(ValueError, match="501 blocks are too many"):
        tip.put(A, 0, MOST_STORED_BLOCKS + 1, logs=0)
    assert tip.store.state(CHAIN).segments == ()
    tip.put(A, 0, MOST_STORED_BLOCKS, logs=0)
    assert tip.hot("blocks") == list(range(MOST_STORED_BLOCKS))


def test_the_change_log_tells_each_block_that_came_with_its_hash(tip, database):
    tip.put(A, 20, 21)
    tip.put(A, 18, 20)
    mine = [each for each in changes(database) if each.dataset_key == "logs"]
    assert [(each.kind, each.block_range, each.block_hash) for each in mine] == [
        ("hot", BlockRange(20, 21), A.hash(20)),
        ("hot", BlockRange(18, 20), A.hash(19)),
    ]


def test_a_gap_below_the_head_is_filled_and_its_ends_must_link(tip):
    tip.put(A, 10, 12)
    tip.put(A, 20, 22)
    assert [each.first.number for each in tip.store.state(CHAIN).segments] == [10, 20]
    other = A.fork(12, "b")
    with pytest.raises(ForkConflict) as above:
        tip.put(other, 15, 20)  # its last block is not the parent of block 20
    assert (above.value.block, above.value.committed, above.value.found) == (19, A.hash(19), other.hash(19))
    with pytest.raises(ForkConflict) as below:
        tip.put(A.fork(5, "c"), 12, 15)
    assert below.value.block == 11
    tip.put(A, 12, 20)
    assert [(each.first.number, each.last.number) for each in tip.store.state(CHAIN).segments] == [(10, 21)]
    tip.sound()


def test_the_same_number_with_another_hash_is_a_fork_and_the_same_block_again_is_none(tip, database):
    tip.put(A, 10, 13)
    before = len(changes(database))
    tip.put(A, 11, 13)
    assert len(changes(database)) == before
    with pytest.raises(ForkConflict) as found:
        tip.put(A.fork(12, "b"), 12, 14)
    assert (found.value.block, found.value.versions) == (12, ())
    tip.sound()


def test_a_stream_that_comes_later_gets_the_rows_of_stored_blocks(tip, database):
    logs = {"logs": tip.streams["logs"]}
    tip.store.store(tip.lease, hashes_of(logs), A.blocks(10, 15, logs))
    assert tip.hot("logs") == [10, 11, 12, 13, 14]
    tip.put(A, 12, 16)
    assert (tip.hot("logs"), tip.hot("transactions")) == ([10, 11, 12, 13, 14, 15], [12, 13, 14, 15])
    tip.sound()


def test_blocks_without_any_row_are_hot_as_well(tip):
    tip.put(A, 10, 13, logs=0)
    blocks = tip.store.state(CHAIN).blocks
    assert {tuple(each) for each in blocks.values()} == {(BlockRange(10, 13),)}


def test_a_branch_that_does_not_link_to_the_block_before_the_fork_is_refused(tip):
    """The chain may have forked again, lower, after the fork was found and before its branch was fetched."""
    tip.put(A, 10, 21)
    with pytest.raises(ValueError, match="does not link"):
        tip.fork(18, A.fork(17, "b"), 18, 21, parent_hash=A.hash(17))
    assert tip.hot() == list(range(10, 21))
    tip.sound()


def test_rows_that_are_not_of_their_block_are_refused(tip):
    (block,) = A.blocks(10, 11, tip.streams)
    dataset = tip.streams["logs"].dataset_uuid
    (other,) = A.blocks(11, 12, tip.streams)
    wrong = replace(block, rows={**block.rows, dataset: other.rows[dataset]})
    with pytest.raises(ValueError, match="has another block_number"):
        tip.store.store(tip.lease, hashes_of(tip.streams), [wrong])
    unknown = replace(block, rows={dataset: HotRows(("colour",), [])})
    with pytest.raises(ValueError, match="colour"):
        tip.store.store(tip.lease, hashes_of(tip.streams), [unknown])
    assert tip.store.state(CHAIN).segments == ()
    with pytest.raises(ValueError, match="not the child"):
        tip.store.store(tip.lease, {}, [block, A.block(12, [])])


def test_at_most_so_many_blocks_are_hot(tip):
    tip.put(A, 0, 10, hot_max_blocks=10)
    with pytest.raises(Refused, match=r"stream blocks|stream logs|stream transactions.*11 hot blocks"):
        tip.put(A, 10, 11, hot_max_blocks=10)
    assert tip.hot() == list(range(10))
    for key in tip.streams:
        tip.cold(key, 0, 10)
    tip.put(A, 10, 11, hot_max_blocks=10)
    tip.sound()


def test_old_hashes_go_but_not_those_of_hot_rows(tip, database):
    tip.put(A, 0, 30)
    tip.cold("blocks", 0, 10)
    tip.cold("transactions", 0, 20)
    tip.put(A, 30, 31, hot_max_blocks=100)
    assert len(tip.store.hashes(CHAIN, 0, 100)) == 31
    with database.connection() as connection:  # so that the limit is far below the head
        connection.execute("update hot.streams set blocks = blocks * '{[15,100)}'")
        connection.execute(
            "delete from hot.logs where block_number < 15; delete from hot.blocks where block_number < 15"
        )
    tip.put(A, 31, 32, hot_max_blocks=20)
    assert min(tip.store.hashes(CHAIN, 0, 100)) == 11  # 31 - 20
    tip.put(A, 32, 40, hot_max_blocks=25)
    assert min(tip.store.hashes(CHAIN, 0, 100)) == 14
    tip.put(A, 40, 41, hot_max_blocks=26)
    assert min(tip.store.hashes(CHAIN, 0, 100)) == 14
    tip.put(A, 41, 42, hot_max_blocks=27)
    assert min(tip.store.hashes(CHAIN, 0, 100)) == 14
    tip.cold("logs", 10, 20)
    tip.put(A, 42, 43, hot_max_blocks=28)
    assert min(tip.store.hashes(CHAIN, 0, 100)) == 14
    assert_hot_sound(database)


def test_a_paused_stream_keeps_the_hashes_of_its_own_rows_only(tip, database):
    tip.put(A, 0, 10)
    running = {"logs": tip.streams["logs"]}
    for first, end in ((10, 60), (60, 61)):
        tip.store.store(tip.lease, hashes_of(running), A.blocks(first, end, running), hot_max_blocks=100)
    tip.cold("logs", 0, 10)
    for first in range(10, 40, 10):
        tip.cold("logs", first, first + 10)
    tip.store.store(tip.lease, hashes_of(running), A.blocks(61, 62, running), hot_max_blocks=22)
    assert list(tip.store.hashes(CHAIN, 0, 100)) == [*range(10), *range(39, 62)]
    assert tip.hot("blocks") == list(range(10))
    assert_hot_sound(database)


# who may write


def test_one_holder_at_a_time_and_a_new_one_fences_the_old(tip, database):
    assert tip.store.hold(CHAIN, "other", 60) is None
    tip.store.renew(tip.lease, 60)
    advance(database, 61)
    tip.put(A, 10, 11)  # nobody took over: what it proved is still right
    other = tip.store.hold(CHAIN, "other", 60)
    assert other.token > tip.lease.token
    forbidden = [
        lambda: tip.put(A, 11, 12),
        lambda: tip.fork(10, A.fork(10, "b"), 10, 12),
        lambda: tip.store.renew(tip.lease, 60),
        lambda: tip.store.observe(tip.lease, {"safe": (1, None)}),
        lambda: tip.store.drop(tip.lease, tip.streams["logs"].dataset_uuid, "because"),
    ]
    for call in forbidden:
        with pytest.raises(LeaseLost):
            call()
    for quiet in (lambda: tip.store.stop(tip.lease, "because"), lambda: tip.store.release(tip.lease)):
        quiet()
    assert tip.store.hold(CHAIN, "third", 60) is None
    assert tip.hot() == [10]
    tip.store.release(other)
    with pytest.raises(LeaseLost):
        tip.store.store(other, hashes_of(tip.streams), A.blocks(11, 12, tip.streams))
    assert tip.store.hold(CHAIN, "third", 60).token > other.token


def test_chains_have_followers_of_their_own(tip):
    assert tip.store.hold(100, "test", 60) is not None
    assert tip.store.state(100).segments == ()


# cold ranges


def test_a_commit_takes_the_hot_rows_of_its_range_and_no_others(tip, database):
    tip.put(A, 5, 25)
    tip.cold("logs", 10, 20)
    assert tip.hot("logs") == [*range(5, 10), *range(20, 25)]
    assert tip.hot("transactions") == list(range(5, 25))
    told = [(each.kind, each.block_range, each.block_hash) for each in changes(database)[-2:]]
    assert told == [
        ("pruned", BlockRange(10, 20), A.hash(19)),
        ("committed", BlockRange(10, 20), A.hash(19)),
    ]
    tip.sound()


def test_blocks_that_are_committed_get_no_hot_rows(tip):
    tip.cold("logs", 10, 20)
    tip.put(A, 15, 25)
    assert (tip.hot("logs"), tip.hot("blocks")) == (list(range(20, 25)), list(range(15, 25)))
    tip.sound()


def test_a_range_on_another_fork_is_not_committed_and_the_follower_looks_again(tip, database):
    tip.put(A, 5, 25)
    other = A.fork(12, "b")
    for key in ("logs", "blocks"):
        with pytest.raises(ForkConflict, match="the follower stored") as found:
            tip.cold(key, 10, 20, other)
        assert found.value.versions == ()
    assert tip.store.state(CHAIN).recheck_from == 19
    with pytest.raises(ForkConflict):
        tip.cold("transactions", 0, 10, A.fork(3, "c"))  # its end is the parent of a stored block
    assert tip.store.state(CHAIN).recheck_from == 9
    assert tip.hot() == list(range(5, 25))
    tip.store.rechecked(tip.lease)
    assert tip.store.state(CHAIN).recheck_from is None
    tip.cold("logs", 10, 20)
    tip.sound()


def test_a_refused_range_knows_whether_the_follower_has_looked_since(tip, database):
    tip.put(A, 5, 25)

    def is_unanswered():
        with pytest.raises(NotOnHotChain) as found:
            tip.cold("logs", 10, 20, A.fork(12, "b"))
        return found.value.is_unanswered

    assert [is_unanswered(), is_unanswered()] == [False, True]
    tip.store.rechecked(tip.lease)
    assert is_unanswered() is False
    tip.store.rechecked(tip.lease)
    advance(database, 61)  # its lease has lapsed
    assert is_unanswered() is True
    tip.lease = followed(database)
    tip.store.rechecked(tip.lease)
    tip.store.release(tip.lease)
    assert is_unanswered() is True


def test_a_range_below_or_above_the_stored_blocks_must_link_to_them(tip):
    tip.put(A, 20, 30)
    with pytest.raises(ForkConflict) as below:
        tip.cold("logs", 10, 20, A.fork(15, "b"))
    assert below.value.block == 19
    with pytest.raises(ForkConflict) as above:
        tip.cold("logs", 30, 40, A.fork(25, "b"))
    assert above.value.block == 29
    tip.cold("logs", 10, 20)
    tip.cold("logs", 30, 40)
    tip.sound()


def test_new_blocks_must_link_to_committed_ranges(tip):
    version = tip.cold("logs", 10, 20, A.fork(12, "b"))
    with pytest.raises(ForkConflict) as found:
        tip.put(A, 20, 22)
    assert (found.value.block, found.value.versions) == (19, (version,))
    with pytest.raises(ForkConflict):
        tip.put(A, 15, 22)
    tip.put(A, 21, 22)  # whose parent is not known
    tip.sound()


def test_a_commit_that_fails_leaves_the_hot_rows(tip, database):
    tip.put(A, 10, 20)
    lease = claim(database, tip.streams["logs"], BlockRange(10, 20))
    advance(database, 61)
    assert claim(database, tip.streams["logs"], BlockRange(10, 20)) is not None
    with pytest.raises(LeaseLost):
        commit_cold(database, tip.streams["logs"], BlockRange(10, 20), A, lease)
    assert tip.hot() == list(range(10, 20))
    tip.sound()


def test_a_refreshed_range_stays_committed(tip):
    tip.put(A, 5, 25)
    tip.cold("logs", 10, 20)
    tip.cold("logs", 10, 20)
    assert tip.hot() == [*range(5, 10), *range(20, 25)]
    tip.sound()


def test_an_invalidated_range_may_become_hot_again(tip, database):
    version = tip.cold("logs", 10, 20)
    Forks(database).invalidate([version], "its objects are lost")
    tip.put(A, 15, 25)
    assert tip.hot() == list(range(15, 25))
    tip.cold("logs", 10, 20)
    assert tip.hot() == list(range(20, 25))
    tip.sound()


def test_rows_that_an_earlier_version_committed_beside_hot_ones_go_with_the_next_block(tip, database):
    tip.put(A, 10, 20)
    with database.connection() as connection:
        connection.execute("create table kept as select * from hot.streams")
        connection.execute("create table kept_rows as select * from hot.logs")
    tip.cold("logs", 10, 20)
    with database.connection() as connection:  # as if the commit had not known of hot rows
        connection.execute(
            "update hot.streams h set blocks = k.blocks from kept k where k.dataset_uuid = h.dataset_uuid"
        )
        connection.execute("insert into hot.logs select * from kept_rows")
    tip.put(A, 20, 21)
    assert tip.hot() == [20]
    assert_hot_sound(database)


# forks


def test_a_fork_replaces_blocks_in_one_transaction(tip, database):
    tip.put(A, 10, 20)
    other = A.fork(16, "b")
    found = tip.fork(16, other, 16, 22)
    assert (found.fork_block, found.depth, found.old_head, found.old_hash) == (16, 4, 19, A.hash(19))
    assert (found.new_head, found.new_hash, found.versions) == (21, other.hash(21), 0)
    assert tip.hot() == list(range(10, 22))
    mine = [each for each in changes(database) if each.dataset_key == "logs"][-2:]
    assert [(each.kind, each.block_range, each.block_hash) for each in mine] == [
        ("invalidated", BlockRange(16, 20), A.hash(19)),
        ("hot", BlockRange(16, 22), other.hash(21)),
    ]
    assert "reorganised from block 16" in mine[0].reason
    tip.sound()


def test_a_branch_that_is_shorter_lowers_the_head(tip, database):
    tip.put(A, 10, 20)
    tip.store.observe(tip.lease, {"safe": (18, None), "finalized": (12, None)})
    found = tip.fork(16, A.fork(16, "b"), 16, 17)
    assert (found.new_head, found.old_head, tip.hot()) == (16, 19, list(range(10, 17)))
    with database.connection() as connection:
        heads = connection.execute("select tag, block_number as n, block_hash from hot.heads order by tag").fetchall()
    assert [(each["tag"], each["n"]) for each in heads] == [("finalized", 12), ("latest", 16), ("safe", 18)]
    assert heads[2]["block_hash"] is None  # block 18 of the new chain is not known
    tip.sound()


def test_a_fork_that_is_none_changes_nothing(tip, database):
    tip.put(A, 10, 20)
    other = A.fork(16, "b")
    tip.fork(16, other, 16, 22)
    before = changes(database)
    with pytest.raises(Refused, match="has this block already"):
        tip.fork(16, other, 16, 22)  # the same head was announced twice
    with pytest.raises(ForkConflict) as found:
        tip.fork(18, A.fork(18, "c"), 18, 22)  # found before the other fork was resolved
    assert (found.value.block, found.value.committed, found.value.found) == (17, other.hash(17), A.hash(17))
    with pytest.raises(Refused, match="nothing is stored"):
        tip.fork(30, A, 31, 32, parent_hash=A.hash(29))
    assert changes(database) == before
    tip.sound()


def test_a_fork_covers_streams_that_are_not_followed_any_more(tip):
    tip.put(A, 10, 20)
    logs = {"logs": tip.streams["logs"]}
    other = A.fork(15, "b")
    tip.store.replace(tip.lease, hashes_of(logs), 15, other.blocks(15, 21, logs))
    assert (tip.hot("logs"), tip.hot("blocks")) == (list(range(10, 21)), list(range(10, 15)))
    tip.sound()


def test_a_fork_that_is_deeper_than_the_hot_rows_hides_the_versions_of_every_dataset(database):
    tip = Followed(
        database,
        streams="blocks: {cryo_dataset_name: blocks}\n  logs: {cryo_dataset_name: logs}\n"
        "  calls: {cryo_dataset_name: geth_calls}\n  other: {cryo_dataset_name: traces}",
    )
    calls = {key: tip.streams.pop(key) for key in ("calls", "other")}
    kept = [tip.cold(key, 0, 10) for key in ("blocks", "logs")]
    lost = [tip.cold(key, 10, 20) for key in ("blocks", "logs")]
    for stream in calls.values():
        kept.append(commit_cold(database, stream, BlockRange(0, 10), A))
        lost.append(commit_cold(database, stream, BlockRange(10, 20), A))
        lost.append(commit_cold(database, stream, BlockRange(20, 30), A))
    tip.put(A, 20, 32)
    other = A.fork(17, "b")
    found = tip.fork(17, other, 20, 33, parent_hash=A.hash(16))
    assert (found.versions, found.depth, found.old_head, found.new_head) == (6, 15, 31, 32)
    with database.connection() as connection:
        rows = connection.execute("select dataset_version, visible from trace.dataset_versions").fetchall()
        tasks = connection.execute("select lower(block_range) as s, state, error from trace.tasks").fetchall()
        woken = connection.execute("select count(*) as n from trace.outbox where kind = 'task_wakeup'").fetchone()
    assert {row["dataset_version"] for row in rows if row["visible"]} == set(kept)
    assert {row["dataset_version"] for row in rows if not row["visible"]} == set(lost)
    assert {(row["state"], row["s"] >= 10) for row in tasks} == {("committed", False), ("queued", True)}
    assert woken["n"] == 6
    told = [each for each in changes(database, "invalidated") if each.dataset_version]
    assert {each.dataset_version for each in told} == set(lost)
    assert {each.block_hash for each in told} == {A.hash(19), A.hash(29)}
    assert tip.hot() == list(range(20, 33))
    for key in ("logs", "blocks"):
        tip.cold(key, 10, 20, other)
    for stream in calls.values():
        commit_cold(database, stream, BlockRange(10, 20), other)
        with pytest.raises(ForkConflict):
            commit_cold(database, stream, BlockRange(20, 30), A)
    tip.sound()


def test_stored_blocks_above_the_branch_stay_if_they_link_to_it(tip):
    """After a downtime the newest blocks are stored first: the fork is found when the gap below them is filled."""
    tip.put(A, 10, 20)
    other = A.fork(16, "b")
    tip.put(other, 25, 30)
    with pytest.raises(ForkConflict):
        tip.put(other, 20, 25)
    found = tip.fork(16, other, 16, 25)
    assert (found.depth, found.old_head, found.new_head) == (4, 19, 29)
    assert tip.hot() == list(range(10, 30))
    tip.sound()


def test_committed_ranges_of_a_dead_fork_below_the_hot_rows_leave_and_the_hot_rows_stay(tip):
    tip.cold("logs", 0, 10)
    tip.cold("logs", 10, 20)
    other = A.fork(15, "b")
    tip.put(other, 21, 30)
    with pytest.raises(ForkConflict) as found:
        tip.put(other, 20, 21)
    assert found.value.block == 19
    assert tip.store.boundaries(CHAIN, 20, 5) == [(19, A.hash(19)), (9, A.hash(9))]
    assert tip.store.boundaries(CHAIN, 19, 5) == [(9, A.hash(9))]
    reorg = tip.fork(15, other, 15, 15, parent_hash=A.hash(14), keep_from=21)
    assert (reorg.versions, reorg.old_head, reorg.old_hash, reorg.new_head) == (1, 19, A.hash(19), 29)
    tip.put(other, 15, 21)
    assert tip.hot() == list(range(15, 30))
    tip.cold("logs", 10, 20, other)
    assert tip.hot() == list(range(20, 30))
    tip.sound()


# configuration


def test_rows_of_other_columns_go_when_the_stream_is_rebuilt(tip, database):
    tip.put(A, 10, 15)
    text = (
        "kind: chain_sync\nname: tip\nchain_id: 99\nmode: {kind: follow_head, from_block: 0}\n"
        "defaults: {rpc_pool: none, chunk_size: 10}\nstreams:\n  blocks: {cryo_dataset_name: blocks}\n"
        "  transactions: {cryo_dataset_name: transactions}\n  logs: {cryo_dataset_name: logs, columns: [address]}\n"
    )
    Jobs(database).apply(parse(text), Bounds(0, None), rebuild=True)
    tip.put(A, 15, 16)  # of a follower that does not know it yet
    assert (tip.hot("logs"), tip.hot("blocks")) == (list(range(10, 15)), list(range(10, 16)))
    tip.streams = {stream.dataset_key: stream for stream in Jobs(database).streams()}
    tip.put(A, 14, 17)
    assert tip.hot("logs") == [14, 15, 16]
    (told,) = changes(database, "pruned")
    assert (told.block_range, told.reason) == (BlockRange(10, 15), "its stream has other columns now")
    with database.connection() as connection:
        row = connection.execute("select * from hot.logs limit 1").fetchone()
    assert row["address"] is not None
    assert row["data"] is None
    assert row["block_hash"] == A.hash(row["block_number"])
    tip.sound()


def test_a_dropped_dataset_has_no_rows_left(tip, database):
    tip.put(A, 10, 15)
    tip.store.drop(tip.lease, tip.streams["logs"].dataset_uuid, "its stream is disabled")
    assert (tip.hot("logs"), tip.hot("blocks")) == ([], list(range(10, 15)))
    (told,) = changes(database, "pruned")
    assert (told.block_range, told.reason) == (BlockRange(10, 15), "its stream is disabled")
    tip.sound()


# at the same time


def test_a_commit_that_is_under_way_when_its_stream_gets_its_first_hot_rows(tip):
    """The commit looked for hot rows and found none: the first rows wait for its end, and leave out its range."""
    with paused_before("insert_version") as pause:
        commit = threading.Thread(target=tip.cold, args=("logs", 10, 20))
        commit.start()
        pause.reached()
        store = threading.Thread(target=tip.put, args=(A, 15, 25))
        store.start()
        store.join(0.3)
        assert store.is_alive()
        pause.go_on()
        commit.join(10)
        store.join(10)
    assert (tip.hot("logs"), tip.hot("blocks")) == (list(range(20, 25)), list(range(15, 25)))
    tip.sound()


def test_a_commit_waits_for_a_fork_and_is_then_of_the_old_chain(tip):
    tip.put(A, 10, 20)
    with paused_before("insert_reorg") as pause:
        fork = threading.Thread(target=tip.fork, args=(15, A.fork(15, "b"), 15, 21))
        fork.start()
        pause.reached()
        with ThreadPoolExecutor() as pool:
            commit = pool.submit(tip.cold, "logs", 10, 20)
            assert wait([commit], 0.3).not_done
            pause.go_on()
            fork.join(10)
            assert isinstance(commit.exception(10), ForkConflict)
    assert tip.hot("logs") == list(range(10, 21))
    tip.sound()


def test_a_fork_waits_for_a_commit_and_hides_what_it_made_visible(tip):
    tip.put(A, 10, 20)
    with paused_before("insert_version") as pause, ThreadPoolExecutor() as pool:
        commit = pool.submit(tip.cold, "logs", 10, 20)
        pause.reached()
        fork = pool.submit(tip.fork, 15, A.fork(15, "b"), 15, 21)
        assert wait([fork], 0.3).not_done
        pause.go_on()
        commit.result(10)
        assert fork.result(10).versions == 1
    assert (tip.hot("logs"), tip.hot("blocks")) == (list(range(15, 21)), list(range(10, 21)))
    tip.sound()


def test_a_block_and_a_range_that_meet_do_not_pass_each_other(tip, database):
    """Dataset geth_calls has no hot rows: only the boundary tells that the block and the range do not link."""
    calls = apply_followed(database, "calls: {cryo_dataset_name: geth_calls}", name="calls")["calls"]
    other = A.fork(15, "b")
    with paused_before("insert_version") as pause, ThreadPoolExecutor() as pool:
        commit = pool.submit(commit_cold, database, calls, BlockRange(10, 20), other)
        pause.reached()
        store = pool.submit(tip.put, A, 20, 21)
        assert wait([store], 0.3).not_done
        pause.go_on()
        commit.result(10)
        assert isinstance(store.exception(10), ForkConflict)
    tip.sound()


def test_the_schema_keeps_the_order_of_columns_that_copy_needs(tip, database):
    with database.transaction() as session:
        for source in ("blocks", "transactions", "logs"):
            columns = tip.store._tables.columns(session, source)
            stored = tip.streams[source].dataset.storable_columns
            assert list(columns) == ["dataset_uuid", *stored]
