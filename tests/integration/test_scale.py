"""Hot statements read the work that is left and not the committed ranges: their query plans are asserted."""

from __future__ import annotations

import json
from contextlib import closing, contextmanager
from uuid import uuid4

import psycopg
import pytest

from tests.support.filled import CHUNK, commit_range, fill, show_head, streams_of, vacuum
from trace_dagster.blocks import BlockRange
from trace_dagster.identity import LAKE_FORM
from trace_dagster.lite.postgres import dsn
from trace_dagster.planning.planner import Planner
from trace_dagster.registry.catalog import Catalog
from trace_dagster.registry.connection import Database
from trace_dagster.registry.forks import Forks
from trace_dagster.registry.jobs import Jobs
from trace_dagster.registry.queries import query

pytestmark = pytest.mark.integration

RANGES = 1000
WAITING = 3
"""Ranges per stream that are planned and not committed."""

ROWS_READ = 100
"""More than the uncommitted ranges of all streams, far less than the committed ones of one."""

MASS = {"tasks", "attempts", "dataset_versions", "files", "version_files", "outbox", "changes"}
"""Tables with a row or more per committed range."""

HOT = (
    "active_ranges",
    "queued_count",
    "unsent_wakeups",
    "overdue_tasks",
    "launchable_tasks",
    "woken_tasks",
    "tasks_left",
    "waiting_tasks",
    "lock_task",
    "claim_terms",
    "expire_attempt",
    "start_attempt",
    "heartbeat",
    "fence",
    "fork_conflicts",
    "visible_version",
    "hide_versions",
    "finish_attempt",
    "insert_change",
    "end_attempt",
    "version_of_attempt",
    "files_of_version",
    "evidence_files",
    "visible_datasets",
    "visible_files",
    "names_of_files",
    "layout_files",
    "covered_ranges",
    "working_ranges",
    "failed_ranges",
    "failed_tasks",
    "stream_counts",
    "unconfirmed_commits",
    "mark_sent",
    "abandon_attempts",
    "silent_attempts",
    "replaced_versions",
    "retire_versions",
    "drop_unlinked_files",
    "tasks_of_range",
    "retired_manifests",
    "ended_attempts",
    "referenced_objects",
    "delete_old_attempts",
    "delete_old_outbox",
    "delete_old_changes",
    "changes_after",
    "last_change",
    "change_of_cursor",
    "foreign_changes",
    "touching_compactions",
    "end_lapsed_compactions",
    "fence_compaction",
    "compacted_windows",
    "waiting_windows",
    "failed_windows",
    "window_states",
    "holes_of_window",
    "versions_of_window",
    "lock_versions",
    "replace_links",
    "mask_moved_versions",
    "silent_compactions",
    "abandon_compactions",
    "replaced_links",
    "drop_replaced_links",
    "drop_unlinked_layout_files",
    "drop_unused_hash_indexes",
    "lock_compaction",
    "known_layouts",
    "referenced_layout_objects",
)
"""Every statement of a tick, a claim, a beat, a commit, a status, a snapshot of one range, a sweep, a reader of
changes, the search for due windows, and a compaction of a window of one range.
"""

PER_RANGE = HOT[HOT.index("lock_task") : HOT.index("evidence_files") + 1]
"""Those of a claim, a beat and a commit."""


@contextmanager
def registry(postgres, template_database, name):
    """Return an empty registry in a database of this name."""
    port, password = postgres
    with psycopg.connect(dsn(port, password, "postgres"), autocommit=True) as connection:
        connection.execute(f"create database {name} template {template_database}")
    with closing(Database(dsn(port, password, name))) as database:
        yield database


@pytest.fixture(scope="module")
def filled(postgres, template_database):
    """Return a registry with 5 x RANGES committed and a few waiting ranges.

    Statements in it are explained and rolled back.
    """
    with registry(postgres, template_database, "scale") as database:
        streams = fill(database, RANGES)
        show_head(database, streams[0], (RANGES + WAITING) * CHUNK)
        Planner(database, Jobs(database)).plan()
        vacuum(database)
        yield database, streams_of(Jobs(database), "filled")


