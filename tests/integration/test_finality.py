"""Which block counts as final, at nodes that know the block tag, do not know it, or fail; near and through the
gateway.
"""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.clock import advance
from tests.support.gateways import gateway, watched
from tests.support.nodes import running
from trace_dagster.blocks import BlockRange
from trace_dagster.cli.commands import apply_file
from trace_dagster.config.chain_sync import parse
from trace_dagster.datasets.chain import Chain
from trace_dagster.devchain.chain import DevChain
from trace_dagster.errors import NoAnswer, TraceError, Unavailable
from trace_dagster.estimate.estimator import estimate
from trace_dagster.planning.bounds import resolve
from trace_dagster.planning.head_reader import HeadReader
from trace_dagster.planning.heads import Heads
from trace_dagster.registry.catalog import Catalog
from trace_dagster.registry.jobs import Bounds, Jobs
from trace_dagster.rpc.finality import chain_head
from trace_dagster.rpc.pools import RpcPool

pytestmark = pytest.mark.integration

LATEST = 499
UNKNOWN = Chain(99, "chain 99", is_listed=False, finality_blocks=100)
NO_TAG = {
    "erigon": {"error": {"code": -39001, "message": "Unknown block"}},
    "geth": {"error": {"code": -32000, "message": "finalized block not found"}},
    "plain": {"error": {"code": -32000, "message": "unknown block"}},
    "parameters": {"error": {"code": -32602, "message": "invalid argument 0: hex string without 0x prefix"}},
    "method": {"error": {"code": -32601, "message": "the method does not exist/is not available"}},
    "other code": {"error": {"code": -32603, "message": 'block "finalized" not available (head block: 499)'}},
    "null": {"result": None},
    "no number": {"result": {"number": None, "hash": None}},
}
FAILURES = {
    "502": (502, b"<html>bad gateway</html>"),
    "busy": (200, b'{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"server is busy"}}'),
    "not json": (200, b"<html>hello</html>"),
    "a list": (200, b'{"jsonrpc":"2.0","id":1,"result":[]}'),
    "a word": (200, b'{"jsonrpc":"2.0","id":1,"result":{"number":"soon"}}'),
}


@pytest.fixture(scope="module")
def chain():
    return DevChain(7, LATEST + 1)


def is_about_the_tag(calls):
    return any(call["method"] == "eth_getBlockByNumber" and call["params"][0] == "finalized" for call in calls)


def lacks(kind):
    """Return a manner that answers like a node without the block tag."""

    def manner(calls):
        if not is_about_the_tag(calls):
            return None
        return 200, json.dumps({"jsonrpc": "2.0", "id": calls[0]["id"], **NO_TAG[kind]}).encode()

    return manner


def fails(kind):
    """Return a manner that fails the request for the block tag; an id is that of the request."""

    def manner(calls):
        status, body = FAILURES[kind]
        return (status, body.replace(b'"id":1', b'"id":%d' % calls[0]["id"])) if is_about_the_tag(calls) else None

    return manner


@contextmanager
def pool_of(chain, way, *manners):
    """Serve one node per manner; yield their pool, asked directly or through a gateway."""
    with ExitStack() as stack:
        nodes = [stack.enter_context(watched(chain)) for _ in manners]
        for node, manner in zip(nodes, manners, strict=True):
            node.manner = manner
        urls = tuple(node.url for node in nodes)
        if way == "near":
            yield RpcPool("dev", urls)
            return
        door = stack.enter_context(gateway(TRACE_RPC_POOL_DEV_URL=",".join(urls)))
        yield RpcPool("dev", urls, gateway_urls=tuple(f"{door.url}/dev/{n}" for n in range(1, len(urls) + 1)))


def honest(calls):
    return None


@pytest.fixture(params=["near", "gateway"])
def way(request):
    return request.param


def test_the_tag_decides_where_a_node_knows_it(chain, way):
    with pool_of(chain, way, honest) as pool:
        head = chain_head(pool, UNKNOWN)
    assert (head.latest, head.finalized) == (LATEST, chain.finalized)
    assert head.rule == "by the block tag finalized"


