"""The change log: every change has one entry, readers miss none, and whatever a reader cannot know is an error."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from uuid import uuid4, uuid5

import psycopg
import pyarrow as pa
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.change_processes import pages
from tests.support.clock import advance
from tests.support.registry import apply, assert_registry_sound, ingesting, job_text
from trace_dagster.blocks import BlockRange
from trace_dagster.cli.main import main
from trace_dagster.errors import Corrupt, CursorGone, InvalidInput
from trace_dagster.ingest.commit import CommitTarget, RangeRows
from trace_dagster.registry.changes import OLDEST, ChangeLog, record_change
from trace_dagster.registry.connection import Session
from trace_dagster.registry.forks import Forks
from trace_dagster.registry.jobs import Jobs, _rebuild
from trace_dagster.registry.retention import Retention

pytestmark = pytest.mark.integration

ONE = "blocks: {cryo_dataset_name: blocks}"
FIRST = BlockRange(0, 100)
DAY = 86_400.0


@pytest.fixture
def stream(database):
    return apply(database, job_text(streams=ONE))["blocks"]


@pytest.fixture
def log(database):
    return ChangeLog(database)


def record(database, stream, block, count=1):
    """Record changes in a transaction of their own."""
    with database.transaction() as session:
        for offset in range(count):
            record_change(session, "committed", stream.dataset_uuid, BlockRange(block + offset, block + offset + 1))


def blocks(changes):
    return [change.block_range.start for change in changes]


def all_changes(log, limit=1000, cursor=OLDEST):
    """Read all changes after a cursor, in pages."""
    found = []
    while page := (result := log.after(cursor, limit))[0]:
        found, cursor = found + page, result[1]
    return found


def commit(ingest, stream, block_range=FIRST, **options):
    return ingest.commit(ingest.start(ingest.claim(stream, block_range, "run", wait_seconds=0, **options)))


def test_a_commit_an_invalidation_and_a_new_generation_are_told_once(database, store, stream, log):
    with ingesting(database, store) as ingest:
        first = commit(ingest, stream)
        assert Forks(database).invalidate([first.dataset_version], "the block was reorganised\x00") == 1
        second = commit(ingest, stream)
        assert not commit(ingest, stream, refresh=True).created  # the same rows: confirmed, which changes nothing
        store.delete([file.key for file in ingest._publications.files(second)])
        third = commit(ingest, stream, refresh=True)
    told = [(each.kind, each.generation, each.dataset_version, each.reason) for each in all_changes(log)]
    assert told == [
        ("committed", 0, first.dataset_version, None),
        ("invalidated", 0, first.dataset_version, "the block was reorganised"),
        ("committed", 1, second.dataset_version, None),
        ("committed", 2, third.dataset_version, None),
    ]
    (change, *_), _ = log.after(OLDEST, 1)
    assert (change.chain_id, change.dataset_key, change.dataset_uuid) == (99, "blocks", stream.dataset_uuid)
    assert change.block_range == FIRST
    assert_registry_sound(database, store)


def test_a_dataset_replaced_as_a_whole_tells_the_blocks_that_it_lost(database, store, stream, log):
    derived = uuid4()
    Jobs(database).add_derived(derived, 99, "holders", {})
    small, large, other = BlockRange(0, 100), BlockRange(0, 200), BlockRange(100, 200)
    with ingesting(database, store) as ingest:
        for covered in (small, large, other):
            table = pa.table({"block_number": [covered.start]})
            target = CommitTarget(
                derived, "holders", "holders", 99, covered, "derived", table.schema, prefix="derived", whole=True
            )
            rows = RangeRows([table], lambda: {"asked": "off", "level": "derived"}, {"name": "duckdb", "version": "1"})
            ingest.commit_derived(derived, uuid5(derived, covered.key), target, rows, "run")
    assert [(each.kind, each.block_range) for each in all_changes(log)] == [
        ("committed", small),
        ("committed", large),
        ("invalidated", large),
        ("committed", other),
    ]


def test_a_commit_that_rolls_back_tells_nothing(database, stream, log):
    class Lost(Exception):
        pass

    with contextlib.suppress(Lost), database.transaction() as session:
        record_change(session, "committed", stream.dataset_uuid, FIRST)
        raise Lost
    assert all_changes(log) == []


def test_a_reader_waits_for_a_transaction_that_began_before(database, stream, log):
    """The first transaction takes the lower numbers and commits last: a reader that passed it would lose its change."""
    record(database, stream, 1)
    with database.connection() as early:
        record_change(Session(early), "committed", stream.dataset_uuid, BlockRange(2, 3))
        record(database, stream, 3)
        found, cursor = log.after(OLDEST)
        assert blocks(found) == [1]
        assert log.now() == cursor
        assert log.after(cursor) == ([], cursor)
    found, _ = log.after(cursor)
    assert blocks(found) == [2, 3]


def test_numbers_do_not_decide_but_transactions(database, stream, log):
    """A lower change_id of a later transaction comes later, although it was made first."""
    with database.connection() as early, database.connection() as late:
        early.execute("select pg_current_xact_id()")
        record_change(Session(late), "committed", stream.dataset_uuid, BlockRange(2, 3))
        record_change(Session(early), "committed", stream.dataset_uuid, BlockRange(1, 2))
    found = all_changes(log)
    assert blocks(found) == [1, 2]
    assert [change.cursor for change in all_changes(log, limit=1)] == [change.cursor for change in found]


def test_a_change_comes_after_those_that_its_transaction_could_see(database, stream, log):
    """A fork takes its first lock, then waits for a commit that began later, and undoes it. The log must have the
    commit's entry first, then the fork's.
    """
    with database.connection() as fork, database.connection() as other:
        fork.execute("select pg_current_xact_id()")
        other.execute("select pg_current_xact_id()")  # readers stop here for a while, between the two
        record(database, stream, 1)
        record_change(Session(fork), "invalidated", stream.dataset_uuid, BlockRange(1, 2))
        fork.commit()
        assert all_changes(log) == []
        record(database, stream, 2)
    told = [(change.kind, change.block_range.start) for change in all_changes(log, limit=1)]
    assert told == [("committed", 1), ("invalidated", 1), ("committed", 2)]


def test_a_rebuild_that_waited_for_a_swap_of_layouts_is_told_after_it(database, store, stream, log):
    with ingesting(database, store) as ingest:
        version = commit(ingest, stream).dataset_version
    begun, locked = threading.Event(), threading.Event()

    def rebuild():
        with database.transaction() as session:
            session.connection.execute("select pg_current_xact_id()")
            begun.set()
            assert locked.wait(30)
            assert _rebuild(session, stream.dataset_uuid, "another configuration") == 1

    with ThreadPoolExecutor(1) as pool, database.connection() as swap:
        rebuilding = pool.submit(rebuild)
        assert begun.wait(30)
        swap.execute("select 1 from trace.dataset_versions where dataset_version = %s for share", [version])
        record_change(Session(swap), "compacted", stream.dataset_uuid, FIRST)
        locked.set()
        deadline = time.monotonic() + 30
        while not _waits_for_a_lock(database):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        swap.commit()
        rebuilding.result(30)
    assert [change.kind for change in all_changes(log)] == ["committed", "compacted", "invalidated"]


def _waits_for_a_lock(database):
    with database.connection() as connection:
        found = connection.execute(
            "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        )
        return found.fetchone() is not None


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("lock"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("write"), st.integers(0, 2), st.integers(1, 3)),
        st.tuples(st.sampled_from(["commit", "commit", "commit", "rollback"]), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("read"), st.integers(0, 1), st.integers(1, 4)),
        st.tuples(st.just("prune"), st.just(0), st.just(0)),
    ),
    min_size=20,
    max_size=40,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_readers_between_open_transactions_miss_nothing(database, stream, log, steps):
    """Whatever is written, committed and rolled back in between, each reader gets each change once, in one order, and
    none before a change that was committed when it was written.
    """
    with database.connection() as connection:
        connection.execute("delete from trace.changes")
    start = log.now()
    cursors, seen, made = [start, start], [[], []], 0
    pending, committed, known = [[], [], []], [], {}
    with ExitStack() as stack:
        writers = [stack.enter_context(closing(psycopg.connect(database._dsn))) for _ in range(3)]
        for step, who, count in steps:
            if step == "write":
                for _ in range(count):
                    made += 1
                    pending[who].append(made)
                    known[made] = set(committed)
                    span = BlockRange(made, made + 1)
                    record_change(Session(writers[who]), "committed", stream.dataset_uuid, span)
            elif step == "lock":
                writers[who].execute("select pg_current_xact_id()")
            elif step == "read":
                found, cursors[who] = log.after(cursors[who], count)
                seen[who] += found
            elif step == "prune":
                assert Retention(database).prune_changes(1, dry_run=False) == 0
            else:
                getattr(writers[who], step)()
                committed += pending[who] if step == "commit" else []
                pending[who] = []
        for writer in writers:
            writer.rollback()  # Postgres ends the transaction of a closed connection a little later
    expected = all_changes(log)
    order = blocks(expected)
    assert sorted(order) == sorted(committed)
    assert all(known[number].isdisjoint(order[at:]) for at, number in enumerate(order))
    for reader, cursor in enumerate(cursors):
        assert seen[reader] + all_changes(log, limit=3, cursor=cursor) == expected
    with database.connection() as connection:
        assert connection.execute("select count(*) as n from trace.changes").fetchone()["n"] == len(expected)


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_writers_and_readers_lose_and_double_nothing(database, postgres_url, stream, log, tmp_path, seed):
    chance = random.Random(seed)
    files = [tmp_path / "first.jsonl", tmp_path / "second.jsonl"]
    roles = [["writer", postgres_url, str(stream.dataset_uuid), str(number)] for number in range(3)]
    roles += [["reader", postgres_url, str(file)] for file in files]
    command = [sys.executable, "-m", "tests.support.change_processes"]
    running = [subprocess.Popen([*command, *role]) for role in roles]
    try:
        for _ in range(12):
            time.sleep(chance.uniform(0.1, 0.8))
            victim = chance.randrange(len(roles))
            running[victim].kill()
            running[victim].wait(10)
            running[victim] = subprocess.Popen([*command, *roles[victim]])
        for writer in running[:3]:
            writer.kill()
            writer.wait(10)
        wanted = _end_of(log)
        deadline = time.monotonic() + 60
        while any(not (done := pages(file)) or done[-1]["cursor"] != wanted for file in files):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        for process in running:
            process.kill()
            process.wait(10)
    told = [change.cursor for change in all_changes(log)]
    assert len(told) > 10
    assert len(set(told)) == len(told)
    for file in files:
        assert [cursor for page in pages(file) for cursor in page["changes"]] == told
    with database.connection() as connection:
        assert connection.execute("select count(*) as n from trace.changes").fetchone()["n"] == len(told)


def _end_of(log):
    """Return the last cursor when no transaction of a killed writer is open any more."""
    deadline = time.monotonic() + 30
    while True:
        assert time.monotonic() < deadline
        with log._database.connection() as connection:
            row = connection.execute(
                "select pg_snapshot_xmin(s) = pg_snapshot_xmax(s) as idle from (select pg_current_snapshot() as s) now"
            ).fetchone()
        if row["idle"]:
            return log.now()
        time.sleep(0.05)


def test_old_changes_go_in_their_order_and_an_older_cursor_is_told(database, stream, log, monkeypatch):
    monkeypatch.setattr("trace_dagster.registry.retention._CHANGES_AT_ONCE", 3)
    record(database, stream, 0, count=7)
    old = all_changes(log)
    advance(database, 31 * DAY)
    old = all_changes(log)  # their times have moved, and so did their cursors
    record(database, stream, 10, count=2)
    retention = Retention(database)
    assert retention.prune_changes(32, dry_run=False) == 0
    assert retention.prune_changes(30, dry_run=True) == 7
    assert len(all_changes(log)) == 9
    assert retention.prune_changes(30, dry_run=False) == 7
    assert retention.prune_changes(30, dry_run=False) == 0
    assert blocks(all_changes(log)) == [10, 11]
    assert blocks(log.after(old[-1].cursor)[0]) == [10, 11]  # the last one deleted: nothing after it is missing
    for change in old[:-1]:
        with pytest.raises(CursorGone, match=r"TRACE_CHANGES_DAYS.*changes --now"):
            log.after(change.cursor)
    assert blocks(log.after(OLDEST)[0]) == [10, 11]


def test_a_change_that_a_reader_may_still_wait_for_is_kept(database, stream, log):
    with database.connection() as early:
        early.execute("select pg_current_xact_id()")
        record(database, stream, 1)
        with database.connection() as connection:
            connection.execute("update trace.changes set changed_at = changed_at - interval '40 days'")
        assert Retention(database).prune_changes(30, dry_run=True) == 0
        assert Retention(database).prune_changes(30, dry_run=False) == 0
    assert Retention(database).prune_changes(30, dry_run=False) == 1


def test_an_old_change_after_a_young_one_stays(database, stream, log):
    """Deletion goes by the readers' order: otherwise a cursor before the young change would miss the old one."""
    record(database, stream, 1)
    record(database, stream, 2)
    with database.connection() as connection:
        connection.execute("update trace.changes set changed_at = changed_at - interval '40 days' where change_id = 2")
    assert Retention(database).prune_changes(30, dry_run=True) == 0
    assert Retention(database).prune_changes(30, dry_run=False) == 0
    assert blocks(all_changes(log)) == [1, 2]


