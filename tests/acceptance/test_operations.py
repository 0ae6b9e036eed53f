"""The actions of a person on a running job: pause, resume, retry, refresh, sweep, and the views in Dagster."""

from __future__ import annotations

import time

import pytest
from dagster import AssetKey, DagsterInstance

from tests.acceptance.jobs import job_file
from tests.support.left_out import EVM_NODE, leave_out
from trace_dagster.blocks import BlockRange
from trace_dagster.cli.dagster_client import DagsterWeb
from trace_dagster.config.settings import settings_from
from trace_dagster.registry.publications import Publications
from trace_dagster.runtime import Runtime

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

CHECKS = """
{ assetNodes(assetKeys: [{path: ["20143", "%s"]}]) { assetChecksOrError { ... on AssetChecks { checks {
  name executionForLatestMaterialization { status evaluation { success description metadataEntries { label
    ... on IntMetadataEntry { intValue } ... on MarkdownMetadataEntry { mdStr } } } } } } } } }
"""


@pytest.fixture(scope="module")
def operated(stack, tmp_path_factory):
    """Run a small job to its end."""
    path = job_file(
        tmp_path_factory.mktemp("jobs"), "operated", chain=20143, end=400, streams=("blocks",), suffix="_operated"
    )
    done = stack.cli("apply", "--file", str(path), "--wait")
    assert done.returncode == 0, done.stderr
    return path


def job(stack):
    return stack.json("status", "--json", "--job", "operated")["jobs"][0]


def until(what, seconds=90):
    """Wait for a truthy result, and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(1)
    return pytest.fail("it did not happen in time")


def check(stack, dataset_key):
    """Return the coverage check of an asset as the UI shows it."""
    (node,) = DagsterWeb(stack.state.web_url)._client._execute(CHECKS % dataset_key)["assetNodes"]
    found = {each["name"]: each["executionForLatestMaterialization"] for each in node["assetChecksOrError"]["checks"]}
    assert set(found) == {"coverage", "verification"}
    return found["coverage"]


def test_jobs_lists_it(stack, operated):
    (mine,) = [entry for entry in stack.json("jobs", "--json")["jobs"] if entry["name"] == "operated"]
    assert (mine["state"], mine["streams"]) == ("complete", ["blocks_operated"])


def test_a_paused_job_waits_and_a_resumed_one_goes_on(stack, operated):
    assert "operated is paused" in stack.cli("pause", "--job", "operated").stderr
    longer = operated.with_name("longer.yaml")
    longer.write_text(operated.read_text().replace("to_block: 400", "to_block: 800"))
    done = stack.cli("apply", "--file", str(longer), "--wait")
    assert done.returncode == 1
    assert "trace-lite resume --job operated" in done.stderr
    assert (job(stack)["state"], job(stack)["streams"][0]["committed_blocks"]) == ("paused", 400)
    assert "operated is running" in stack.cli("resume", "--job", "operated").stderr
    done = stack.cli("apply", "--file", str(longer), "--wait")
    assert done.returncode == 0, done.stderr
    assert job(stack)["streams"][0]["committed_blocks"] == 800


def test_the_coverage_check_says_what_is_committed(stack, operated):
    shown = until(lambda: (found := check(stack, "blocks_operated")) and found["evaluation"])
    assert shown["success"]
    assert "planned blocks are committed" in shown["description"]


def test_refresh_confirms_and_repairs_and_dagster_learns_of_it(stack, operated, monkeypatch):
    """Check that a refresh writes the objects of one range again after they were deleted."""
    environment = {**stack.environment, **stack.state.environment()}
    runtime = Runtime(settings_from(environment))
    try:
        stream = runtime.jobs.stream_of("operated", "blocks_operated")
        publications = Publications(runtime.database)
        both = [BlockRange(0, 100), BlockRange(100, 200)]
        before = [publications.visible(stream.dataset_uuid, block_range) for block_range in both]
        runtime.store.delete([file.key for file in publications.files(before[0])])
        done = stack.cli("refresh", "--job", "operated", "--stream", "blocks_operated", "--range", "0:200")
        assert "2 ranges are queued again" in done.stderr
        # A running range has left the queue, so the test waits for its new version.
        until(lambda: publications.visible(stream.dataset_uuid, both[0]) != before[0])
        until(lambda: job(stack)["state"] == "complete" and not job(stack)["streams"][0]["queued"])
        after = [publications.visible(stream.dataset_uuid, block_range) for block_range in both]
        assert after[1] == before[1]
        assert (after[0].generation, after[0].content_digest) == (1, before[0].content_digest)
    finally:
        runtime.close()
    assert stack.count("blocks_operated") == job(stack)["streams"][0]["committed_blocks"]


def test_a_commit_dagster_never_heard_of_is_reported_by_reconciliation(stack, operated, monkeypatch):
    """Check a commit outside of a run, which is like a kill between the commit and its event."""
    environment = {**stack.environment, **stack.state.environment()}
    runtime = Runtime(settings_from(environment))
    block_range = BlockRange(300, 400)
    try:
        stream = runtime.jobs.stream_of("operated", "blocks_operated")
        visible = Publications(runtime.database).visible(stream.dataset_uuid, block_range)
        runtime.store.delete([file.key for file in Publications(runtime.database).files(visible)])
        work = runtime.ingester.claim(stream, block_range, "no run", wait_seconds=0, refresh=True)
        version = runtime.ingester.commit(runtime.ingester.start(work)).dataset_version
    finally:
        runtime.close()
    for name, value in stack.state.environment().items():
        monkeypatch.setenv(name, value)
    with DagsterInstance.get() as instance:
        key = AssetKey(["20143", "blocks_operated"])

        def shown():
            event = instance.get_latest_materialization_event(key)
            metadata = event.asset_materialization.metadata if event else {}
            return metadata and metadata["dataset_version"].value == str(version)

        assert until(shown)


FOLLOW = """
kind: chain_sync
name: following
chain_id: 31338
mode: {kind: follow_head, from_block: 0, head_poll_interval_seconds: 1}
streams:
  blocks_following: {cryo_dataset_name: blocks, rpc_pool: growing, chunk_size: 10}