@pytest.mark.parametrize("kind", NO_TAG)
def test_without_the_tag_the_chains_depth_decides(chain, way, kind):
    with pool_of(chain, way, lacks(kind)) as pool:
        head = chain_head(pool, UNKNOWN)
    assert (head.latest, head.finalized) == (LATEST, LATEST - 100)
    assert head.rule == (
        "100 blocks below the latest one (finality_blocks of chain 99),"
        " because no endpoint knows the block tag finalized"
    )


def test_one_endpoint_without_the_tag_does_not_lower_the_pool(chain, way):
    with pool_of(chain, way, lacks("null"), honest) as pool:
        assert chain_head(pool, UNKNOWN).finalized == chain.finalized


def test_an_endpoint_that_fails_does_not_hide_one_with_the_tag(chain, way):
    with pool_of(chain, way, fails("502"), lacks("null"), honest) as pool:
        assert chain_head(pool, UNKNOWN).finalized == chain.finalized


@pytest.mark.parametrize("kind", FAILURES)
def test_a_failure_does_not_count_as_a_missing_tag(chain, way, kind):
    """A node that fails may know the tag, so a shallower depth must not replace it."""
    with pool_of(chain, way, lacks("erigon"), fails(kind)) as pool, pytest.raises(Unavailable) as caught:
        chain_head(pool, UNKNOWN)
    assert "block tag finalized" in str(caught.value)
    assert "rpc endpoint dev#1 does not know it" in str(caught.value)
    assert "finality_blocks in the file" in str(caught.value)


def test_errors_keep_what_the_caller_does_about_them(chain):
    refuses = lambda calls: (401, b"") if is_about_the_tag(calls) else None  # noqa: E731
    with (
        pool_of(chain, "near", refuses) as pool,
        pytest.raises(TraceError, match=r"refuses its key.*finality_blocks") as caught,
    ):
        chain_head(pool, UNKNOWN)
    assert not isinstance(caught.value, Unavailable)
    dead = RpcPool("dev", ("http://127.0.0.1:9",))
    with pytest.raises(NoAnswer):
        chain_head(dead, UNKNOWN)


def test_the_setting_and_a_chain_without_the_tag_ask_no_node_for_it(chain):
    with watched(chain) as node:
        pool = RpcPool("dev", (node.url,))
        assert chain_head(pool, UNKNOWN, 7).finalized == LATEST - 7
        assert chain_head(pool, UNKNOWN, 0).finalized == LATEST
        assert chain_head(pool, UNKNOWN, 10_000).finalized == 0
        tagless = Chain(98, "Tagless", has_finalized_tag=False, finality_blocks=50)
        head = chain_head(pool, tagless)
        assert not any(is_about_the_tag(calls) for _, calls in node.requests)
    assert head.finalized == LATEST - 50
    assert head.rule == (
        "50 blocks below the latest one (finality_blocks of Tagless), because its nodes know no block tag finalized"
    )


JOB = """
kind: chain_sync
name: {name}
chain_id: 20143
mode: {mode}
{setting}
defaults: {{rpc_pool: dev, chunk_size: 50}}
streams:
  {key}: {{cryo_dataset_name: blocks, verify: structural}}
"""


def job_text(setting="", mode="{kind: fixed_target, from_block: latest-50, to_block: finalized}", name="j", key="b"):
    return JOB.format(setting=setting, mode=mode, name=name, key=key)


def test_symbolic_bounds_use_the_depth(chain):
    with pool_of(chain, "near", lacks("null")) as pool:
        job = parse(job_text())
        bounds = resolve(job, lambda: chain_head(pool, UNKNOWN, job.finality_blocks).finalized)
    assert bounds == Bounds(LATEST - 100 + 1 - 50, LATEST - 100 + 1)


def observed(database):
    with database.connection() as connection:
        rows = connection.execute(
            "select finality_blocks, latest, finalized, error from trace.head_observations order by 1"
        ).fetchall()
    return [tuple(row.values()) for row in rows]


