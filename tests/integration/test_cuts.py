"""What an answer is about: cuts by block, time, common block and finality, and the header that says so.

A settled cut never changes with the next block. Each test has a chain of its own in one registry.
"""

from datetime import UTC, datetime, timedelta
from itertools import count, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.followed import DAY, Tip, hash_of, opened_services, settled_tip, time_of
from trace_dagster.blocks import BlockRange
from trace_dagster.errors import InvalidInput, Unavailable
from trace_dagster.identity import DEFAULT_ORG
from trace_dagster.registry.snapshot_header import MOST_GAPS, Cut, chains_with_heads, snapshot_header

pytestmark = pytest.mark.integration
CHAINS = count(1000)


@pytest.fixture(scope="module")
def services(postgres, template_database, s3_server):
    with opened_services(postgres, template_database, s3_server) as opened:
        yield opened


@pytest.fixture(scope="module")
def tip(services):
    """Return a chain that tests only read."""
    return settled_tip(*services)


@pytest.fixture
def own(services):
    """Return a chain like ``tip`` that the test may change."""
    return settled_tip(*services, next(CHAINS))


@pytest.fixture
def new(services):
    """Return a function that makes a chain without blocks."""
    return lambda **more: Tip(*services, next(CHAINS), **more)


def test_nothing_asked_is_no_cut(tip):
    assert tip.cuts() == {}


def test_the_lowest_block_decides(tip):
    assert tip.cut(block=285) == Cut(285)
    assert tip.cut(block=285, finalized_only=True) == Cut(279)
    assert tip.cut(block=150, finalized_only=True, common=True) == Cut(150)
    assert tip.cut(time=time_of(240), block=285) == Cut(241)  # 240 and 241 have one time
    early = DAY - timedelta(days=1)
    assert tip.cut(time=early, block=285) == Cut(285, early)  # before the stored hashes: by its rows' times


@pytest.mark.parametrize("block", [0, 199, 200, 299])
def test_a_block_up_to_the_head_is_settled(tip, block):
    assert tip.cut(block=block) == Cut(block)


def test_a_block_above_the_head_is_an_error_that_names_the_head(tip):
    with pytest.raises(InvalidInput, match="chain 143 is at block 299: as_of must name a block up to it as_of=300"):
        tip.cuts(block=300)


@pytest.mark.parametrize(("offset", "block"), [(0, 221), (0.9, 221), (1, 223)])
def test_a_time_is_the_last_block_that_is_not_later(tip, offset, block):
    assert tip.cut(time=time_of(220) + timedelta(seconds=offset)) == Cut(block)


def test_a_time_that_the_next_block_may_have_as_well_is_an_error(tip):
    with pytest.raises(InvalidInput, match=r"is at block 299 of .*: as_of must name an earlier time"):
        tip.cuts(time=time_of(299))
    assert tip.cut(time=time_of(299) - timedelta(microseconds=1)) == Cut(297)


def test_a_time_within_a_gap_of_the_stored_hashes_is_compared_with_the_rows(own):
    own.hot(400, 500)
    gap = time_of(350)
    assert own.cut(time=gap) == Cut(None, gap)
    assert own.cut(time=time_of(420)) == Cut(421)


def test_a_time_of_a_chain_that_nobody_follows(new):
    tip = new()
    tip.cold("blocks", 0, 100)
    assert tip.cut("blocks", time=DAY) == Cut(None, DAY)
    with pytest.raises(InvalidInput, match="as_of must name a time in the past"):
        tip.cuts("blocks", time=datetime(9000, 1, 1, tzinfo=UTC))


def test_a_block_of_a_chain_that_nobody_follows(new):
    """The planner's observation is the head; without one, the newest committed block."""
    tip = new()
    with pytest.raises(InvalidInput, match=f"no block of chain {tip.chain_id} is known yet"):
        tip.cuts(block=5)
    tip.cold("blocks", 0, 100)
    with pytest.raises(InvalidInput, match="at block 99"):
        tip.cuts(block=100)
    with tip.database.connection() as connection:
        connection.execute(
            "insert into trace.head_observations (org_id, chain_id, rpc_pool, finality_blocks, latest, finalized,"
            " observed_at) values (%s, %s, 'none', -1, 500, 400, now())",
            (DEFAULT_ORG, tip.chain_id),
        )
    assert tip.cut(block=500) == Cut(500)


def test_common_is_the_lowest_last_block(own):
    own.hot(300, 310, "blocks")
    assert own.cut("blocks", common=True) == Cut(309)
    assert own.cut("blocks", "logs", common=True) == Cut(299)


def test_an_empty_relation_has_nothing_in_common(new):
    tip = new()
    tip.cold("blocks", 0, 100)
    with pytest.raises(Unavailable, match=rf"chain_{tip.chain_id}\.logs has no block yet"):
        tip.cuts(common=True)


