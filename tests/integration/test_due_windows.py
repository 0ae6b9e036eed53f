"""Due windows and the runs that sensor and schedules request for them: real registry, made-up rows."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from dagster import (
    DagsterInstance,
    DagsterRunStatus,
    DynamicPartitionsDefinition,
    build_schedule_context,
    build_sensor_context,
    materialize,
)
from dagster._core.test_utils import create_run_for_test

from tests.support.committed import FULL, commit_rows, made_up_rows
from tests.support.compaction import visible_rows
from tests.support.registry import apply, job_text
from trace_dagster.blocks import BlockRange
from trace_dagster.cli import compaction
from trace_dagster.compaction.compactor import CompactionOutcome, Compactor
from trace_dagster.compaction.due import DueWindows
from trace_dagster.compaction.run import CompactionRunner
from trace_dagster.compaction.status import stream_files
from trace_dagster.config.settings import Settings
from trace_dagster.dagster_instance.storage import TraceDagsterStorage
from trace_dagster.defs.build import definitions_of
from trace_dagster.defs.compaction import compacted_asset, compacted_key
from trace_dagster.defs.compaction_partitions import repair_windows, report_layouts
from trace_dagster.defs.compaction_triggers import compaction_schedules, compaction_sensor
from trace_dagster.defs.streams import RUNTIME
from trace_dagster.errors import InvalidInput
from trace_dagster.planning.compactions import compaction_groups, windows_name
from trace_dagster.registry.forks import Forks
from trace_dagster.registry.jobs import Jobs
from trace_dagster.registry.layouts import Layouts, WindowLease

pytestmark = pytest.mark.integration

TWO = "blocks: {cryo_dataset_name: blocks}\n  logs: {cryo_dataset_name: logs}"
CRON = TWO.replace("name: logs}", "name: logs, compact: {cron: '0 3 * * *'}}")


def job(streams: str = TWO, *, to_block: int = 1000, files: int = 3) -> str:
    """Return a job with windows of ``files`` ranges of 100 blocks."""
    text = job_text(to_block=to_block, streams=streams)
    return text.replace("rpc_pool: none", f"rpc_pool: none, compact: {{after_files: {files}}}")


@pytest.fixture
def instance(postgres_url, tmp_path):
    """Return a Dagster instance whose event log is ours."""
    storage = TraceDagsterStorage(postgres_url)
    with DagsterInstance.ephemeral(tempdir=str(tmp_path)) as made:
        made._event_storage = storage.event_log_storage
        made._event_storage.register_instance(made)
        yield made


@pytest.fixture
def runtime(database, store, s3):
    """Return what the triggers use of a runtime."""
    due = DueWindows(database)
    return SimpleNamespace(
        database=database,
        jobs=Jobs(database),
        due_windows=due,
        compaction=CompactionRunner(Compactor(database, store), due),
        settings=SimpleNamespace(s3=s3),
    )


def commit(database, store, stream, *starts):
    for start in starts:
        commit_rows(database, store, stream, BlockRange(start, start + 100), FULL)


def spans(states):
    return [(state.block_range.start, state.block_range.end) for state in states]


def test_a_window_is_due_when_its_last_range_is_committed(database, store, runtime):
    logs = apply(database, job())["logs"]
    commit(database, store, logs, 0, 100, 300, 400, 500, 900)
    assert spans(runtime.due_windows.due(logs, limit=10)) == [(300, 600)]
    commit(database, store, logs, 200)
    assert spans(runtime.due_windows.due(logs, limit=10)) == [(0, 300), (300, 600)]
    assert spans(runtime.due_windows.due(logs, limit=1)) == [(0, 300)]
    assert (
        runtime.due_windows.due(apply(database, job(TWO.replace("logs}", "logs, compact: off}")))["logs"], limit=9)
        == []
    )


def test_a_window_that_one_range_fills_is_not_due(database, store, runtime):
    logs = apply(database, job())["logs"]  # the last window is cut short by to_block
    commit(database, store, logs, 900)
    assert runtime.due_windows.due(logs, limit=10) == []


def test_held_and_failed_windows_wait(database, store, runtime):
    logs = apply(database, job())["logs"]
    commit(database, store, logs, *range(0, 600, 100))
    layouts = Layouts(database)
    held = layouts.claim(logs.dataset_uuid, BlockRange(0, 300))
    assert isinstance(held, WindowLease)
    assert spans(runtime.due_windows.due(logs, limit=10)) == [(300, 600)]
    assert spans(runtime.due_windows.due(logs, limit=10, manual=True)) == [(300, 600)]
    layouts.end(held, error="the store does not answer")
    assert spans(runtime.due_windows.due(logs, limit=10)) == [(300, 600)]
    assert spans(runtime.due_windows.due(logs, limit=10, manual=True)) == [(0, 300), (300, 600)]
    with database.connection() as connection:
        connection.execute("update trace.compactions set not_before = now()")
    assert spans(runtime.due_windows.due(logs, limit=10)) == [(0, 300), (300, 600)]


def requested(evaluation) -> list[tuple[str, str, str, list[str]]]:
    """Return trigger, blocks, job and assets of requested runs."""
    return [
        (
            request.tags["trace/compaction"],
            request.tags["trace/blocks"],
            request.job_name,
            ["/".join(key.path) for key in request.asset_selection],
        )
        for request in evaluation.run_requests
    ]


def groups_and_jobs(runtime):
    streams = runtime.jobs.streams()
    defs = definitions_of(streams, Settings.read({}).model_copy())
    groups = list(compaction_groups(streams))
    return groups, [defs.resolve_job_def(group.name) for group in groups]


def test_the_sensor_requests_one_run_over_neighbouring_windows_of_all_streams(database, store, runtime, instance):
    for stream in apply(database, job()).values():
        commit(database, store, stream, *range(0, 600, 100))
    groups, jobs = groups_and_jobs(runtime)
    sensor = compaction_sensor(lambda: runtime, groups, jobs)
    found = sensor.evaluate_tick(build_sensor_context(instance, definitions=None))
    assert requested(found) == [
        ("threshold", "0-600", "compact__job", ["99/blocks/blocks_compacted", "99/logs/logs_compacted"]),
    ]
    assert instance.get_dynamic_partitions("job__300__windows") == [
        BlockRange(*span).key for span in ((0, 300), (300, 600), (600, 900), (900, 1000))
    ]
    create_run_for_test(instance, job_name="compact__job", status=DagsterRunStatus.STARTED)
    again = sensor.evaluate_tick(build_sensor_context(instance, definitions=None))
    assert requested(again) == [], "one run at a time is enough"


def test_a_stream_with_a_cron_is_left_to_its_schedule(database, store, runtime, instance):
    for stream in apply(database, job(CRON)).values():
        commit(database, store, stream, *range(0, 300, 100))
    groups, jobs = groups_and_jobs(runtime)
    sensor = compaction_sensor(lambda: runtime, groups, jobs)
    found = sensor.evaluate_tick(build_sensor_context(instance, definitions=None))
    assert requested(found) == [("threshold", "0-300", "compact__job", ["99/blocks/blocks_compacted"])]
    (schedule,) = compaction_schedules(lambda: runtime, groups, jobs)
    assert (schedule.name, schedule.cron_schedule) == ("compact__job__at_0_3_x_x_x", "0 3 * * *")
    context = build_schedule_context(instance)
    context._instance, context._instance_ref = instance, instance  # an ephemeral instance has no reference
    ticked = schedule.evaluate_tick(context)
    assert requested(ticked) == [("schedule", "0-300", "compact__job", ["99/logs/logs_compacted"])]


def test_a_paused_job_is_not_compacted_by_itself(database, store, runtime, instance):
    logs = apply(database, job())["logs"]
    commit(database, store, logs, *range(0, 300, 100))
    groups, jobs = groups_and_jobs(runtime)
    runtime.jobs.set_enabled("job", False)
    sensor = compaction_sensor(lambda: runtime, groups, jobs)
    assert requested(sensor.evaluate_tick(build_sensor_context(instance, definitions=None))) == []


def test_partitions_follow_the_settings(database, store, runtime, instance):
    apply(database, job(to_block=600))
    (group,) = compaction_groups(runtime.jobs.streams())
    repair_windows(runtime, group, instance)
    apply(database, job(to_block=500))
    (group,) = compaction_groups(runtime.jobs.streams())
    repair_windows(runtime, group, instance)
    assert instance.get_dynamic_partitions("job__300__windows") == [BlockRange(0, 300).key, BlockRange(300, 500).key]


def compacted(runtime, stream, start, end):
    return runtime.compaction.compact(stream, BlockRange(start, end), manual=True)


def test_a_window_that_was_compacted_is_due_again_only_when_enough_of_it_changed(database, store, runtime):
    logs = apply(database, job())["logs"]
    commit(database, store, logs, *range(0, 600, 100))
    assert compacted(runtime, logs, 0, 300).outcome is CompactionOutcome.COMPACTED
    assert spans(runtime.due_windows.due(logs, limit=10)) == [(300, 600)]
    assert compacted(runtime, logs, 300, 600).outcome is CompactionOutcome.COMPACTED
    assert runtime.due_windows.due(logs, limit=10) == []
    for start in (0, 100):
        replace_range(database, store, logs, start)
    assert spans(runtime.due_windows.due(logs, limit=10)) == [(0, 300)]


def replace_range(database, store, stream, start):
    """Commit a next generation of a range, with other rows."""
    span = BlockRange(start, start + 100)
    (row,) = rows_of(
        database,
        "select dataset_version from trace.dataset_versions"
        f" where visible and dataset_uuid = '{stream.dataset_uuid}' and lower(block_range) = {start}",
    )
    Forks(database).invalidate([row["dataset_version"]], "a test")
    commit_rows(database, store, stream, span, FULL, made_up_rows(stream, span, address=b"\x11" * 20))


def test_another_threshold_compacts_only_what_is_left(database, store, runtime):
    logs = apply(database, job())["logs"]
    commit(database, store, logs, *range(0, 1000, 100))
    compacted(runtime, logs, 0, 300)
    before = visible_rows(database, store, logs)
    wider = apply(database, job(files=10))["logs"]
    (state,) = runtime.due_windows.due(wider, limit=10)
    assert spans([state]) == [(300, 1000)]
    assert compacted(runtime, wider, 300, 1000).versions == 7
    assert runtime.due_windows.due(wider, limit=10) == []
    assert visible_rows(database, store, wider).equals(before)
    assert [(window.start, window.end) for window in runtime.due_windows.windows(wider)] == [(0, 300), (300, 1000)]


def test_a_failure_is_not_shown_any_more_once_another_window_has_its_blocks(database, store, runtime):
    logs = apply(database, job())["logs"]
    commit(database, store, logs, *range(0, 1000, 100))
    lease = Layouts(database).claim(logs.dataset_uuid, BlockRange(0, 300))
    Layouts(database).end(lease, error="no answer")
    assert stream_files(database, runtime.due_windows, logs).windows_failed == 1
    wider = apply(database, job(files=10))["logs"]
    assert compacted(runtime, wider, 0, 1000).outcome is CompactionOutcome.COMPACTED
    found = stream_files(database, runtime.due_windows, wider)
    assert (found.windows_failed, found.last_reason) == (0, None)


def test_a_window_that_is_not_committed_says_its_holes(database, store, runtime):
    logs = apply(database, job())["logs"]
    commit(database, store, logs, 0, 200)
    with pytest.raises(InvalidInput, match=r"window \[0, 300\) of logs cannot be compacted yet: .*\[100, 200\)"):
        compacted(runtime, logs, 0, 300)
    with pytest.raises(InvalidInput, match="blocks 0-200 are no window of logs; its windows with such blocks: 0-300"):
        compacted(runtime, logs, 0, 200)


def test_a_window_that_loses_a_range_meanwhile_stops_no_other(database, store, runtime, monkeypatch):
    logs = apply(database, job())["logs"]
    commit(database, store, logs, *range(0, 600, 100))
    compact = type(runtime.compaction).compact

    def after_a_repair(*given, **options):
        if not repaired:
            repaired.append(1)
            (row,) = rows_of(
                database, "select dataset_version from trace.dataset_versions where lower(block_range) = 100"
            )
            Forks(database).invalidate([row["dataset_version"]], "a test")
        return compact(*given, **options)

    repaired: list[int] = []
    monkeypatch.setattr(type(runtime.compaction), "compact", after_a_repair)
    monkeypatch.setattr(compaction, "opened", lambda settings: nullcontext(runtime))
    found = compaction.compact_windows(
        runtime.settings, "job", "logs", None, dry_run=False, progress=lambda total: lambda: None
    )
    assert [(each.block_range.start, each.outcome) for each in found] == [(0, "not_whole"), (300, "compacted")]
    assert "[100, 200)" in found[0].reason
    assert compaction.exit_code(found) == 0


def test_the_asset_compacts_its_partitions_and_shows_the_numbers(database, store, runtime, instance):
    logs = apply(database, job())["logs"]
    commit(database, store, logs, *range(0, 300, 100))
    before = visible_rows(database, store, logs)
    (group,) = compaction_groups([logs])
    repair_windows(runtime, group, instance)
    found = run_asset(runtime, logs, instance, BlockRange(0, 300))
    assert found.success
    (event,) = found.get_asset_materialization_events()
    metadata = event.materialization.metadata
    assert (metadata["files_before"].value, metadata["files_after"].value, metadata["ranges"].value) == (3, 1, 3)
    assert metadata["rows"].value == before.num_rows
    assert 1 < metadata["write_amplification"].value <= 3
    assert store.get(metadata["manifest"].value.partition(f"{runtime.settings.s3.bucket}/")[2])
    assert visible_rows(database, store, logs).equals(before)
    assert instance.get_materialized_partitions(compacted_key(99, "logs")) == {BlockRange(0, 300).key}
    again = run_asset(runtime, logs, instance, BlockRange(0, 300))
    assert again.success
    assert again.get_asset_materialization_events() == []


def run_asset(runtime, stream, instance, window):
    asset = compacted_asset(stream, DynamicPartitionsDefinition(name=windows_name(stream)))
    return materialize(
        [asset], partition_key=window.key, instance=instance, resources={RUNTIME: runtime}, raise_on_error=False
    )


def test_a_window_that_fails_shows_why_on_its_partition_and_in_the_status(database, store, runtime, instance):
    logs = apply(database, job())["logs"]
    commit(database, store, logs, *range(0, 300, 100))
    store.delete([row["file_key"] for row in rows_of(database, "select file_key from trace.files limit 1")])
    (group,) = compaction_groups([logs])
    repair_windows(runtime, group, instance)
    found = run_asset(runtime, logs, instance, BlockRange(0, 300))
    assert not found.success
    (record,) = instance.fetch_observations(compacted_key(99, "logs"), limit=10).records
    observed = record.event_log_entry.dagster_event.event_specific_data.asset_observation
    assert observed.partition == BlockRange(0, 300).key
    assert "not compacted: " in observed.description
    assert "`trace-lite compact --job job --stream logs`" in observed.metadata["next"].value
    standing = stream_files(database, runtime.due_windows, logs)
    assert (standing.files, standing.uncompacted_files, standing.windows_due, standing.windows_failed) == (3, 3, 0, 1)
    assert standing.last_reason.startswith("window [0, 300): ")


def rows_of(database, sql):
    with database.connection() as connection:
        return connection.execute(sql).fetchall()


def test_windows_that_the_command_line_compacted_are_reported(database, store, runtime, instance):
    logs = apply(database, job())["logs"]
    commit(database, store, logs, *range(0, 300, 100))
    result = compacted(runtime, logs, 0, 300)
    report_layouts(runtime, logs, instance)
    report_layouts(runtime, logs, instance)
    (record,) = instance.fetch_materializations(compacted_key(99, "logs"), limit=10).records
    shown = record.asset_materialization
    assert (shown.partition, shown.metadata["layout_id"].value) == (BlockRange(0, 300).key, str(result.layout_id))
    standing = stream_files(database, runtime.due_windows, logs)
    assert (standing.files, standing.uncompacted_files, standing.windows_compacted) == (1, 0, 1)
    assert standing.average_file_bytes == result.bytes_after
