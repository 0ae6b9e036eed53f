"""Due windows and the runs that sensor and schedules request for them: real registry, made-up rows."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from dagster import DagsterInstance, DagsterRunStatus, build_schedule_context, build_sensor_context
from dagster._core.test_utils import create_run_for_test

from tests.support.committed import FULL, commit_rows
from tests.support.registry import apply, job_text
from trace_dagster.blocks import BlockRange
from trace_dagster.compaction.due import DueWindows
from trace_dagster.config.settings import Settings
from trace_dagster.dagster_instance.storage import TraceDagsterStorage
from trace_dagster.defs.build import definitions_of
from trace_dagster.defs.compaction_partitions import repair_windows
from trace_dagster.defs.compaction_triggers import compaction_schedules, compaction_sensor
from trace_dagster.planning.compactions import compaction_groups
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
        yield made


@pytest.fixture
def runtime(database, s3):
    """Return what the triggers use of a runtime."""
    return SimpleNamespace(
        database=database,
        jobs=Jobs(database),
        due_windows=DueWindows(database),
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
        ("threshold", "0-600", "compact__job", ["99/blocks/compacted", "99/logs/compacted"]),
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
    assert requested(found) == [("threshold", "0-300", "compact__job", ["99/blocks/compacted"])]
    (schedule,) = compaction_schedules(lambda: runtime, groups, jobs)
    assert (schedule.name, schedule.cron_schedule) == ("compact__job__at_0_3_x_x_x", "0 3 * * *")
    context = build_schedule_context(instance)
    context._instance, context._instance_ref = instance, instance  # an ephemeral instance has no reference
    ticked = schedule.evaluate_tick(context)
    assert requested(ticked) == [("schedule", "0-300", "compact__job", ["99/logs/compacted"])]


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