def test_the_cursor_of_an_empty_log_is_told_when_it_missed_something(database, stream, log):
    before = log.now()
    record(database, stream, 1)
    assert blocks(log.after(before)[0]) == [1]
    advance(database, 31 * DAY)
    record(database, stream, 2)
    Retention(database).prune_changes(30, dry_run=False)
    with pytest.raises(CursorGone):
        log.after(before)
    assert blocks(log.after(OLDEST)[0]) == [2]


@pytest.mark.parametrize("text", ["", "1", "latest", "1-2", "1-2-3-4", "-1-2-3", "1-2-xyz", "9" * 40 + "-1-a", "٣-١-a"])
def test_what_is_no_cursor_is_refused(log, text):
    with pytest.raises(InvalidInput, match="is no cursor"):
        log.after(text)


def test_a_cursor_of_another_database_is_refused(database, stream, log):
    record(database, stream, 1)
    (change,), cursor = log.after(OLDEST)
    xid, number, mark = cursor.split("-")
    strange = [
        f"{int(xid) + 1000}-{number}-{mark}",
        f"{xid}-{int(number) + 1}-{mark}",
        f"{xid}-{number}-{int(mark, 16) ^ 1:x}",
    ]
    for each in strange:
        with pytest.raises(CursorGone, match="another database"):
            log.after(each)
    assert log.after(change.cursor) == ([], cursor)


