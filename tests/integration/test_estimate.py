"""`trace-lite plan` with the real engine on a devchain, compared with a sync of the same blocks."""

from __future__ import annotations

import json
from contextlib import contextmanager, nullcontext

import pytest
from click.testing import CliRunner

from tests.support.anvil import find_anvil, running_chain
from tests.support.anvil_node import CHAIN_ID as ANVIL_CHAIN_ID
from tests.support.gateways import watched
from tests.support.left_out import EVM_NODE, leave_out
from tests.support.nodes import counting, environment, forwarding, running, serving
from trace_dagster.blocks import BlockRange, cells
from trace_dagster.cli import main
from trace_dagster.cli.commands import apply_file
from trace_dagster.config.chain_sync import read
from trace_dagster.config.settings import Settings, settings_from
from trace_dagster.datasets.catalogue import catalogue
from trace_dagster.devchain.chain import DevChain
from trace_dagster.devchain.constants import CHAIN_ID, FINAL_BEHIND
from trace_dagster.devchain.server import application
from trace_dagster.engine.base import ExtractRequest
from trace_dagster.engine.embedded import EmbeddedCryo
from trace_dagster.estimate.costs import places
from trace_dagster.estimate.estimator import estimate
from trace_dagster.estimate.receipt_probe import PROBED_BLOCKS
from trace_dagster.registry.jobs import Bounds
from trace_dagster.rpc.block_receipts import call_with_receipts
from trace_dagster.rpc.latency import requests_at_once
from trace_dagster.rpc.pools import Endpoint

pytestmark = pytest.mark.integration
SEED, BLOCKS, END, SAMPLE = 7, 320, 120, 20
DATASETS = ("logs", "geth_calls", "transactions", "blocks")
"""In this order no committed rows replace evidence for a later dataset."""

JOB = """
kind: chain_sync
name: job
chain_id: {chain_id}
mode: {mode}
defaults: {{rpc_pool: dev, chunk_size: 60, verify: {verify}}}
streams:
{streams}
"""
FIXED = "{{kind: fixed_target, from_block: {start}, to_block: {end}}}"


@pytest.fixture(scope="module")
def chain():
    return DevChain(SEED, BLOCKS)


@pytest.fixture(scope="module")
def node(chain):
    with serving(chain) as url:
        yield url


@pytest.fixture
def job(tmp_path):
    """Return a function that writes a chain_sync file."""

    def write(start=0, end=END, verify="full", streams=DATASETS, chain_id=CHAIN_ID, mode=None):
        path = tmp_path / "job.yaml"
        lines = [f"  {name}: {{cryo_dataset_name: {name}}}" for name in streams]
        mode = mode or FIXED.format(start=start, end=end)
        path.write_text(JOB.format(chain_id=chain_id, mode=mode, verify=verify, streams="\n".join(lines)))
        return path

    return write


def pool(url, **settings):
    return {"TRACE_RPC_POOL_DEV_URL": url, **{f"TRACE_RPC_POOL_DEV_{key}": value for key, value in settings.items()}}


def planned(path, variables, blocks=SAMPLE):
    found = estimate(path, Settings.read(variables), lambda _: None, sample_blocks=blocks)
    return {each.dataset_key: each for each in found.streams}


def run(*arguments, monkeypatch, tmp_path, variables=()):
    """Run the command as a user does, in a folder without a stack."""
    monkeypatch.setenv("TRACE_HOME", str(tmp_path / "home"))
    for name, value in dict(variables).items():
        monkeypatch.setenv(name, value)
    return CliRunner().invoke(main.main, ["plan", *arguments])


def test_a_sample_counts_the_chains_own_rows(chain, node, job):
    spots = places(BlockRange(0, END), SAMPLE)
    for name, found in planned(job(), pool(node)).items():
        assert found.error is None
        assert (found.sample.blocks, len(spots)) == (SAMPLE, 3)
        assert found.sample.rows == sum(chain.rows(name, spot.start, spot.end) for spot in spots)


def test_a_sample_of_every_block_is_no_estimate(chain, node, job):
    for name, found in planned(job(end=30), pool(node), blocks=30).items():
        assert found.rows == chain.rows(name, 0, 30)


