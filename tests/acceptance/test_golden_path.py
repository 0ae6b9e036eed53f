"""The whole path on real services: Cryo, Dagster, Postgres, S3, SQL; answers are compared with the chain's ledger."""

import json
import subprocess
import sys
import time

import psutil
import psycopg
import pytest
from dagster import DagsterInstance

from tests.acceptance.conftest import BLOCKS, ROOT
from tests.acceptance.jobs import FOUR, job_file
from tests.support.left_out import REAL_BLOCKS, leave_out
from trace_dagster.blocks import BlockRange
from trace_dagster.cli.dagster_client import DagsterWeb
from trace_dagster.config.settings import settings_from
from trace_dagster.devchain import constants

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]


@pytest.fixture(scope="session")
def analysed(stack, synced):
    """Materialize the chain's analytics."""
    web = DagsterWeb(stack.state.web_url)
    assert web.wait(web.launch("analytics__20143"), timeout_seconds=120)


def test_every_stream_is_complete_and_status_says_so(stack, synced):
    job = next(job for job in stack.json("status", "--json", "--job", "golden")["jobs"])
    assert {"name", "job_id", "chain_id", "mode", "enabled", "state", "streams"} <= set(job)
    assert job["state"] == "complete"
    for stream in job["streams"]:
        assert (stream["committed_ranges"], stream["next_block"], stream["eligible_end"]) == (10, 1000, 1000)
        assert (stream["inflight"], stream["failed"], stream["blocked_reason"]) == (0, 0, None)


@pytest.mark.parametrize("dataset", FOUR)
def test_row_counts_equal_the_chains_own(stack, synced, devchain, dataset):
    assert stack.count(f"chain_20143.{dataset}") == devchain.rows(dataset, 0, 1000)


def test_values_equal_the_chains_own(stack, synced, devchain):
    rows = stack.json(
        "query", "--json", "select block_number, block_hash from chain_20143.blocks order by 1 limit 1000"
    )["rows"]
    assert rows == [[block.number, "0x" + block.hash.hex()] for block in devchain.blocks[:1000]]
    total = "select sum(array_slice(value_binary, 17, 32)::bit::hugeint) from chain_20143.transactions"
    found = stack.json("query", "--json", total)["rows"]
    assert int(found[0][0]) == sum(t.call.value for block in devchain.blocks[:1000] for t in block.transactions)


def test_applying_again_changes_nothing(stack, synced):
    def standing():
        (job,) = stack.json("status", "--json", "--job", "golden")["jobs"]
        moving = dict.fromkeys(("head_age_seconds", "recent_blocks_per_second"))  # they change as time passes
        return {**job, "streams": [stream | moving for stream in job["streams"]]}

    before = standing()
    assert stack.cli("apply", "--file", str(synced), "--wait").returncode == 0
    assert standing() == before


def test_analytics_equal_the_chains_books(stack, analysed, devchain):
    supply = stack.json(
        "query", "--json", "--limit", "10000", "select block_number, total_supply from erc20_total_supply_by_block"
    )
    expected = devchain.ledger.supplies(constants.TOKEN, 1000)
    assert len(supply["rows"]) > 100
    assert expected[-1] > 2**128
    assert all(int(total) == expected[block] for block, total in supply["rows"])
    holders = stack.json(
        "query", "--json", "--limit", "10000", "select rank, holder, block_number, balance from erc20_top_holders"
    )
    for _, holder, block, balance in holders["rows"]:
        assert int(balance) == devchain.ledger.balances(constants.TOKEN, block).get(bytes.fromhex(holder[2:]), 0)
    last = {holder for rank, holder, block, _ in holders["rows"] if block == 999}
    ranked = sorted(devchain.ledger.balances(constants.TOKEN, 999).items(), key=lambda item: (-item[1], item[0]))
    assert last == {"0x" + holder.hex() for holder, _ in ranked[:10]}
    stakes = stack.json("query", "--json", "select validator, stake from staking_by_validator")
    assert {int(validator): int(stake) for validator, stake in stakes["rows"]} == devchain.ledger.stakes(999)


def test_analytics_again_confirm_instead_of_doubling(stack, analysed):
    web = DagsterWeb(stack.state.web_url)
    before = stack.count("erc20_total_supply_by_block")
    assert web.wait(web.launch("analytics__20143"), timeout_seconds=120)
    assert stack.count("erc20_total_supply_by_block") == before


def dagster(stack, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "dagster", *arguments],
        env={**stack.environment, **stack.state.environment()},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
    )


def wait_committed(stack, job, ranges):
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        streams = stack.json("status", "--json", "--job", job)["jobs"][0]["streams"]
        if all(stream["committed_ranges"] >= ranges for stream in streams):
            return
        time.sleep(0.5)
    pytest.fail(f"{job} did not reach {ranges} ranges: {streams}")