def test_a_log_restored_from_a_server_that_counted_further_is_started_again(database, stream, log):
    record(database, stream, 1)
    with database.connection() as connection:
        connection.execute("update trace.changes set xid = '900000000000'")
    for read in (log.now, lambda: log.after(OLDEST)):
        with pytest.raises(Corrupt, match="trace-lite migrate"):
            read()
    record(database, stream, 2)
    assert log.restart_if_restored()
    assert not log.restart_if_restored()
    assert log.after(OLDEST)[0] == []
    record(database, stream, 3)
    assert blocks(log.after(OLDEST)[0]) == [3]
    with pytest.raises(CursorGone):
        log.after("900000000000-1-0")


def test_a_floor_of_another_server_is_seen_too(database, stream, log):
    with database.connection() as connection:
        connection.execute("update trace.changes_floor set xid = '900000000000'")
    with pytest.raises(Corrupt):
        log.after(OLDEST)
    assert log.restart_if_restored()
    record(database, stream, 1)
    assert blocks(log.after(log.now())[0]) == []


@pytest.fixture
def variables(database, postgres_url, s3, tmp_path):
    return {
        "TRACE_POSTGRES_URL": postgres_url,
        "TRACE_S3_ENDPOINT": s3.endpoint,
        "TRACE_S3_BUCKET": s3.bucket,
        "AWS_ACCESS_KEY_ID": s3.access_key,
        "AWS_SECRET_ACCESS_KEY": s3.secret_key,
        "TRACE_HOME": str(tmp_path / "none"),
    }