@contextmanager
def applied(path, postgres_url, s3, url):
    """Yield a runtime with the applied job of a file, and its streams by key."""
    with running(postgres_url, s3, dev=url) as runtime:
        runtime.jobs.apply(read(path), Bounds(0, END))
        runtime.pools.named("dev", CHAIN_ID)  # fetches the chain's id, a single time per process
        yield runtime, {stream.dataset_key: stream for stream in runtime.jobs.streams()}


def sync(runtime, spec):
    """Commit every range of a stream; returns the publications."""
    works = [
        runtime.ingester.claim(spec, cell, "run", wait_seconds=5) for cell in cells(BlockRange(0, END), spec.chunk_size)
    ]
    return [runtime.ingester.commit(runtime.ingester.start(work)) for work in works]


@pytest.mark.parametrize("verify", ["off", "structural", "full"])
def test_a_sync_makes_no_more_calls_than_planned_and_about_the_planned_bytes(chain, job, postgres_url, s3, verify):
    path = job(verify=verify)
    with counting(application(chain)) as (url, calls):
        plan = planned(path, pool(url))
        for name in DATASETS:  # each in its own process, so that no stream reuses another's evidence
            with applied(path, postgres_url, s3, url) as (runtime, specs):
                for endpoint in runtime.pools.of_stream(specs[name]).endpoints:
                    requests_at_once(endpoint)  # measures the latency, a single time per process
                calls.clear()
                publications = sync(runtime, specs[name])
                asked, bound = calls.total(), plan[name].counts.rpc_calls
                assert asked <= bound <= 2 * asked, (name, dict(calls))
                size = sum(each.bytes for each in publications)
                assert size / 2 <= plan[name].bytes <= 2 * size, name
                assert plan[name].counts.ranges == len(publications)


def assert_receipts_are_left_out(engine, known, span, endpoint, calls):
    """Assert that Cryo fetches no receipts if their columns are left out, and that the other columns are the same."""

    def rows(columns):
        calls.clear()
        return engine.extract(ExtractRequest(known, span, ANVIL_CHAIN_ID, known.engine_schema(columns), endpoint))

    columns = [name for name in known.all_columns if name not in known.receipt_columns]
    whole = rows(list(known.all_columns))
    assert calls["eth_getBlockReceipts"]
    assert rows(columns).equals(whole.select(columns))
    assert calls.total() == 1 + known.most_calls(len(span), 1, columns), dict(calls)
    assert not calls["eth_getBlockReceipts"]


def test_the_calls_of_each_dataset_are_those_that_cryo_makes():
    if find_anvil() is None:
        leave_out(EVM_NODE)
    engine = EmbeddedCryo()
    try:
        with running_chain() as node, counting(forwarding(node.url)) as (url, calls):
            span = BlockRange(1, 11)
            for name, known in catalogue().items():
                calls.clear()
                endpoint = Endpoint("node", 1, url)
                engine.extract(
                    ExtractRequest(known, span, ANVIL_CHAIN_ID, known.engine_schema(tuple(known.all_columns)), endpoint)
                )
                assert calls.total() == 1 + known.most_calls(len(span), 1), (name, dict(calls))
                if known.receipt_columns:
                    assert_receipts_are_left_out(engine, known, span, endpoint, calls)
    finally:
        engine.close()


def test_native_streams_next_door_make_three_calls_per_block_together(chain, job, postgres_url, s3):
    path = job(end=60)
    path.write_text(path.read_text().replace("verify: full", "verify: full, engine: native"))
    with watched(chain) as node:
        found = estimate(path, Settings.read(pool(node.url)), lambda _: None, sample_blocks=0)
        said = (
            "engine: native only, whose streams share evidence: 180 calls for all its streams together, 3.0 per block"
        )
        assert any(said in note for note in found.notes)
        bounds = {each.dataset_key: each.counts.rpc_calls for each in found.streams}
        assert bounds == {"logs": 121, "geth_calls": 181, "transactions": 121, "blocks": 61}
        for name in DATASETS:
            with applied(path, postgres_url, s3, node.url) as (runtime, specs):
                for endpoint in runtime.pools.of_stream(specs[name]).endpoints:
                    requests_at_once(endpoint)
                before = node.calls
                work = runtime.ingester.claim(specs[name], BlockRange(0, 60), "run", wait_seconds=5)
                runtime.ingester.commit(runtime.ingester.start(work))
                assert (node.calls - before).total() <= bounds[name], name