def test_committed_blocks_are_final_whatever_the_follower_saw(own):
    """A follower that stopped long ago does not hide blocks that were committed since."""
    for key in own.streams:
        own.cold(key, 300, 400)
    assert own.cut(finalized_only=True) == Cut(399)


def test_hot_blocks_below_a_gap_are_final_too(own):
    """After a downtime the newest block is stored only if its chain has the older ones."""
    own.hot(400, 410)
    own.final(405)
    assert own.cut(finalized_only=True) == Cut(405)


def test_committed_rows_alone_need_no_cut_to_be_final(new):
    tip = new()
    tip.cold("blocks", 0, 100)
    assert tip.cuts(finalized_only=True) == {}


def test_nothing_final_is_known_yet(new):
    tip = new()
    tip.hot(200, 210)
    with pytest.raises(Unavailable, match=f"no final block of chain {tip.chain_id} is known yet"):
        tip.cuts(finalized_only=True)


def test_relations_of_two_chains(tip, new):
    """A number means a block of one chain; everything else is decided for each chain."""
    other = new()
    other.hot(200, 250)
    other.final(210)
    also = other.uuids()
    with pytest.raises(InvalidInput, match=r"as_of=240 is a block of one chain, but the query reads chains 143, \d+"):
        tip.cuts(block=240, also=also)
    assert tip.cuts(time=time_of(220), also=also) == {143: Cut(221), other.chain_id: Cut(221)}
    assert tip.cuts(finalized_only=True, also=also) == {143: Cut(279), other.chain_id: Cut(210)}
    assert tip.cuts(common=True, also=also) == {143: Cut(299), other.chain_id: Cut(249)}


def test_a_derived_dataset_is_cut_by_its_columns_or_refused_by_name(own):
    balances = own.derived("balances", {"account": [7]})
    supply = own.derived("supply", {"block_number": [100]})
    assert own.cut(block=150, also=[supply]) == Cut(150)
    with pytest.raises(InvalidInput, match=r"chain_\d+\.balances has no column block_number"):
        own.cuts(block=150, also=[balances])
    with pytest.raises(InvalidInput, match=r"chain_\d+\.supply has no column block_timestamp"):
        own.cuts(time=DAY - timedelta(1), also=[supply])
    assert own.cut(finalized_only=True, also=[balances]) == Cut(279)  # its rows come from final blocks


def test_a_header_names_heads_in_the_words_of_the_chain(tip):
    found = tip.header().heads[143]
    assert [(each.tag, each.label, each.number, each.hash, each.block_timestamp) for each in found] == [
        ("latest", "proposed", 299, hash_of(299), time_of(299)),
        ("safe", "voted", 290, hash_of(290), time_of(290)),
        ("finalized", "finalized", 279, hash_of(279), time_of(279)),
    ]


def test_the_age_of_a_head_is_the_time_since_it_was_observed(own):
    with own.database.connection() as connection:
        connection.execute(
            "update hot.heads set observed_at = observed_at - interval '1 h' where tag <> 'latest' and chain_id = %s",
            (own.chain_id,),
        )
    ages = [each.age_seconds for each in own.header().heads[own.chain_id]]
    assert 0 <= ages[0] < 600
    assert ages[1] > 3600


def test_a_head_on_another_fork_than_the_stored_chain_has_no_time(own):
    with own.database.connection() as connection:
        connection.execute(
            "update hot.heads set block_hash = %s where tag = 'finalized' and chain_id = %s",
            (b"\xff" * 32, own.chain_id),
        )
    final = own.header().heads[own.chain_id][-1]
    assert (final.hash, final.block_timestamp) == (b"\xff" * 32, None)


def test_a_header_has_the_last_block_and_gaps_of_each_relation(new):
    """History is filled from the newest block down: its gap begins with the stream's first block."""
    tip = new(from_block=50)
    tip.cold("logs", 50, 100)
    tip.cold("logs", 300, 400)
    tip.hot(400, 420)
    tip.hot(430, 440, "blocks")
    blocks, logs = tip.header().relations
    assert (blocks.name, blocks.first_block, blocks.last_block) == (f"chain_{tip.chain_id}.blocks", 400, 439)
    assert blocks.gaps == (BlockRange(50, 400), BlockRange(420, 430))
    assert (blocks.missing_blocks, blocks.last_committed, blocks.has_hot) == (360, None, True)
    assert (logs.first_block, logs.last_block, logs.gaps) == (50, 419, (BlockRange(100, 300),))
    assert (logs.missing_blocks, logs.last_committed) == (200, 399)