def run(variables, *arguments):
    return CliRunner().invoke(main, ["changes", *arguments], env=variables)


def test_the_command_prints_lines_with_cursors(database, stream, log, variables):
    assert run(variables).stdout == ""
    record(database, stream, 0, count=3)
    with database.transaction() as session:
        record_change(session, "invalidated", stream.dataset_uuid, FIRST, generation=4, reason="its fork\x1b[31m lost")
    lines = [json.loads(line) for line in run(variables, "--json").stdout.splitlines()]
    assert [each.pop("cursor") for each in lines] == [change.cursor for change in all_changes(log)]
    last = lines[-1]
    age = datetime.now(UTC) - datetime.fromisoformat(last.pop("changed_at"))
    assert abs(age) < timedelta(minutes=5)
    assert last == {
        "kind": "invalidated",
        "chain_id": 99,
        "dataset_key": "blocks",
        "dataset_uuid": str(stream.dataset_uuid),
        "range_start": 0,
        "range_end": 100,
        "block_hash": None,
        "generation": 4,
        "dataset_version": None,
        "layout_id": None,
        "reason": "its fork\x1b[31m lost",
    }
    text = run(variables, "--limit", "2").stdout.splitlines()
    assert len(text) == 2
    cursor = text[-1].split()[-1]
    rest = run(variables, "--after", cursor).stdout.splitlines()
    assert len(rest) == 2
    assert "99.blocks" in rest[1]
    assert rest[1].endswith("its fork\\x1b[31m lost")
    now = run(variables, "--now").stdout.strip()
    assert run(variables, "--after", now).stdout == ""


def test_a_line_says_which_rows_came_or_went(database, stream, variables):
    changes = [("hot", None, "hot rows"), ("pruned", None, "the same rows"), ("pruned", "other columns", "hot rows")]
    changes += [("invalidated", "a fork", "hot rows"), ("compacted", None, "the same rows")]
    with database.transaction() as session:
        for kind, reason, _said in changes:
            record_change(session, kind, stream.dataset_uuid, FIRST, reason=reason)
    lines = run(variables).stdout.splitlines()
    assert [re.search("hot rows|the same rows", line)[0] for line in lines] == [said for *_, said in changes]


def test_its_errors_have_exit_codes(variables, stream):
    assert run(variables, "--after", "yesterday").exit_code == 2
    lost = run(variables, "--after", "7-7-7")
    assert (lost.exit_code, lost.stdout) == (4, "")
    assert "changes --now" in lost.stderr


def test_it_follows_until_ctrl_c(database, stream, variables):
    environment = {**os.environ, **variables}
    command = [sys.executable, "-m", "trace_dagster.cli.main", "changes", "--follow", "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        try:
            for block in (1, 2):
                record(database, stream, block)
                assert json.loads(process.stdout.readline())["range_start"] == block
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (0, "", "")