def test_dagster_job_launch_with_a_partition_runs_a_range(stack, synced):
    """Check that a committed range is reported again without work, and that the run succeeds."""
    workspace = stack.home / "dagster" / "workspace.yaml"
    key = BlockRange(0, 100).key
    done = dagster(
        stack, "job", "launch", "-w", str(workspace), "-j", "chain_sync__golden", "--tags",
        json.dumps({"dagster/partition": key}),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    web = DagsterWeb(stack.state.web_url)
    run = web._client._execute("{ runsOrError(limit: 1) { ... on Runs { results { id } } } }")
    assert web.wait(run["runsOrError"]["results"][0]["id"], timeout_seconds=90)


def test_dagster_job_launch_without_a_partition_says_which_tags_to_give(stack, synced):
    workspace = stack.home / "dagster" / "workspace.yaml"
    done = dagster(stack, "job", "launch", "-w", str(workspace), "-j", "chain_sync__golden")
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: a run of chain_sync__golden needs its block ranges")
    assert "dagster/partition" in last
    assert "dagster/asset_partition_range_start" in last
    assert "Traceback" not in done.stderr + done.stdout
    assert "PreviewWarning" not in done.stderr + done.stdout


BACKFILL = """
mutation Backfill($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""


def test_a_ui_backfill_of_ranges_goes_through_the_same_commit(stack, synced):
    web = DagsterWeb(stack.state.web_url)
    keys = [BlockRange(n, n + 100).key for n in (100, 200)]
    answer = web._client._execute(
        BACKFILL,
        {"params": {"assetSelection": [{"path": ["20143", "blocks"]}], "partitionNames": keys}},
    )["launchPartitionBackfill"]
    assert answer["__typename"] == "LaunchBackfillSuccess", answer
    found = f'partitionBackfillOrError(backfillId: "{answer["backfillId"]}")'
    query = f"{{ {found} {{ ... on PartitionBackfill {{ status }} }} }}"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        status = web._client._execute(query)["partitionBackfillOrError"]["status"]
        if status not in {"REQUESTED", "IN_PROGRESS"}:
            break
        time.sleep(1)
    assert status in {"COMPLETED", "COMPLETED_SUCCESS"}
    assert stack.count("chain_20143.blocks") == 1000


def test_every_range_is_a_materialized_partition_with_its_facts(stack, synced, monkeypatch):
    for name, value in stack.state.environment().items():
        monkeypatch.setenv(name, value)
    from dagster import AssetKey

    instance = DagsterInstance.get()
    for dataset in FOUR:
        assert len(instance.get_materialized_partitions(AssetKey(["20143", dataset]))) == 10
    record = instance.get_latest_materialization_event(AssetKey(["20143", "logs"]))
    metadata = record.asset_materialization.metadata
    assert metadata["verification_level"].value == "full"
    assert {"rows", "bytes", "generation", "dataset_version", "manifest"} <= set(metadata)


def test_downstream_assets_load_one_or_many_committed_partitions(stack, synced, monkeypatch, devchain):
    for name, value in {**stack.environment, **stack.state.environment()}.items():
        monkeypatch.setenv(name, value)
    import os

    import pyarrow as pa
    from dagster import AssetIn, AssetKey, DynamicPartitionsDefinition, StaticPartitionsDefinition, asset, materialize

    from trace_dagster.defs.resources import commit_io_manager, runtime_resource
    from trace_dagster.defs.streams import IO_MANAGER, RUNTIME

    del DynamicPartitionsDefinition
    seen = {}
    partitions = StaticPartitionsDefinition([BlockRange(n, n + 100).key for n in range(0, 1000, 100)])
    upstream = AssetKey(["20143", "logs"])

    @asset(
        partitions_def=partitions, ins={"logs": AssetIn(upstream, input_manager_key=IO_MANAGER)}, io_manager_key="mem"
    )
    def one(context, logs: pa.Table) -> None:
        seen[context.partition_key] = logs.num_rows

    @asset(ins={"logs": AssetIn(upstream, input_manager_key=IO_MANAGER)}, io_manager_key="mem")
    def whole(logs) -> None:
        seen["all"] = logs.count_rows()

    from dagster import InMemoryIOManager, SourceAsset

    source = SourceAsset(upstream, partitions_def=partitions)
    resources = {
        RUNTIME: runtime_resource(settings_from(os.environ)),
        IO_MANAGER: commit_io_manager,
        "mem": InMemoryIOManager(),
    }
    key = BlockRange(300, 400).key
    assert materialize([one, source], partition_key=key, resources=resources, selection=[one]).success
    assert materialize([whole, source], resources=resources, selection=[whole]).success
    assert seen == {key: devchain.rows("logs", 300, 400), "all": devchain.rows("logs", 0, 1000)}


def test_real_mainnet_blocks_come_through_whole(stack, real_blocks, tmp_path):
    if real_blocks is None:
        leave_out(REAL_BLOCKS)
    for number, recorded in real_blocks.chain.blocks.items():
        path = job_file(
            tmp_path,
            f"mainnet_{number}",
            chain=1,
            start=number,
            end=number + 1,
            pool="replay",
            chunk=1,
            suffix=f"_{number}",
        )
        done = stack.cli("apply", "--file", str(path), "--wait")
        assert done.returncode == 0, done.stderr
        assert stack.count(f"blocks_{number}") == 1
        assert stack.count(f"transactions_{number}") == len(recorded.receipts)
        assert stack.count(f"logs_{number}") == sum(len(receipt["logs"]) for receipt in recorded.receipts)
        hashes = stack.json(
            "query",
            "--json",
            f"select transaction_hash, gas_used from transactions_{number} order by transaction_index",
        )
        assert hashes["rows"] == [[r["transactionHash"], int(r["gasUsed"], 16)] for r in recorded.receipts]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            {"pool": "nowhere", "chain": 20143},
            "rpc pool 'nowhere' has no URL: set TRACE_RPC_POOL_NOWHERE_URL and restart",
        ),
        ({"pool": "devchain", "chain": 143}, "rpc endpoint devchain#1 serves chain 20143, the job wants chain 143"),
        ({"pool": "dead", "chain": 143}, "rpc endpoint dead#1 does not answer: check TRACE_RPC_POOL_DEAD_URL"),
    ],
)
def test_a_pool_that_cannot_serve_the_job_is_one_clear_line(stack, tmp_path, arguments, said):
    path = job_file(tmp_path, "wrong", end=100, suffix="_wrong", **arguments)
    done = stack.cli("apply", "--file", str(path), "--wait")
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert "hunter2" not in done.stderr
    assert "KEY4f3a2b1c" not in done.stderr
    assert "wrong" not in {job["name"] for job in stack.json("status", "--json")["jobs"]}


def test_a_range_past_the_end_of_the_chain_is_said_and_nothing_half_is_visible(stack, tmp_path):
    path = job_file(tmp_path, "beyond", chain=20143, start=900, end=5000, streams=("blocks",), suffix="_beyond")
    done = stack.cli("apply", "--file", str(path), "--wait")
    assert done.returncode == 1
    assert f"waiting for block 4999: the chain is final up to block {BLOCKS - 3}" in done.stderr
    assert stack.count("blocks_beyond") in (0, 100)


@pytest.mark.parametrize("mode", ["reall", "Fake", "mock"])
def test_a_mistyped_mode_is_an_error(stack, synced, mode):
    done = stack.cli("apply", "--file", str(synced), environment={"TRACE_CRYO_MODE": mode, **stack.state.environment()})
    assert done.returncode == 2
    assert "TRACE_CRYO_MODE must be real or fake" in done.stderr


def test_a_second_owner_of_a_dataset_is_refused(stack, synced, tmp_path):
    path = job_file(tmp_path, "second", chain=20143, end=500)
    done = stack.cli("apply", "--file", str(path))
    assert done.returncode == 2
    assert "already syncs dataset 'blocks' of chain 20143" in done.stderr


def test_no_url_or_secret_is_in_logs_argv_events_or_manifests(stack, synced):
    state = stack.state.environment()
    secrets = ["hunter2secret", "KEY4f3a2b1c", state["AWS_SECRET_ACCESS_KEY"], state["TRACE_RPC_POOL_DEVCHAIN_URL"]]
    for process in psutil.process_iter():
        try:
            command = " ".join(process.cmdline())
        except psutil.Error:
            continue
        assert not [secret for secret in secrets if secret in command]
    for log in (stack.home / "logs").glob("*.log"):
        text = log.read_text(errors="replace")
        assert not [secret for secret in secrets if secret in text], log.name
    with psycopg.connect(state["TRACE_POSTGRES_URL"]) as connection:
        for table in ("dagster.event_logs", "trace.tasks", "trace.attempts", "trace.dataset_versions", "trace.jobs"):
            for secret in secrets:
                found = connection.execute(
                    f"select count(*) from {table} t where t::text like %s", (f"%{secret}%",)
                ).fetchone()
                assert found == (0,), (table, secret)


def run_pids(stack) -> set[int]:
    """Return the processes that Dagster started for runs of the job ``killed``."""
    with psycopg.connect(stack.state.environment()["TRACE_POSTGRES_URL"]) as connection:
        rows = connection.execute(
            "select substring(e.event from 'Started process for run .pid: ([0-9]+)') from dagster.event_logs e"
            " join dagster.runs r on r.run_id = e.run_id"
            " where r.pipeline_name = 'chain_sync__killed' and e.event like '%Started process for run%'"
        ).fetchall()
    return {int(pid) for (pid,) in rows if pid}


def test_a_run_killed_twice_loses_nothing(stack, tmp_path, devchain):
    """Check that after SIGKILL of the run's process its ranges are claimed again and committed one time."""
    path = job_file(tmp_path, "killed", chain=20143, end=1000, streams=("transactions",), suffix="_killed", chunk=25)
    assert stack.cli("apply", "--file", str(path)).returncode == 0
    killed: set[int] = set()
    deadline = time.monotonic() + 90
    while len(killed) < 2 and time.monotonic() < deadline:
        for pid in run_pids(stack) - killed:
            if psutil.pid_exists(pid):
                psutil.Process(pid).kill()
                killed.add(pid)
        time.sleep(0.1)
    assert len(killed) >= 2
    done = stack.cli("apply", "--file", str(path), "--wait")
    assert done.returncode == 0, done.stderr
    assert stack.count("transactions_killed") == devchain.rows("transactions", 0, 1000)