@contextmanager
def without_block_receipts(chain):
    """Serve a node that offers receipts by transaction only."""
    with watched(chain) as node:

        def manner(calls):
            error = {"code": -32601, "message": "Method not found"}
            answers = [
                json.dumps({"id": each["id"], "error": error}).encode()
                if each["method"] == "eth_getBlockReceipts"
                else node.methods.answer(each)
                for each in calls
            ]
            return 200, b"[" + b",".join(answers) + b"]" if len(answers) > 1 else answers[0]

        node.manner = manner
        yield node


def test_receipts_that_are_fetched_by_transaction_are_counted(chain, job, postgres_url, s3):
    """The job has as many blocks as the plan looks at, so its figure is no estimate."""
    path = job(end=PROBED_BLOCKS, streams=("logs",))
    path.write_text(path.read_text().replace("chunk_size: 60", f"chunk_size: {PROBED_BLOCKS}"))
    transactions = sum(len(block.transactions) for block in chain.blocks[:PROBED_BLOCKS])
    with without_block_receipts(chain) as node:
        found = estimate(path, Settings.read(pool(node.url)), lambda _: None, sample_blocks=0)
        per_block = transactions / PROBED_BLOCKS
        assert f"receipts are fetched by transaction, {per_block:.1f} calls per block" in " ".join(found.notes)
        (plan,) = found.streams
        assert plan.counts.evidence_calls == 1 + PROBED_BLOCKS + transactions
        with applied(path, postgres_url, s3, node.url) as (runtime, specs):
            call_with_receipts(Endpoint("dev", 1, node.url), [], [1])  # this process now knows what the node lacks
            before = node.calls
            work = runtime.ingester.claim(specs["logs"], BlockRange(0, PROBED_BLOCKS), "run", wait_seconds=5)
            assert runtime.ingester.commit(runtime.ingester.start(work)).verification["level"] == "full"
            made = node.calls - before
    assert made["eth_getTransactionReceipt"] == transactions
    assert made["eth_getBlockReceipts"] == 0


@pytest.mark.parametrize(("lacks", "variables"), [(False, {"RPS": "1000"}), (True, {"RPS": "1000"}), (False, {})])
def test_the_calls_through_a_gateway_are_said_for_all_streams_together(chain, node, job, lacks, variables):
    """Each block, its receipts and its traces are fetched one time, test_routing.py counts them at the node."""
    with without_block_receipts(chain) if lacks else nullcontext() as other:
        settings = Settings.read(pool(other.url if lacks else node, **variables))
        found = estimate(job(end=PROBED_BLOCKS), settings, lambda _: None, sample_blocks=0)
    transactions = sum(len(block.transactions) for block in chain.blocks[:PROBED_BLOCKS])
    calls = (2 * PROBED_BLOCKS + transactions) if lacks else 3 * PROBED_BLOCKS
    said = f"which shares answers: {calls:,} calls for all its streams together, {calls / PROBED_BLOCKS:.1f} per block"
    assert any(said in note for note in found.notes) == bool(variables)


def stored(database):
    """Return every row of the registry, by table."""
    with database.connection() as connection:
        tables = connection.execute("select tablename from pg_tables where schemaname = 'trace'").fetchall()
        return {
            row["tablename"]: sorted(map(str, connection.execute(f"table trace.{row['tablename']}").fetchall()))
            for row in tables
        }


