"""What an answer is about: cuts by block, time, common block and finality, and the header that says so.

Each test has a snapshot with committed and hot blocks. A settled cut never changes with the next block.
"""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pyarrow as pa
import pytest

from tests.support.committed import FULL, commit_rows
from tests.support.registry import apply, ingesting
from trace_dagster.blocks import BlockRange
from trace_dagster.errors import InvalidInput, Unavailable
from trace_dagster.identity import DEFAULT_ORG
from trace_dagster.ingest.commit import CommitTarget, RangeRows
from trace_dagster.registry.as_of import AsOf, cuts
from trace_dagster.registry.jobs import Jobs
from trace_dagster.registry.snapshot_header import MOST_GAPS, Cut, chains_with_heads, snapshot_header

pytestmark = pytest.mark.integration
FOLLOWING = """
kind: chain_sync
name: tip_{chain_id}
chain_id: {chain_id}
mode: {{kind: follow_head, from_block: {from_block}}}
defaults: {{rpc_pool: none, chunk_size: 100}}
streams: {{blocks: {{cryo_dataset_name: blocks}}, logs: {{cryo_dataset_name: logs}}}}
"""
DAY = datetime(2024, 1, 1, tzinfo=UTC)


def time_of(block):
    """Two blocks have the same time, as on a chain with two blocks a second."""
    return DAY + timedelta(seconds=block // 2)


def hash_of(block):
    return block.to_bytes(32)


class Tip:
    """One chain with two streams, whose committed and hot blocks the test chooses."""

    def __init__(self, database, store, chain_id=143, from_block=0):
        self.database, self.store, self.chain_id = database, store, chain_id
        self.streams = apply(database, FOLLOWING.format(chain_id=chain_id, from_block=from_block))

    def cold(self, key, start, end):
        commit_rows(self.database, self.store, self.streams[key], BlockRange(start, end), FULL)

    def hot(self, start, end, *keys):
        with self.database.connection() as connection:
            connection.cursor().executemany(
                "insert into hot.chain values (%s, %s, %s, %s, %s, %s, 'full') on conflict do nothing",
                [
                    (DEFAULT_ORG, self.chain_id, n, hash_of(n), hash_of(max(0, n - 1)), time_of(n))
                    for n in range(start, end)
                ],
            )
            for key in keys or self.streams:
                stream = self.streams[key]
                connection.execute(
                    "insert into hot.streams as s values (%s, %s, int8multirange(int8range(%s, %s)))"
                    " on conflict (dataset_uuid) do update set blocks = s.blocks + excluded.blocks",
                    (stream.dataset_uuid, stream.config_hash, start, end),
                )

    def head(self, tag, number, *, age=0, with_hash=True):
        with self.database.connection() as connection:
            connection.execute(
                "insert into hot.heads values (%s, %s, %s, %s, %s, clock_timestamp() - make_interval(secs => %s))",
                (DEFAULT_ORG, self.chain_id, tag, number, hash_of(number) if with_hash else None, age),
            )

    def derived(self, key, columns):
        """Commit a dataset of a template, with these columns."""
        dataset, covered = uuid4(), BlockRange(0, 200)
        table = pa.table({column: pa.array([1], pa.int64()) for column in columns})
        Jobs(self.database).add_derived(dataset, self.chain_id, key, {})
        target = CommitTarget(dataset, key, key, self.chain_id, covered, "sha256:x", table.schema, whole=True)
        rows = RangeRows([table], lambda: {"level": "full"}, {"name": "sql", "version": "1"})
        with ingesting(self.database, self.store) as ingest:
            ingest.commit_derived(dataset, uuid4(), target, rows, "run")
        return dataset

    def uuids(self, *keys):
        return [self.streams[key].dataset_uuid for key in keys or self.streams]

    def cuts(self, *keys, also=(), **as_of):
        with self.database.snapshot() as session:
            return cuts(session, AsOf(**as_of), [*self.uuids(*keys), *also])

    def header(self, *keys, cut=None, **more):
        with self.database.snapshot() as session:
            return snapshot_header(session, self.uuids(*keys), {self.chain_id: cut} if cut else {}, **more)


@pytest.fixture
def tip(database, store):
    """Blocks 0 to 199 are committed, 200 to 299 hot; 279 is final."""
    tip = Tip(database, store)
    for key in tip.streams:
        tip.cold(key, 0, 100)
        tip.cold(key, 100, 200)
    tip.hot(200, 300)
    tip.head("latest", 299)
    tip.head("safe", 290, age=5, with_hash=False)
    tip.head("finalized", 279)
    return tip


def test_nothing_asked_is_no_cut(tip):
    assert tip.cuts() == {}


def test_the_lowest_block_decides(tip):
    assert tip.cuts(block=285) == {143: Cut(285)}
    assert tip.cuts(block=285, finalized_only=True) == {143: Cut(279)}
    assert tip.cuts(block=150, finalized_only=True, common=True) == {143: Cut(150)}
    assert tip.cuts(time=time_of(240), block=285) == {143: Cut(241)}  # 240 and 241 have one time
    early = DAY - timedelta(days=1)
    assert tip.cuts(time=early, block=285) == {143: Cut(285, early)}  # before the stored hashes: by its rows' times


@pytest.mark.parametrize("block", [0, 199, 200, 299])
def test_a_block_up_to_the_head_is_settled(tip, block):
    assert tip.cuts(block=block) == {143: Cut(block)}


def test_a_block_above_the_head_is_an_error_that_names_the_head(tip):
    with pytest.raises(InvalidInput, match="chain 143 is at block 299: as_of names a block up to it as_of=300"):
        tip.cuts(block=300)


@pytest.mark.parametrize(("offset", "block"), [(0, 221), (0.9, 221), (1, 223)])
def test_a_time_is_the_last_block_that_is_not_later(tip, offset, block):
    assert tip.cuts(time=time_of(220) + timedelta(seconds=offset)) == {143: Cut(block)}


def test_a_time_that_the_next_block_may_have_as_well_is_an_error(tip):
    with pytest.raises(InvalidInput, match=r"is at block 299 of .*: as_of names an earlier time"):
        tip.cuts(time=time_of(299))
    assert tip.cuts(time=time_of(299) - timedelta(microseconds=1)) == {143: Cut(297)}


def test_a_time_within_a_gap_of_the_stored_hashes_is_compared_with_the_rows(tip):
    tip.hot(400, 500)
    gap = time_of(350)
    with tip.database.connection() as connection:
        connection.execute("update hot.heads set block_number = 499, block_hash = null where tag = 'latest'")
    assert tip.cuts(time=gap) == {143: Cut(None, gap)}
    assert tip.cuts(time=time_of(420)) == {143: Cut(421)}


def test_a_time_of_a_chain_that_nobody_follows(database, store):
    tip = Tip(database, store)
    tip.cold("blocks", 0, 100)
    assert tip.cuts("blocks", time=DAY) == {143: Cut(None, DAY)}
    with pytest.raises(InvalidInput, match="as_of names a time in the past"):
        tip.cuts("blocks", time=datetime(9000, 1, 1, tzinfo=UTC))


def test_a_block_of_a_chain_that_nobody_follows(database, store):
    """The planner's observation is the head; without one, the newest committed block."""
    tip = Tip(database, store)
    with pytest.raises(InvalidInput, match="no block of chain 143 is known yet"):
        tip.cuts(block=5)
    tip.cold("blocks", 0, 100)
    with pytest.raises(InvalidInput, match="at block 99"):
        tip.cuts(block=100)
    with database.connection() as connection:
        connection.execute(
            "insert into trace.head_observations (org_id, chain_id, rpc_pool, finality_blocks, latest, finalized,"
            " observed_at) values (%s, 143, 'none', -1, 500, 400, now())",
            (DEFAULT_ORG,),
        )
    assert tip.cuts(block=500) == {143: Cut(500)}


def test_common_is_the_lowest_last_block(tip):
    tip.hot(300, 310, "blocks")
    assert tip.cuts("blocks", common=True) == {143: Cut(309)}
    assert tip.cuts("blocks", "logs", common=True) == {143: Cut(299)}


def test_an_empty_relation_has_nothing_in_common(database, store):
    tip = Tip(database, store)
    tip.cold("blocks", 0, 100)
    with pytest.raises(Unavailable, match=r"chain_143\.logs has no block yet"):
        tip.cuts(common=True)


def test_committed_blocks_are_final_whatever_the_follower_saw(tip):
    """A follower that stopped long ago does not hide blocks that were committed since."""
    for key in tip.streams:
        tip.cold(key, 300, 400)
    assert tip.cuts(finalized_only=True) == {143: Cut(399)}


def test_committed_rows_alone_need_no_cut_to_be_final(database, store):
    tip = Tip(database, store)
    tip.cold("blocks", 0, 100)
    assert tip.cuts(finalized_only=True) == {}


def test_nothing_final_is_known_yet(database, store):
    tip = Tip(database, store)
    tip.hot(200, 210)
    with pytest.raises(Unavailable, match="no final block of chain 143 is known yet"):
        tip.cuts(finalized_only=True)


def test_relations_of_two_chains(tip):
    """A number means a block of one chain; everything else is decided for each chain."""
    other = Tip(tip.database, tip.store, chain_id=1)
    other.hot(200, 250)
    other.head("latest", 249)
    other.head("finalized", 210)
    also = other.uuids()
    with pytest.raises(InvalidInput, match="as_of=240 is a block of one chain, but the query reads chains 1, 143"):
        tip.cuts(block=240, also=also)
    assert tip.cuts(time=time_of(220), also=also) == {143: Cut(221), 1: Cut(221)}
    assert tip.cuts(finalized_only=True, also=also) == {143: Cut(279), 1: Cut(210)}
    assert tip.cuts(common=True, also=also) == {143: Cut(299), 1: Cut(249)}


def test_a_derived_dataset_is_cut_by_its_columns_or_refused_by_name(tip):
    balances = tip.derived("balances", ["account", "amount"])
    supply = tip.derived("supply", ["block_number", "amount"])
    assert tip.cuts(block=150, also=[supply]) == {143: Cut(150)}
    with pytest.raises(InvalidInput, match=r"chain_143\.balances has no column block_number"):
        tip.cuts(block=150, also=[balances])
    with pytest.raises(InvalidInput, match=r"chain_143\.supply has no column block_timestamp"):
        tip.cuts(time=DAY - timedelta(1), also=[supply])
    assert tip.cuts(finalized_only=True, also=[balances]) == {143: Cut(279)}  # its rows come from final blocks


def test_a_header_names_heads_in_the_words_of_the_chain(tip):
    heads = [(each.tag, each.label, each.number, each.hash) for each in tip.header().heads[143]]
    assert heads == [
        ("latest", "proposed", 299, hash_of(299)),
        ("safe", "voted", 290, hash_of(290)),  # its hash comes from the stored chain
        ("finalized", "finalized", 279, hash_of(279)),
    ]
    times = [each.block_timestamp for each in tip.header().heads[143]]
    assert times == [time_of(299), time_of(290), time_of(279)]
    ages = [each.age_seconds for each in tip.header().heads[143]]
    assert 0 <= ages[0] < 5 <= ages[1] < 60


def test_a_head_on_another_fork_than_the_stored_chain_has_no_time(tip):
    with tip.database.connection() as connection:
        connection.execute("update hot.heads set block_hash = %s where tag = 'finalized'", (b"\xff" * 32,))
    final = tip.header().heads[143][-1]
    assert (final.hash, final.block_timestamp) == (b"\xff" * 32, None)


def test_a_header_has_the_last_block_and_gaps_of_each_relation(database, store):
    """History is filled from the newest block down: its gap begins with the stream's first block."""
    tip = Tip(database, store, from_block=50)
    tip.cold("logs", 50, 100)
    tip.cold("logs", 300, 400)
    tip.hot(400, 420)
    tip.hot(430, 440, "blocks")
    blocks, logs = tip.header().relations
    assert (blocks.name, blocks.first_block, blocks.last_block) == ("chain_143.blocks", 400, 439)
    assert blocks.gaps == (BlockRange(50, 400), BlockRange(420, 430))
    assert (blocks.missing_blocks, blocks.last_committed, blocks.has_hot) == (360, None, True)
    assert (logs.first_block, logs.last_block, logs.gaps) == (50, 419, (BlockRange(100, 300),))
    assert (logs.missing_blocks, logs.last_committed) == (200, 399)


def test_gaps_reach_up_to_the_cut(tip):
    """Below its first block a relation has no rows; above its last block it lacks those up to the cut."""
    tip.hot(300, 310, "blocks")
    gaps = {each.dataset_key: each.gaps for each in tip.header(cut=Cut(305)).relations}
    assert gaps == {"blocks": (), "logs": (BlockRange(300, 306),)}


def test_a_cut_below_the_first_block_is_a_gap(database, store):
    tip = Tip(database, store, from_block=50)
    tip.cold("logs", 100, 200)
    (logs,) = tip.header("logs", cut=Cut(69)).relations
    assert logs.gaps == (BlockRange(50, 70),)
    (logs,) = tip.header("logs", cut=Cut(20)).relations
    assert logs.gaps == ()  # the stream does not want these blocks


def test_hot_rows_of_another_configuration_are_no_blocks_of_the_relation(tip):
    with tip.database.connection() as connection:
        connection.execute("update hot.streams set config_hash = 'other'")
    assert [each.last_block for each in tip.header().relations] == [199, 199]


def test_a_fragmented_history_has_its_newest_gaps_and_their_number_of_blocks(database, store):
    tip = Tip(database, store)
    for start in range(0, 1000, 4):
        tip.hot(start, start + 2, "blocks")
    (blocks,) = tip.header("blocks").relations
    assert len(blocks.gaps) == MOST_GAPS
    assert (blocks.gaps[-1], blocks.gaps[0].start) == (BlockRange(994, 996), 996 - 2 - 4 * (MOST_GAPS - 1))
    assert blocks.missing_blocks == 2 * 249


def test_a_header_as_json(tip):
    found = tip.header("logs", cut=Cut(279, DAY)).to_json()
    assert found["cuts"] == [{"chain_id": 143, "block": 279, "time": "2024-01-01T00:00:00+00:00"}]
    assert found["relations"] == [
        {"name": "chain_143.logs", "first_block": 0, "last_block": 299, "missing_blocks": 0, "gaps": []}
    ]
    head = found["heads"][0]
    assert (head["label"], head["number"], head["hash"]) == ("proposed", 299, f"0x{299:064x}")
    assert head["block_timestamp"] == time_of(299).isoformat()


def test_heads_of_a_chain_that_no_relation_is_of(tip):
    assert list(tip.header("logs", chains=[1]).heads) == [143]
    with tip.database.snapshot() as session:
        assert list(snapshot_header(session, [], {}, chains=[143]).heads) == [143]
        assert chains_with_heads(session) == (143,)