def test_gaps_reach_up_to_the_cut(own):
    """Below its first block a relation has no rows; above its last block it lacks those up to the cut."""
    own.hot(300, 310, "blocks")
    gaps = {each.dataset_key: each.gaps for each in own.header(cut=Cut(305)).relations}
    assert gaps == {"blocks": (), "logs": (BlockRange(300, 306),)}


def test_a_cut_below_the_first_block_is_a_gap(new):
    tip = new(from_block=50)
    tip.cold("logs", 100, 200)
    (logs,) = tip.header("logs", cut=Cut(69)).relations
    assert logs.gaps == (BlockRange(50, 70),)
    (logs,) = tip.header("logs", cut=Cut(20)).relations
    assert logs.gaps == ()  # the stream does not want these blocks


def test_hot_rows_of_another_configuration_are_no_blocks_of_the_relation(own):
    with own.database.connection() as connection:
        connection.execute("update hot.streams set config_hash = 'other' where dataset_uuid = any(%s)", (own.uuids(),))
    assert [each.last_block for each in own.header().relations] == [199, 199]


def test_a_fragmented_history_has_its_newest_gaps_and_their_number_of_blocks(new):
    tip = new()
    tip.hot(998, 1000)
    with tip.database.connection() as connection:
        connection.execute(
            "update hot.streams set blocks = (select range_agg(int8range(n, n + 2)) from generate_series(0, 999, 4) n)"
            " where dataset_uuid = any(%s)",
            (tip.uuids(),),
        )
    (blocks,) = tip.header("blocks").relations
    assert len(blocks.gaps) == MOST_GAPS
    assert (blocks.gaps[-1], blocks.gaps[0].start) == (BlockRange(994, 996), 996 - 2 - 4 * (MOST_GAPS - 1))
    assert blocks.missing_blocks == 2 * 249


def test_a_header_as_json(tip):
    found = tip.header("logs", cut=Cut(279, DAY)).to_json()
    assert found["cuts"] == [{"chain_id": 143, "block": 279, "time": "2024-01-01T00:00:00+00:00"}]
    assert found["relations"] == [
        {
            "name": "chain_143.logs",
            "chain_id": 143,
            "kind": "stream",
            "first_block": 0,
            "last_block": 299,
            "missing_blocks": 0,
            "gaps": [],
        }
    ]
    head = found["heads"][0]
    assert (head["label"], head["number"], head["hash"]) == ("proposed", 299, f"0x{299:064x}")
    assert head["block_timestamp"] == time_of(299).isoformat()


def test_heads_of_a_chain_that_no_relation_is_of(tip):
    assert list(tip.header("logs", chains=[1]).heads) == [143]
    with tip.database.snapshot() as session:
        assert list(snapshot_header(session, [], {}, chains=[143]).heads) == [143]
        assert 143 in chains_with_heads(session)


@given(
    committed=st.sets(st.integers(0, 40)),
    hot=st.sets(st.integers(0, 40)),
    from_block=st.integers(0, 20),
    last=st.none() | st.integers(0, 50),
)
@settings(max_examples=60)
def test_a_header_is_what_sets_of_blocks_say(model, committed, hot, from_block, last):
    """Blocks of any shape, committed and hot, against the definition of a gap over sets."""
    stream = model.streams["logs"].dataset_uuid
    with model.database.connection() as connection:
        for name, blocks in (("committed", committed), ("hot", hot)):
            connection.execute(FILL[name], (multirange(blocks), stream))
        connection.execute("update trace.streams set from_block = %s where dataset_uuid = %s", (from_block, stream))
    cut = None if last is None else Cut(last)
    (found,) = model.header("logs", cut=cut).relations
    has = committed | hot
    assert (found.first_block, found.last_block) == (min(has, default=None), max(has, default=None))
    assert (found.last_committed, found.has_hot) == (max(committed, default=None), bool(hot))
    end = max(has, default=-1) if last is None else last
    missing = set(range(min([from_block, *has]), end + 1)) - has
    assert {block for gap in found.gaps for block in range(gap.start, gap.end)} == missing
    assert found.missing_blocks == len(missing)
    assert all(left.end < right.start for left, right in pairwise(found.gaps))
    if has:
        assert model.cut("logs", common=True) == Cut(max(has))


FILL = {
    "committed": "update trace.visible_totals set blocks = %s where dataset_uuid = %s",
    "hot": "update hot.streams set blocks = %s where dataset_uuid = %s",
}


def multirange(blocks):
    return "{" + ",".join(f"[{block},{block + 1})" for block in sorted(blocks)) + "}"


@pytest.fixture(scope="module")
def model(services):
    """Return a chain whose stream logs has a row in both tables that say which blocks it has."""
    tip = Tip(*services, next(CHAINS))
    tip.cold("logs", 0, 100)
    tip.hot(200, 201, "logs")
    return tip
