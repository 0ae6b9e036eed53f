"""A fault at every point of a compaction and the sweep after it, in every way: no row is lost, doubled or unproven."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
from contextlib import contextmanager, suppress

import pytest

from tests.support.clock import advance
from tests.support.committed import FULL, commit_rows, made_up_rows
from tests.support.compaction import files_of, visible_rows, window_of
from tests.support.registry import apply, assert_registry_sound, job_text
from tests.support.tripwire import Tripwire
from trace_dagster import manifest
from trace_dagster.blocks import BlockRange
from trace_dagster.compaction import hash_index
from trace_dagster.compaction.compactor import CompactionOutcome, Compactor
from trace_dagster.errors import TraceError
from trace_dagster.maintenance.sweep import sweep
from trace_dagster.registry.connection import Database
from trace_dagster.registry.jobs import Jobs
from trace_dagster.store.access import S3Access
from trace_dagster.store.objects import ObjectStore

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

FULL_MATRIX = bool(os.environ.get("TRACE_FAULTS_FULL"))
CHUNK = 20
RANGES = 3
SPAN = BlockRange(0, CHUNK * RANGES)

_chains = itertools.count(5000)
_spawning = multiprocessing.get_context("forkserver")


def turn(database: Database, store: ObjectStore) -> CompactionOutcome:
    """Compact the window, and sweep at once what no link names any more."""
    (stream,) = Jobs(database).streams()
    result = Compactor(database, store).compact(window_of(stream, SPAN.start, SPAN.end))
    sweep(database, store, grace_seconds=0, dry_run=False)
    return result.outcome


def one_turn(url: str, access: S3Access, at: int) -> None:
    """Run a turn that is killed at a point, in a separate process."""
    database = Database(url)
    with Tripwire(at, "kill").strung():
        turn(database, ObjectStore(access))
    os._exit(0)


@contextmanager
def fresh(registry: str, store: ObjectStore):
    """Empty the registry and commit a window of ranges of another chain, of which one was compacted and replaced."""
    database = Database(registry)
    try:
        with database.connection() as connection:
            tables = connection.execute(
                "select string_agg(format('trace.%I', tablename), ', ') as all from pg_tables"
                " where schemaname = 'trace' and tablename <> 'migrations'"
            ).fetchone()
            connection.execute(f"truncate {tables['all']} cascade")
        text = job_text(to_block=SPAN.end, chunk=CHUNK, streams="logs: {cryo_dataset_name: logs}")
        stream = apply(database, text.replace("chain_id: 99", f"chain_id: {next(_chains)}"))["logs"]
        for start in range(0, SPAN.end, CHUNK):
            commit_rows(database, store, stream, BlockRange(start, start + CHUNK), FULL)
        Compactor(database, store).compact(window_of(stream, SPAN.start, SPAN.end))
        for start in range(0, SPAN.end - CHUNK, CHUNK):
            span = BlockRange(start, start + CHUNK)
            rows = made_up_rows(stream, span, address=b"\x11" * 20)
            commit_rows(database, store, stream, span, FULL, rows)
        yield database, stream, visible_rows(database, store, stream)
    finally:
        database.close()


def recover(database: Database, store: ObjectStore, stream, rows) -> None:
    """Let other processes continue after enough time; then one file has all rows, and nothing else is left."""
    assert_registry_sound(database, store)
    assert same_rows(visible_rows(database, store, stream), rows)
    for _ in range(4):
        advance(database, 700)
        turn(database, store)
        if not any(left_over(database, store, stream)):
            break
    assert_registry_sound(database, store)
    assert same_rows(visible_rows(database, store, stream), rows)
    assert left_over(database, store, stream) == [0, 0, 0, 0]


def left_over(database: Database, store: ObjectStore, stream) -> list[int]:
    """Return the numbers of leases, running attempts, files too many, and objects of layouts that nobody reads."""
    files = files_of(database, stream)
    layouts = {key for key in store.keys(f"cryo/{stream.chain_id}/") if "/layout/" in key}
    besides = (manifest.FILE_NAME, hash_index.FILE_NAME)
    used = {*files, *(f"{key.rpartition('/')[0]}/{name}" for key in files for name in besides)}
    with database.connection() as connection:
        held = connection.execute(
            "select (select count(*) from trace.compactions where lease_token is not null or error is not null) as n,"
            " (select count(*) from trace.layout_attempts where ended_at is null) as running"
        ).fetchone()
    return [held["n"], held["running"], len(files) - 1, len(layouts - used)]


def same_rows(one, other) -> bool:
    return sorted(map(str, one.to_pylist())) == sorted(map(str, other.to_pylist()))


@pytest.fixture(scope="module")
def points(registry, bucket) -> list[str]:
    """Return the points of a turn without faults."""
    store = ObjectStore(bucket)
    with fresh(registry, store) as (database, stream, rows):
        wire = Tripwire()
        with wire.strung():
            assert turn(database, store) is CompactionOutcome.COMPACTED
        recover(database, store, stream, rows)
    return wire.passed


def test_the_points_are_all_there(points):
    """Check that each collaborator call of the protocol is a point, so that a renamed one is not left out."""
    expected = {
        *(f"before sql {name}" for name in ("start_compaction", "versions_of_window", "plan_compaction")),
        *(f"before sql {name}" for name in ("fence_compaction", "lock_versions", "insert_layout", "replace_links")),
        *(f"before sql {name}" for name in ("mask_moved_versions", "insert_layout_file", "end_compaction")),
        *(f"before sql {name}" for name in ("insert_file_summary", "insert_hash_index")),
        *(f"before sql {name}" for name in ("insert_change", "abandon_compactions", "drop_replaced_links")),
        *(f"before sql {name}" for name in ("drop_unlinked_layout_files", "referenced_layout_objects")),
        *(f"{when} {name}" for when in ("before", "after") for name in ("read", "finish", "put_if_absent")),
        *(f"{when} {name}" for when in ("before", "after") for name in ("commit", "delete")),
    }
    assert expected <= set(points)


def survives(number: int, how: str, registry: str, bucket: S3Access) -> None:
    store = ObjectStore(bucket)
    with fresh(registry, store) as (database, stream, rows):
        if how == "kill":
            child = _spawning.Process(target=one_turn, args=(registry, bucket, number))
            child.start()
            child.join(60)
            assert child.exitcode == -signal.SIGKILL
        else:
            with Tripwire(number, how).strung(), suppress(TraceError):
                turn(database, store)
        recover(database, store, stream, rows)


@pytest.mark.parametrize("how", ["raise", "kill"])
def test_a_fault_at_any_point_loses_and_doubles_nothing(how, points, registry, bucket):
    _spawning.set_forkserver_preload(["tests.support.warm"])
    broken = []
    tried = list(enumerate(points))
    if not FULL_MATRIX:  # each point one time, in one of the two ways
        tried = tried[how == "kill" :: 2]
    for number, name in tried:
        try:
            survives(number, how, registry, bucket)
        except Exception as error:
            broken.append(f"{how} at {number} ({name}): {type(error).__name__}: {str(error)[:300]}")
    print(f"{how}: {len(tried)} points, {len(broken)} not survived")
    assert broken == [], "\n".join(broken)


def test_the_harness_notices_a_broken_protocol(registry, bucket, monkeypatch):
    """Check that the harness detects a swap that leaves the old links in place."""
    from trace_dagster.registry import layouts

    store = ObjectStore(bucket)
    with fresh(registry, store) as (database, stream, rows):
        with monkeypatch.context() as patched:
            patched.setattr(layouts, "_require_same_files", lambda *_: None)
            run = layouts.Session.all
            patched.setattr(
                layouts.Session, "all", lambda *args, **kw: [] if args[1] == "replace_links" else run(*args, **kw)
            )
            turn(database, store)
        with pytest.raises(AssertionError):
            recover(database, store, stream, rows)