def test_committed_ranges_are_left_out_and_nothing_is_changed(node, job, postgres_url, s3):
    path = job(streams=("blocks", "logs"), verify="structural")
    variables = {**pool(node), "TRACE_POSTGRES_URL": postgres_url}
    with applied(path, postgres_url, s3, node) as (runtime, specs):
        before = estimate(path, Settings.read(variables), lambda _: None, sample_blocks=0)
        assert before.notes[0] == "nothing is committed yet"
        assert [each.counts.ranges for each in before.streams] == [2, 2]
        sync(runtime, specs["blocks"])
        rows = stored(runtime.database)
        after = estimate(path, Settings.read(variables), lambda _: None, sample_blocks=SAMPLE)
        assert stored(runtime.database) == rows
    blocks, logs = after.streams
    assert (blocks.counts.ranges, blocks.committed_blocks, blocks.sample) == (0, END, None)
    assert (logs.counts.ranges, logs.committed_blocks, after.runs) == (2, 0, 1)
    assert after.notes[0] == "committed ranges are left out"


def test_apply_says_what_full_means_before_it_plans(job, node, postgres_url, s3):
    said = []
    apply_file(job(verify="require_full"), settings_from(environment(postgres_url, s3, dev=node)), said.append)
    registered = next(place for place, line in enumerate(said) if line.startswith("registered job"))
    assert said[registered - 4 : registered] == [
        "logs: full",
        "geth_calls: crosschecked (no commitment covers call frames; root frames are compared)",
        "transactions: full",
        "blocks: full",
    ]


def test_a_job_that_apply_would_refuse_is_refused(job, node, postgres_url, s3, monkeypatch, tmp_path):
    with applied(job(), postgres_url, s3, node):
        pass
    taken = job()
    taken.write_text(taken.read_text().replace("name: job", "name: other"))
    variables = {**pool(node), "TRACE_POSTGRES_URL": postgres_url}
    done = run("-f", str(taken), "--no-sample", monkeypatch=monkeypatch, tmp_path=tmp_path, variables=variables)
    assert done.exit_code == 2
    assert "job job already syncs dataset 'logs'" in done.stderr


def test_without_a_registry_the_plan_is_made_with_a_note(job, node):
    away = "postgresql://nobody@127.0.0.1:9/none?connect_timeout=2"
    found = estimate(job(), Settings.read({**pool(node), "TRACE_POSTGRES_URL": away}), lambda _: None, sample_blocks=0)
    assert found.notes[0].startswith("postgres does not answer")
    assert found.notes[0].endswith("the plan assumes that nothing is committed")
    assert [each.counts.blocks for each in found.streams] == [END] * 4


def test_symbolic_bounds_are_resolved_on_the_pool(job, node):
    mode = "{kind: fixed_target, from_block: latest-100, to_block: finalized}"
    end = BLOCKS - FINAL_BEHIND
    for found in planned(job(mode=mode), pool(node), blocks=0).values():
        start = (end - 100) // 60 * 60
        assert found.todo == (BlockRange(start, end),)