"""


def test_a_following_job_grows_with_its_chain(stack, growing, tmp_path, monkeypatch):
    """Check that only full chunks of final blocks are planned, and that partitions appear when the head advances."""
    if growing is None:
        leave_out(EVM_NODE)
    path = tmp_path / "following.yaml"
    path.write_text(FOLLOW)
    growing.mine_empty(25)
    assert stack.cli("apply", "--file", str(path)).returncode == 0

    def stream():
        return stack.json("status", "--json", "--job", "following")["jobs"][0]["streams"][0]

    for name, value in stack.state.environment().items():
        monkeypatch.setenv(name, value)
    for final in (20, 50):
        until(lambda final=final: stream()["committed_blocks"] == final)
        found = stream()
        assert (found["done"], found["failed"], found["queued"]) == (False, 0, 0)
        assert found["eligible_end"] <= int(growing.rpc("eth_getBlockByNumber", "finalized", False)["number"], 16) + 1
        assert found["head_age_seconds"] < 60
        with DagsterInstance.get() as instance:
            assert len(instance.get_dynamic_partitions("following__10")) == final // 10
        growing.mine_empty(30)


def test_failed_ranges_are_shown_where_people_look_and_can_be_retried(stack, tmp_path):
    """Check ranges that no retry can fix, because the devchain does not serve trace_block."""
    path = job_file(tmp_path, "doomed", chain=20143, end=400, streams=("traces",), suffix="_doomed", chunk=200)
    done = stack.cli("apply", "--file", str(path), "--wait")
    assert done.returncode == 1
    assert "2 ranges failed" in done.stderr
    assert "does not support what dataset traces needs" in done.stderr
    assert "trace-lite retry --job doomed" in done.stderr

    def failed_check():
        evaluation = (check(stack, "traces_doomed") or {}).get("evaluation")
        return evaluation if evaluation and not evaluation["success"] else None

    shown = until(failed_check)
    assert "no run works on [0, 400)" in shown["description"]
    failed = next(entry for entry in shown["metadataEntries"] if entry["label"] == "failed")
    assert "does not support" in failed["mdStr"]
    done = stack.cli("retry", "--job", "doomed", "--stream", "traces_doomed", "--range", "0:100")
    assert "1 ranges are queued again" in done.stderr
    until(lambda: stack.json("status", "--json", "--job", "doomed")["jobs"][0]["streams"][0]["failed"] == 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("pause", "--job", "nope"), "no job is called 'nope'"),
        (("retry", "--job", "operated", "--stream", "nope"), "has no stream 'nope'; known: blocks_operated"),
        (("retry", "--job", "operated", "--range", "9"), "write two block numbers"),
        (("retry", "--job", "operated", "--range", "9:3"), "the end must lie after the first block"),
        (
            ("refresh", "--job", "operated", "--stream", "blocks_operated", "--range", "0:99999999999999999999"),
            "bigint",
        ),
        (("sweep", "--grace-hours", "-1"), "grace-hours"),
    ],
)
def test_wrong_arguments_are_one_clear_error(stack, operated, arguments, said):
    done = stack.cli(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_sweep_removes_what_refreshing_left_and_nothing_else(stack, operated):
    block_range = BlockRange(200, 300)
    runtime = Runtime(settings_from({**stack.environment, **stack.state.environment()}))
    try:
        dataset = runtime.jobs.stream_of("operated", "blocks_operated").dataset_uuid
        publications = Publications(runtime.database)
        before = publications.visible(dataset, block_range)
        runtime.store.delete([file.key for file in publications.files(before)])
        arguments = ("--job", "operated", "--stream", "blocks_operated", "--range", "200:300")
        assert "1 ranges are queued again" in stack.cli("refresh", *arguments).stderr
        until(lambda: publications.visible(dataset, block_range).generation == before.generation + 1)
    finally:
        runtime.close()
    dry = stack.json("sweep", "--dry-run", "--grace-hours", "0", "--json")
    real = stack.json("sweep", "--grace-hours", "0", "--json")
    assert {**dry, "dry_run": False} == real
    assert real["objects_removed"] >= 1
    assert stack.json("sweep", "--grace-hours", "0", "--json")["objects_removed"] == 0
    assert stack.count("blocks_operated") == job(stack)["streams"][0]["committed_blocks"]