@pytest.fixture(scope="module")
def unknown(postgres, template_database):
    """Return the same registry with a job that was added after the statistics were gathered."""
    with registry(postgres, template_database, "unknown") as database:
        with database.connection() as connection:
            for table in sorted(MASS):
                connection.execute(f"alter table trace.{table} set (autovacuum_enabled = false)")
        fill(database, 3, name="known")
        fill(database, RANGES, name="late", analyzed=False)
        yield database, streams_of(Jobs(database), "late")


def values_for(database, stream) -> dict[str, object]:
    """Return a value for each parameter of the hot statements: the last committed range of a stream, its task and
    files.
    """
    with database.connection() as connection:
        found = connection.execute(
            "select v.task_id, v.dataset_version, a.lease_token, l.file_key from trace.dataset_versions v"
            " join trace.attempts a using (task_id, attempt) join trace.version_files l using (dataset_version)"
            " where v.dataset_uuid = %s and lower(v.block_range) = %s",
            [stream.dataset_uuid, (RANGES - 1) * CHUNK],
        ).fetchone()
        outbox = connection.execute("select outbox_id from trace.outbox limit 1").fetchone()
        change = connection.execute("select xid::text, change_id from trace.changes limit 1").fetchone()
    return {
        **found,
        "dataset_uuid": stream.dataset_uuid,
        "dataset_uuids": [stream.dataset_uuid],
        "job_id": stream.job_id,
        "org_id": stream.org_id,
        "batch_id": found["task_id"],
        "task_ids": [found["task_id"]],
        "file_keys": [found["file_key"]],
        "outbox_ids": [outbox["outbox_id"]],
        "attempt": 1,
        "generation": 0,
        "state": "committed",
        "error": None,
        "range_start": (RANGES - 1) * CHUNK,
        "range_end": RANGES * CHUNK,
        "starts": [n * CHUNK for n in range(RANGES - 60, RANGES, 3)],
        "ends": [(n + 3) * CHUNK for n in range(RANGES - 60, RANGES, 3)],
        "span": f"[{(RANGES - 1) * CHUNK},{RANGES * CHUNK})",
        "blocks": f"{{[{(RANGES - 1) * CHUNK},{RANGES * CHUNK})}}",
        "times": "{(,)}",
        "form": LAKE_FORM,
        "first_parent_hash": b"\xab" * 32,
        "last_block_hash": b"\xab" * 32,
        "sources": ["blocks", "transactions"],
        "whole": False,
        "dry_run": False,
        "kind": "committed",
        "layout_id": None,
        "block_hash": None,
        "reason": None,
        "xid": str(change["xid"]),
        "change_id": change["change_id"],
        "days": 30,
        "limit": 10,
        "newest_first": True,
        "ttl_seconds": 60,
        "patience_seconds": 60,
        "older_than_seconds": 0,
        "grace_seconds": 86_400,
        "base_seconds": 60,
        "longest_seconds": 3600,
        "versions": [found["dataset_version"]],
    }


def explained(database, name, values) -> dict:
    """Return the plan of an executed statement. Its changes are rolled back."""
    with database.connection() as connection, connection.transaction(force_rollback=True):
        row = connection.execute(f"explain (analyze, format json) {query(name)}", values).fetchone()
    plan = row["QUERY PLAN"]
    return (plan if isinstance(plan, list) else json.loads(plan))[0]["Plan"]


def nodes(plan):
    """Yield every node of a plan."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def rows_read(node) -> float:
    """Return the number of rows that a scan read: those it returned and those it filtered out."""
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return (node["Actual Rows"] + removed) * node["Actual Loops"]


@pytest.mark.parametrize("name", HOT)
def test_a_hot_statement_does_not_read_what_is_committed(filled, name):
    guard(filled, name)


@pytest.mark.parametrize("name", PER_RANGE)
def test_nor_does_one_of_each_range_before_the_statistics_know_its_job(unknown, name):
    guard(unknown, name)


def test_a_claim_does_not_read_what_is_queued(postgres, template_database):
    with registry(postgres, template_database, "queued") as database:
        with database.connection() as connection:
            connection.execute("alter table trace.tasks set (autovacuum_enabled = false)")
        fill(database, 3, name="known")
        streams = fill(database, RANGES, name="late", analyzed=False)
        show_head(database, streams[0], 2 * RANGES * CHUNK)
        Planner(database, Jobs(database)).plan()
        for name in ("lock_task", "claim_terms"):
            guard((database, streams_of(Jobs(database), "late")), name)


@pytest.mark.parametrize("name", ["names_of_all_files", "blocks_of_times"])
def test_all_files_of_a_dataset_are_found_without_its_versions_rows(filled, name):
    """A version's row has 1.8 KB: an index holds what opening a query reads of it."""
    database, streams = filled
    found = nodes(explained(database, name, values_for(database, streams[-1])))
    (scan,) = [node for node in found if node.get("Alias") == "v"]
    assert (scan["Node Type"], scan["Index Name"]) == ("Index Only Scan", "versions_visible")


