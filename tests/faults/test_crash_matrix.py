"""A fault at every point of a turn, in every way; then other processes recover, and no range is lost, duplicate
or partial.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
from contextlib import contextmanager, suppress

import pytest

from tests.support.clock import advance
from tests.support.cycle import Cycle
from tests.support.registry import apply, assert_registry_sound, job_text, keys_of, rows_of
from tests.support.tripwire import Tripwire
from trace_dagster.errors import TraceError
from trace_dagster.registry.connection import Database
from trace_dagster.store.access import S3Access
from trace_dagster.store.objects import ObjectStore

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

FULL = bool(os.environ.get("TRACE_FAULTS_FULL"))
RANGES = 2 if FULL else 1
CHUNK = 20
STREAMS = "blocks: {cryo_dataset_name: blocks}"
TURNS_TO_RECOVER = 6

_chains = itertools.count(1000)
_spawning = multiprocessing.get_context("forkserver")


def one_turn(url: str, access: S3Access, at: int) -> None:
    """Run a turn that is killed at a point, in a separate process."""
    database = Database(url)
    wire = Tripwire(at, "kill")
    with wire.strung():
        Cycle(database, ObjectStore(access)).turn()
    os._exit(0)


@contextmanager
def fresh(registry: str):
    """Empty the registry and apply a job over another chain id, so that no two cases share an object's key."""
    database = Database(registry)
    try:
        with database.connection() as connection:
            tables = connection.execute(
                "select string_agg(format('trace.%I', tablename), ', ') as all from pg_tables"
                " where schemaname = 'trace' and tablename <> 'migrations'"
            ).fetchone()
            connection.execute(f"truncate {tables['all']} cascade")
        text = job_text(to_block=CHUNK * RANGES, chunk=CHUNK, streams=STREAMS)
        apply(database, text.replace("chain_id: 99", f"chain_id: {next(_chains)}"))
        yield database
    finally:
        database.close()


def recover(database: Database, store: ObjectStore) -> None:
    """Let other processes continue after enough time; then check that the whole job is committed one time."""
    cycle = Cycle(database, store)
    try:
        for _ in range(TURNS_TO_RECOVER):
            advance(database, 700)
            cycle.turn()
            if not any(left_over(database).values()):
                break
    finally:
        cycle.close()
    assert_registry_sound(database, store)
    keys = keys_of(database, "blocks")
    assert sorted(rows_of(store, keys)["block_number"].to_pylist()) == list(range(CHUNK * RANGES))
    assert not any(left_over(database).values()), left_over(database)


def left_over(database: Database) -> dict[str, int]:
    """Return the unfinished work by table; all zero when every part has done its work."""
    with database.connection() as connection:
        return connection.execute(
            "select (select count(*) from trace.tasks where state <> 'committed')"
            " + (select 1 - least(1, count(*)) from trace.tasks) as tasks,"
            " (select count(*) from trace.attempts where state = 'running') as attempts,"
            " (select count(*) from trace.queue_messages) as messages,"
            " (select count(*) from trace.queue_dead) as dead,"
            " (select count(*) from trace.outbox where kind = 'task_wakeup' and sent_at is null) as unsent,"
            " (select count(*) from trace.batches where closed_at is null) as batches"
        ).fetchone()


@pytest.fixture(scope="module")
def points(registry, bucket) -> list[str]:
    """Return the points of a turn without faults."""
    with fresh(registry) as database:
        wire = Tripwire()
        cycle = Cycle(database, ObjectStore(bucket))
        with wire.strung():
            cycle.turn()
        cycle.close()
        recover(database, ObjectStore(bucket))
    return wire.passed


def test_the_points_are_all_there(points):
    """Check that each collaborator call of the protocol is a point, so that a renamed one is not left out."""
    expected = {
        *(f"before sql {name}" for name in ("observe_head", "insert_task", "wake_tasks", "insert_outbox")),
        *(f"before sql {name}" for name in ("advance_stream", "unsent_wakeups", "publish_message", "mark_sent")),
        *(f"before sql {name}" for name in ("receive_messages", "launchable_tasks", "insert_batch", "assign_batch")),
        *(f"before sql {name}" for name in ("start_attempt", "heartbeat", "fence", "insert_version")),
        *(f"before sql {name}" for name in ("insert_file", "finish_attempt", "launch_batch")),
        *(f"before sql {name}" for name in ("ack_messages", "close_batch")),
        *(f"{when} {name}" for when in ("before", "after") for name in ("finish", "put_if_absent", "commit")),
        "before extract",
        "after extract",
    }
    assert expected <= set(points)


def survives(number: int, how: str, registry: str, bucket: S3Access) -> None:
    with fresh(registry) as database:
        store = ObjectStore(bucket)
        if how == "kill":
            child = _spawning.Process(target=one_turn, args=(registry, bucket, number))
            child.start()
            child.join(60)
            assert child.exitcode == -signal.SIGKILL
        else:
            cycle = Cycle(database, store)
            with Tripwire(number, how).strung(), suppress(TraceError):
                cycle.turn()
            cycle.close()
        recover(database, store)


@pytest.mark.parametrize("how", ["raise", "kill"])
def test_a_fault_at_any_point_loses_and_doubles_nothing(how, points, registry, bucket):
    _spawning.set_forkserver_preload(["tests.support.warm"])
    broken = []
    tried = list(enumerate(points))
    if not FULL:  # each point one time, in one of the two ways
        tried = tried[how == "kill" :: 2]
    for number, name in tried:
        try:
            survives(number, how, registry, bucket)
        except Exception as error:
            broken.append(f"{how} at {number} ({name}): {type(error).__name__}: {str(error)[:300]}")
    print(f"{how}: {len(tried)} points, {len(broken)} not survived")
    assert broken == [], "\n".join(broken)


def test_the_harness_notices_a_broken_protocol(registry, bucket, monkeypatch):
    """Check that the harness detects a commit that leaves its task running."""
    from trace_dagster.registry import publications

    with fresh(registry) as database:
        monkeypatch.setattr(publications, "_finish", lambda *_: None)
        with pytest.raises(AssertionError):
            recover(database, ObjectStore(bucket))