def test_a_job_that_follows_is_planned_up_to_the_heads_last_full_range(job, node):
    path = job(mode="{kind: follow_head, from_block: 10, tail_lag: 30}", streams=("blocks",))
    found = estimate(path, Settings.read(pool(node)), lambda _: None, sample_blocks=0)
    lagged = min(BLOCKS - 30, BLOCKS - FINAL_BEHIND)
    assert found.streams[0].todo == (BlockRange(10, lagged // 60 * 60),)
    assert any("from there the job follows the head" in note for note in found.notes)
    assert found.to_json()["tip"] == {
        "backfill": "newest_first",
        "hot_streams": ["blocks"],
        "rpc_calls_per_new_block_at_most": 2.0,
    }
    assert any(note.startswith("the newest blocks of blocks are hot rows: at most 2 calls") for note in found.notes)


def test_the_command_prints_a_table_and_the_sampled_blocks(job, node, monkeypatch, tmp_path):
    variables = pool(node, RPS="100")
    done = run("--file", str(job()), monkeypatch=monkeypatch, tmp_path=tmp_path, variables=variables)
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.stdout.splitlines()[1:7]] == ["stream", *DATASETS, "all"]
    assert "no limit" not in done.stdout
    lines = done.stdout.splitlines()
    assert "logs: full" in lines
    assert "geth_calls: crosschecked (no commitment covers call frames; root frames are compared)" in lines
    assert "sampling logs: blocks [0, 7), [57, 64), [114, 120)" in done.stderr


def test_json_has_units_and_the_limits_of_all_endpoints(job, node, monkeypatch, tmp_path):
    variables = pool(f"{node},{node}/second", RPS="50")
    done = run(
        "-f", str(job()), "--json", "--sample", "3", monkeypatch=monkeypatch, tmp_path=tmp_path, variables=variables
    )
    found = json.loads(done.stdout)
    for stream in found["streams"]:
        assert stream["pool_rpc_calls_per_second"] == 100
        assert stream["hours_at_pool_limit"] == pytest.approx(stream["rpc_calls_at_most"] / 100 / 3600)
        assert stream["sampled_blocks"] == 3
        assert stream["estimated_bytes"] > 0
    assert {each["dataset_key"]: each["reachable"]["level"] for each in found["streams"]} == {
        **dict.fromkeys(DATASETS, "full"),
        "geth_calls": "crosschecked",
    }
    assert (found["chain"]["name"], found["chain"]["is_listed"]) == ("trace devchain", True)
    assert found["hours_at_pool_limit"] == pytest.approx(sum(s["hours_at_pool_limit"] for s in found["streams"]))


def test_one_stream_the_node_cannot_serve_leaves_the_others_planned(job, node, monkeypatch, tmp_path):
    path = job(streams=("blocks", "traces"))
    path.write_text(path.read_text() + "  more: {cryo_dataset_name: logs, rpc_pool: nowhere}\n")
    done = run("-f", str(path), "--sample", "3", monkeypatch=monkeypatch, tmp_path=tmp_path, variables=pool(node))
    assert done.exit_code == 0
    blocks, traces, more = (line.split() for line in done.stdout.splitlines()[2:5])
    assert blocks[5] == "120"
    assert (traces[4], traces[5]) == ("364", "-")
    assert (more[4], more[5]) == ("246", "-")
    assert "traces: rpc endpoint dev#1 does not support what dataset traces needs" in done.stdout
    assert "more: rpc pool 'nowhere' has no URL: set TRACE_RPC_POOL_NOWHERE_URL" in done.stdout


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"start": 5000, "end": 6000}, "nothing to sample: the chain is final up to block"),
        ({"chain_id": 5}, "rpc endpoint dev#1 serves chain 20143, the job wants chain 5"),
        ({"mode": "{kind: follow_head, from_block: 0}", "chain_id": 5}, "the job wants chain 5"),
        ({"mode": "{kind: fixed_target, from_block: 0, to_block: finalized}", "chain_id": 5}, "the job wants chain 5"),
    ],
)
def test_a_stream_that_the_chain_cannot_serve_has_one_error_line(job, node, change, reason, monkeypatch, tmp_path):
    path = job(streams=("blocks", "logs"), **change)
    done = run("-f", str(path), monkeypatch=monkeypatch, tmp_path=tmp_path, variables=pool(node))
    assert done.exit_code == 0
    for name in ("blocks", "logs"):
        assert sum(line.startswith(f"{name}: ") and reason in line for line in done.stdout.splitlines()) == 1


def test_blocks_that_are_not_final_yet_are_counted_but_not_sampled(job, node):
    found = planned(job(end=5000, streams=("blocks",)), pool(node))["blocks"]
    assert (found.counts.blocks, found.sample.rows, found.error) == (5000, SAMPLE, None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"start": 9, "end": 9}, "to_block: must be greater"), ({"streams": ("block",)}, "did you mean 'blocks'")],
)
def test_an_invalid_file_is_an_error(job, node, change, reason, monkeypatch, tmp_path):
    done = run("-f", str(job(**change)), monkeypatch=monkeypatch, tmp_path=tmp_path, variables=pool(node))
    assert (done.exit_code, done.stdout) == (2, "")
    assert reason in done.stderr


def test_the_fake_engine_is_planned_without_a_node(job):
    found = planned(job(), {"TRACE_CRYO_MODE": "fake"})
    assert found["blocks"].rows == END
    assert all(each.error is None for each in found.values())