def test_jobs_with_another_rule_observe_one_pool_for_themselves(chain, database):
    follow = "{kind: follow_head, from_block: 0}"
    jobs = Jobs(database)
    jobs.apply(parse(job_text(mode=follow)), Bounds(0, None))
    jobs.apply(parse(job_text("finality_blocks: 7", follow, "k", "c")), Bounds(0, None))
    with pool_of(chain, "near", fails("502")) as pool:
        reader = HeadReader(lambda name, chain_id: pool)
        assert Heads(database, reader.read).observe(jobs.streams()) == 1
    (default, mine) = observed(database)
    assert default[:3] == (-1, None, None)
    assert "finality_blocks in the file replaces it" in default[3]
    assert mine == (7, LATEST, LATEST - 7, None)


def test_the_setting_is_not_part_of_the_config_hash(database):
    jobs = Jobs(database)
    follow = "{kind: follow_head, from_block: 0}"
    jobs.apply(parse(job_text(mode=follow)), Bounds(0, None))
    before = jobs.streams()[0].config_hash
    jobs.apply(parse(job_text("finality_blocks: 7", follow)), Bounds(0, None))
    (stream,) = jobs.streams()
    assert stream.config_hash == before
    assert stream.job.finality_blocks == 7


def test_apply_and_plan_say_which_rule_holds(chain, postgres_url, s3, tmp_path: Path):
    path = tmp_path / "job.yaml"
    with watched(chain) as node, running(postgres_url, s3, dev=node.url) as runtime:
        settings = runtime.settings

        def said(text):
            path.write_text(text)
            lines: list[str] = []
            apply_file(path, settings, lines.append)
            plan = estimate(path, settings, lines.append, sample_blocks=0)
            (line,) = [each for each in lines if each.startswith("rpc pool dev is at block")]
            assert line in plan.notes
            return line, lines

        node.manner = lacks("erigon")
        line, lines = said(job_text())
        assert line == (
            "rpc pool dev is at block 499, final up to block 0: 1000 blocks below the latest one (finality_blocks of"
            " trace devchain), because no endpoint knows the block tag finalized"
        )
        assert "bounds resolved to [0, 1)" in lines
        line, lines = said(
            job_text("finality_blocks: 9", "{kind: fixed_target, from_block: 0, to_block: 495}", "k", "c")
        )
        assert line == "rpc pool dev is at block 499, final up to block 490: the file sets finality_blocks: 9"
        assert "note: the chain is final up to block 490; ranges after it wait until they are final" in lines
        node.manner = honest
        line, _ = said(job_text(mode="{kind: follow_head, from_block: 0}", name="l", key="d"))
        assert line == f"rpc pool dev is at block 499, final up to block {chain.finalized}: by the block tag finalized"


def ingest_all(runtime, stream):
    for start in range(0, 300, 50):
        work = runtime.ingester.claim(stream, BlockRange(start, start + 50), "run", wait_seconds=0)
        runtime.ingester.commit(runtime.ingester.start(work))


def test_a_head_that_falls_back_takes_nothing_back(database, postgres_url, s3):
    """The depth rule follows the latest block, which another endpoint of the pool may show earlier."""
    long, short = DevChain(7, 400), DevChain(7, 200)
    text = job_text("finality_blocks: 100", "{kind: follow_head, from_block: 0}")
    with ExitStack() as stack:
        ahead, behind = stack.enter_context(watched(long)), stack.enter_context(watched(short))
        with running(postgres_url, s3, dev=ahead.url) as runtime:
            runtime.jobs.apply(parse(text), Bounds(0, None))
            runtime.heads.observe(runtime.jobs.streams())
            runtime.planner.plan()
            (before,) = runtime.jobs.streams()
            assert before.next_block == 300
            ingest_all(runtime, before)
        committed = [BlockRange(0, 300)]
        assert Catalog(database).committed_ranges(before.dataset_uuid) == committed
        advance(database, 60)
        with running(postgres_url, s3, dev=behind.url) as runtime:
            runtime.heads.observe(runtime.jobs.streams())
            assert runtime.planner.plan() == 0
            (after,) = runtime.jobs.streams()
        assert (after.next_block, after.eligible_end) == (300, 100)
        assert Catalog(database).committed_ranges(before.dataset_uuid) == committed
