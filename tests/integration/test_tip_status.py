"""The tip of a followed chain where people look: ``trace-lite status`` and the asset check."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from dagster import AssetCheckEvaluation, AssetCheckSeverity, AssetObservation

from tests.support.hot_chain import MadeUpChain, apply_followed, followed, hashes_of
from tests.support.nodes import environment
from trace_dagster.cli import main
from trace_dagster.defs.tip_check import tip_events
from trace_dagster.identity import DEFAULT_ORG
from trace_dagster.registry.hot import HotStore
from trace_dagster.registry.jobs import Jobs
from trace_dagster.registry.tip_status import chain_tips, stream_tips

pytestmark = pytest.mark.integration

STREAMS = (
    "blocks: {cryo_dataset_name: blocks}\n  logs: {cryo_dataset_name: logs}\n  traces: {cryo_dataset_name: traces}"
)


@pytest.fixture
def streams(database):
    return apply_followed(database, STREAMS, chunk=100)


def run(database, statement):
    with database.connection() as connection:
        connection.execute(statement)


@pytest.fixture
def lease(database, streams):
    return followed(database)


@pytest.fixture
def followed_chain(database, streams, lease):
    """Follow a chain up to block 999: two streams with hot rows of other blocks, heads, two reorganisations."""
    store, chain = HotStore(database), MadeUpChain()
    mine = {key: {key: streams[key]} for key in ("blocks", "logs")}
    for key, first, end in (("blocks", 900, 950), ("logs", 940, 1000), ("blocks", 990, 1000)):
        store.store(lease, hashes_of(mine[key]), chain.blocks(first, end, mine[key]))
    both = mine["blocks"] | mine["logs"]
    for name, fork_block in (("b", 999), ("c", 993)):
        chain = chain.fork(fork_block, name)
        store.replace(lease, hashes_of(both), fork_block, chain.blocks(fork_block, 1000, both))
    store.observe(lease, {"safe": (998, None), "finalized": (997, None)})
    run(database, "update hot.chain set block_timestamp = clock_timestamp() - (1001 - block_number) * interval '1 s'")
    run(
        database,
        "insert into trace.head_observations (org_id, chain_id, rpc_pool, latest, finalized, observed_at,"
        f" finality_blocks) values ('{DEFAULT_ORG}', 99, 'none', 1003, 1001, now(), -1)",
    )
    return chain


def test_a_chain_that_nobody_follows_is_shown(database, streams):
    [tip] = chain_tips(database)
    assert (tip.chain_id, tip.head, tip.hot_blocks, tip.followed_by) == (99, None, 0, None)
    assert "trace-lite follow" in tip.stopped_line()


@pytest.mark.parametrize(
    "unwanted",
    [
        "update trace.jobs set enabled = false",
        "update trace.streams set enabled = false",
        "update trace.streams set halted_reason = 'an unknown form'",
        "update trace.streams set columns = columns || '{n_rlp_bytes}'",
    ],
)
def test_a_follower_is_not_asked_for_if_there_is_nothing_to_follow(database, streams, lease, unwanted):
    run(database, "update hot.followers set holder = null, expires_at = null, reason = 'an old reason'")
    assert chain_tips(database)[0].stopped_line() == "an old reason"
    run(database, unwanted)
    assert chain_tips(database)[0].stopped_line() is None


def test_the_tip_of_a_followed_chain(database, followed_chain):
    [tip] = chain_tips(database)
    assert (tip.head, tip.safe, tip.finalized) == (999, 998, 997)
    assert tip.head_hash == f"0x{followed_chain.hash(999).hex()}"
    assert tip.lag_blocks == 4
    assert 2 <= tip.lag_seconds < 30
    assert tip.hot_blocks == 100
    assert tip.followed_by == "test"
    assert (tip.last_reorg.fork_block, tip.last_reorg.depth) == (993, 7)
    assert tip.stopped_line() is None


def test_a_lapsed_lease_is_held_by_nobody_and_a_reason_is_shown(database, followed_chain):
    run(database, "update hot.followers set expires_at = clock_timestamp() - interval '1 second'")
    assert chain_tips(database)[0].followed_by is None
    run(database, "update hot.followers set reason = '50000 blocks are hot'")
    assert chain_tips(database)[0].stopped_line() == "50000 blocks are hot"


def test_each_hot_stream_has_its_own_blocks(database, followed_chain):
    tips = {tip.stream.dataset_key: tip for tip in stream_tips(database, Jobs(database).streams())}
    assert {key: (tip.hot_blocks, tip.first, tip.last) for key, tip in tips.items()} == {
        "blocks": (60, 900, 999),
        "logs": (60, 940, 999),
    }


def test_status_shows_the_tip(postgres_url, s3, followed_chain, monkeypatch):
    for name, value in environment(postgres_url, s3).items():
        monkeypatch.setenv(name, value)
    shown = CliRunner().invoke(main.main, ["status"])
    assert shown.exit_code == 0, shown.output
    [line] = [line for line in shown.stdout.splitlines() if line.startswith("chain 99 ")]
    for part in ("999 latest", "4 blocks", "997", "100", "test", "7 blocks from 993, "):
        assert part in line
    found = json.loads(CliRunner().invoke(main.main, ["status", "--json"]).stdout)["tip"]
    assert [(tip["chain_id"], tip["head"], tip["last_reorg"]["depth"]) for tip in found] == [(99, 999, 7)]


def answered(database, told=None, now=1000.0):
    """Return the check evaluations and observations that the reconciler reports, and what was told."""
    events, told = tip_events(database, Jobs(database).streams(), told or {}, now)
    checks = [event for event in events if isinstance(event, AssetCheckEvaluation)]
    return checks, [event for event in events if isinstance(event, AssetObservation)], told


def test_a_tip_that_is_well_is_told_once_and_then_each_minute(database, streams, lease, followed_chain):
    checks, observations, told = answered(database)
    assert {check.asset_key.path[-1] for check in checks} == {"blocks", "logs"}
    assert all(check.passed for check in checks)
    assert "block 999 is the newest, 4 blocks behind; 60 blocks are hot" in checks[0].description
    assert checks[0].metadata["last_reorganisation"].value.startswith("7 blocks from 993, ")
    assert {key: value.value for key, value in observations[0].metadata.items() if key != "lag_seconds"} == {
        "head_block": 999,
        "finalized_block": 997,
        "lag_blocks": 4,
        "hot_blocks": 60,
    }
    told = json.loads(json.dumps(told))  # as in the sensor's cursor
    blocks = {"blocks": streams["blocks"]}
    HotStore(database).store(lease, hashes_of(blocks), followed_chain.blocks(1000, 1001, blocks))
    checks, observations, told = answered(database, told, now=1001.0)
    assert (len(checks), observations) == (2, [])  # once more, because a materialization may have come in between
    assert answered(database, told, now=1002.0)[:2] == ([], [])
    checks, observations, _ = answered(database, told, now=1061.0)
    assert (len(checks), len(observations)) == (2, 2)


def test_a_follower_that_stopped_is_an_error_at_once_and_an_old_tip_a_warning(database, followed_chain):
    _, _, told = answered(database)
    run(database, "update hot.followers set reason = '50000 blocks are hot'")
    checks, observations, told = answered(database, told, now=1001.0)
    assert [(check.passed, check.severity, check.description) for check in checks] == 2 * [
        (False, AssetCheckSeverity.ERROR, "50000 blocks are hot")
    ]
    assert observations == []
    run(database, "update hot.followers set reason = null")
    run(
        database,
        "update hot.chain set block_timestamp = now() - interval '3 minutes',"
        " stored_at = now() - interval '2.5 minutes'",
    )
    checks, _, _ = answered(database, told, now=1002.0)
    assert {(check.passed, check.severity) for check in checks} == {(False, AssetCheckSeverity.WARN)}
    assert checks[0].description.startswith("no new block for 15")


def test_a_paused_job_is_not_told_about(database, followed_chain):
    Jobs(database).set_enabled("tip", False)
    assert answered(database)[:2] == ([], [])


def test_a_chain_that_the_sensor_looked_at_lately_is_followed(database, followed_chain):
    run(database, "update hot.followers set holder = null, expires_at = null")
    assert chain_tips(database)[0].stopped_line() is None
    run(database, "update hot.heads set observed_at = now() - interval '1 minute'")
    assert "nobody has followed this chain for 6" in chain_tips(database)[0].stopped_line()