def test_neighbours_are_found_by_their_boundary_alone(unknown):
    """Before, an index that begins with the dataset was read whole for each commit: 23,000 versions."""
    database, streams = unknown
    found = nodes(explained(database, "fork_conflicts", values_for(database, streams[-1])))
    used = {node["Index Name"] for node in found if "versions" in node.get("Index Name", "")}
    assert used == {"versions_by_end", "versions_by_first"}


def guard(found_in, name):
    """Assert that rows of a large table are read through an index, and that they are few."""
    database, streams = found_in
    values = values_for(database, streams[-1])
    if name == "start_attempt":
        values |= {"attempt": 2, "lease_token": uuid4(), "run_id": "next"}
    found = list(nodes(explained(database, name, values)))
    scans = [node for node in found if node.get("Relation Name") in MASS and "Scan" in node["Node Type"]]
    assert [node["Relation Name"] for node in scans if node["Node Type"] == "Seq Scan"] == []
    assert max((rows_read(node) for node in found if "Scan" in node["Node Type"]), default=0) <= ROWS_READ


def test_the_guard_sees_a_missing_index(filled):
    database, streams = filled
    values = values_for(database, streams[0])
    with database.connection() as connection, connection.transaction(force_rollback=True):
        connection.execute("drop index trace.tasks_unfinished, trace.tasks_queued, trace.tasks_by_dataset_state")
        plan = connection.execute(f"explain (format json) {query('overdue_tasks')}", values).fetchone()["QUERY PLAN"]
    assert any(node["Node Type"] == "Seq Scan" and node["Relation Name"] == "tasks" for node in nodes(plan[0]["Plan"]))


TOTALS = """
select dataset_uuid, coalesce(verification ->> 'level', 'off') as level, count(*) as ranges,
       sum(row_count)::bigint as row_count, sum(byte_count)::bigint as byte_count,
       range_agg(block_range)::text as blocks
from trace.dataset_versions where visible group by 1, 2 order by 1, 2
"""
KEPT = """
select dataset_uuid, level, ranges, row_count, byte_count, blocks::text as blocks
from trace.visible_totals where ranges > 0 order by 1, 2
"""


def test_kept_totals_are_what_counting_gives(database):
    streams = fill(database, 10)
    _same_totals(database)
    show_head(database, streams[0], 12 * CHUNK)
    Planner(database, Jobs(database)).plan()
    commit_range(database, streams[0], BlockRange(11 * CHUNK, 12 * CHUNK))
    _same_totals(database)
    with database.connection() as connection:
        hidden = connection.execute(
            "select dataset_version from trace.dataset_versions where lower(block_range) = %s", [11 * CHUNK]
        ).fetchone()
    assert Forks(database).invalidate([hidden["dataset_version"]], "another fork") == 1
    _same_totals(database)
    with (
        database.connection() as connection
    ):  # these rows are proven to a lower level, so the sums move from one level to the other
        connection.execute(
            "update trace.dataset_versions set verification = jsonb_build_object('level', 'structural')"
            " where lower(block_range) < %s",
            [5 * CHUNK],
        )
    _same_totals(database)
    assert Catalog(database).committed_ranges(streams[0].dataset_uuid) == [BlockRange(0, 10 * CHUNK)]


def _same_totals(database) -> None:
    with database.connection() as connection:
        counted = connection.execute(TOTALS).fetchall()
        assert connection.execute(KEPT).fetchall() == counted
        assert counted
