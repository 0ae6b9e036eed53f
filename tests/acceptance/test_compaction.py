"""Compaction by threshold, in the UI and by hand, on the real stack: queries give the same rows before and after."""

from __future__ import annotations

import json
import time

import pytest
from dagster import AssetKey, DagsterInstance

from tests.acceptance.jobs import job_file
from trace_dagster.blocks import BlockRange
from trace_dagster.cli.dagster_client import DagsterWeb
from trace_dagster.devchain import constants

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

BACKFILL = """
mutation Backfill($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""
NEVER = "'0 0 1 1 *'"
"""A cron that is not due while the tests run."""


def applied(stack, folder, name, suffix, compact):
    """Sync the devchain's first 1,000 blocks and their logs under names of their own."""
    path = job_file(
        folder, name, chain=constants.CHAIN_ID, end=1000, streams=("blocks", "logs"), suffix=suffix, compact=compact
    )
    done = stack.cli("apply", "--file", str(path), "--wait")
    assert done.returncode == 0, done.stderr


def files(stack, job) -> dict[str, dict]:
    """Return the files of the job's streams as the status shows them."""
    found = stack.json("status", "--json", "--job", job)["files"]
    return {each["dataset_key"]: each for each in found}


def wait_compacted(stack, job, keys, windows):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = files(stack, job)
        if all(found[key]["windows_compacted"] == windows for key in keys):
            return found
        time.sleep(2)
    pytest.fail(f"not compacted: {found}")


def rows_of(stack, table):
    sql = f"select count(*), count(distinct block_number), min(block_number), max(block_number) from {table}"
    return stack.json("query", "--json", sql)["rows"]


def instance_of(stack, monkeypatch) -> DagsterInstance:
    for name, value in stack.state.environment().items():
        monkeypatch.setenv(name, value)
    return DagsterInstance.get()


def test_the_sensor_compacts_what_is_committed(stack, tmp_path, devchain, monkeypatch):
    applied(stack, tmp_path, "threshold", "_threshold", "{after_files: 4}")
    found = wait_compacted(stack, "threshold", ("blocks_threshold", "logs_threshold"), 3)
    for key in ("blocks", "logs"):
        shown = found[f"{key}_threshold"]
        assert (shown["files"], shown["uncompacted_files"], shown["windows_failed"]) == (3, 0, 0)
        ((count, blocks, first, last),) = rows_of(stack, f"chain_20143.{key}_threshold")
        assert count == devchain.rows(key, 0, 1000)
    assert (blocks, first, last) <= (1000, 999, 999)
    verified = stack.cli("verify", "--job", "threshold")
    assert verified.returncode == 0, verified.stderr
    shown = instance_of(stack, monkeypatch).get_materialized_partitions(
        AssetKey(["20143", "blocks_threshold", "blocks_threshold_compacted"])
    )
    assert shown == {BlockRange(*span).key for span in ((0, 400), (400, 800), (800, 1000))}


def test_people_compact_in_the_ui_and_by_hand(stack, tmp_path, devchain, monkeypatch):
    applied(stack, tmp_path, "by_hand", "_by_hand", f"{{after_files: 5, cron: {NEVER}}}")
    asset = AssetKey(["20143", "blocks_by_hand", "blocks_by_hand_compacted"])
    window = BlockRange(0, 500)
    instance = instance_of(stack, monkeypatch)
    deadline = time.monotonic() + 60
    while window.key not in instance.get_dynamic_partitions("by_hand__500__windows") and time.monotonic() < deadline:
        time.sleep(1)
    web = DagsterWeb(stack.state.web_url)
    answer = web._client._execute(
        BACKFILL, {"params": {"assetSelection": [{"path": asset.path}], "partitionNames": [window.key]}}
    )["launchPartitionBackfill"]
    assert answer["__typename"] == "LaunchBackfillSuccess", answer
    found = wait_compacted(stack, "by_hand", ("blocks_by_hand",), 1)
    assert (found["blocks_by_hand"]["files"], found["logs_by_hand"]["files"]) == (6, 10)

    dry = stack.json("compact", "--job", "by_hand", "--dry-run", "--json")["windows"]
    assert [(each["dataset_key"], each["range_start"], each["outcome"]) for each in dry] == [
        ("blocks_by_hand", 500, "due"),
        ("logs_by_hand", 0, "due"),
        ("logs_by_hand", 500, "due"),
    ]
    one = stack.cli("compact", "--job", "by_hand", "--stream", "logs_by_hand", "--window", "0-500")
    assert one.returncode == 0, one.stderr
    assert "by_hand: logs_by_hand [0, 500): 5 files of " in one.stderr
    rest = stack.cli("compact", "--job", "by_hand", "--json")
    assert rest.returncode == 0, rest.stderr
    assert [each["outcome"] for each in json.loads(rest.stdout)["windows"]] == ["compacted", "compacted"]
    assert "no window is due" in stack.cli("compact", "--job", "by_hand").stderr
    assert {each["files"] for each in files(stack, "by_hand").values()} == {2}
    assert rows_of(stack, "chain_20143.logs_by_hand")[0][0] == devchain.rows("logs", 0, 1000)
    deadline = time.monotonic() + 120
    while instance.get_materialized_partitions(asset) != {window.key, BlockRange(500, 1000).key}:
        assert time.monotonic() < deadline, "the sensor did not report what the command line compacted"
        time.sleep(2)


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["--job", "nobody"], 2, "no job is called 'nobody'"),
        (["--stream", "blocks"], 2, "pass the job too: --job J"),
        (["--window", "0-x", "--job", "by_hand"], 2, "write two block numbers"),
        (
            ["--window", "0-300", "--job", "by_hand"],
            2,
            "blocks 0-300 are no window of blocks_by_hand; its windows with such blocks: 0-500",
        ),
        (["--job", "off_job", "--stream", "blocks_off"], 2, "compaction of stream blocks_off of job off_job is off"),
    ],
)
def test_what_cannot_be_compacted_is_said(stack, tmp_path, arguments, code, reason):
    if "off_job" in arguments:
        applied(stack, tmp_path, "off_job", "_off", "off")
    done = stack.cli("compact", *arguments)
    assert done.returncode == code, done.stderr
    assert reason in done.stderr
