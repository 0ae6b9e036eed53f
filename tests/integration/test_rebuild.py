"""A lake of an older form, or with other columns: left out, never mixed, and fetched again by `apply --rebuild`."""

from __future__ import annotations

import json
from uuid import uuid4, uuid5

import psycopg
import pyarrow as pa
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.clock import advance
from tests.support.compaction import visible_rows, window_of
from tests.support.cycle import Cycle
from tests.support.nodes import environment
from tests.support.old_form import MADE_UP, make_old
from tests.support.registry import TWO_STREAMS, assert_registry_sound, ingesting, job_text, keys_of, rows_of
from trace_dagster.blocks import BlockRange
from trace_dagster.cli.main import main
from trace_dagster.compaction.compactor import Compactor
from trace_dagster.config.chain_sync import parse
from trace_dagster.errors import InvalidInput, LeaseLost, OldForm, Refused
from trace_dagster.identity import LAKE_FORM, sha256_hex
from trace_dagster.ingest.commit import CommitTarget, RangeRows
from trace_dagster.lite.postgres import dsn
from trace_dagster.maintenance.sweep import sweep
from trace_dagster.registry.catalog import Catalog
from trace_dagster.registry.changes import ChangeLog
from trace_dagster.registry.jobs import Bounds, Jobs
from trace_dagster.registry.migrations import _shipped, migrate
from trace_dagster.registry.status import job_statuses, stream_coverages
from trace_dagster.registry.versions import versions_of_job

pytestmark = pytest.mark.integration

END = 500
ALL = BlockRange(0, END)
FIRST = BlockRange(0, 100)
WAY_OUT = r"`trace-lite apply --rebuild --file F`, with the file of job job"
FEWER = "blocks: {cryo_dataset_name: blocks, columns: [block_number, block_hash]}\n  logs: {cryo_dataset_name: logs}"


def text(**options):
    return job_text(to_block=END, **options)


def apply(database, *, rebuild=False, **options):
    job = parse(text(**options))
    return Jobs(database).apply(job, Bounds(0, END), rebuild=rebuild)


def stream_of(database, key="blocks"):
    return next(stream for stream in Jobs(database).streams() if stream.dataset_key == key)


def committed(database, key="blocks"):
    return Catalog(database).committed_ranges(stream_of(database, key).dataset_uuid)


def block_numbers(database, store, key="blocks"):
    return rows_of(store, keys_of(database, key))["block_number"].to_pylist()


def generations(database, key="blocks"):
    with database.connection() as connection:
        rows = connection.execute(
            "select lower(block_range) as s, generation from trace.dataset_versions v join trace.datasets d"
            " using (dataset_uuid) where visible and dataset_key = %s order by 1",
            [key],
        ).fetchall()
    return {row["s"]: row["generation"] for row in rows}


@pytest.fixture
def cycle(database, store):
    made = Cycle(database, store)
    yield made
    made.close()


def turn(cycle):
    advance(cycle.database, 300)
    cycle.turn()


@pytest.fixture
def old(database, store, cycle):
    """Sync two streams, and make the lake one of form 1. Return its objects, by key."""
    apply(database)
    turn(cycle)
    assert committed(database) == [ALL]
    return make_old(database, store)


@pytest.fixture
def variables(postgres_url, s3, tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text(text())
    return {**environment(postgres_url, s3), "TRACE_HOME": str(tmp_path / "none"), "TRACE_CRYO_MODE": "fake"}


def run(variables, *arguments):
    return CliRunner().invoke(main, arguments, env=variables)


def test_the_database_knows_the_form_of_this_version(database):
    with database.connection() as connection:
        assert connection.execute("select trace.lake_form() as form").fetchone()["form"] == LAKE_FORM


def test_rows_of_the_old_form_are_left_out_and_nothing_of_them_is_touched(database, store, cycle, old):
    assert [files for _, files in Catalog(database).lake()] == [(), ()]
    assert [(entry.ranges, entry.rows, entry.bytes) for entry in Catalog(database).datasets()] == [(0, 0, 0)] * 2
    assert committed(database) == []
    assert versions_of_job(database, stream_of(database).job_id, ALL) == []
    turn(cycle)
    assert committed(database) == []
    assert generations(database) == dict.fromkeys(range(0, END, 100), 0)
    sweep(database, store, grace_seconds=0, dry_run=False)
    assert {key: store.get(key)[0] for key in store.keys("")} == old


def test_status_and_coverage_show_a_gap_with_the_way_out(database, old):
    (job,) = job_statuses(database, Jobs(database))
    assert job.state == "blocked"
    for stream in job.streams:
        assert (stream.committed_ranges, stream.done) == (0, False)
        assert "form 1" in stream.blocked_reason
        assert "apply --rebuild" in stream.blocked_reason
    for coverage in stream_coverages(database, Jobs(database)):
        assert coverage.gaps == (ALL,)
        assert "apply --rebuild" in coverage.sentence()


def test_nothing_is_planned_or_claimed(database, store, cycle, old):
    with database.connection() as connection:
        connection.execute("update trace.tasks set state = 'queued' where lower(block_range) = 0")
        connection.execute(
            "delete from trace.outbox where task_id in (select task_id from trace.tasks where lower(block_range) = 400)"
        )
    turn(cycle)
    assert generations(database) == dict.fromkeys(range(0, END, 100), 0)
    stream = stream_of(database)
    for refresh in (False, True):
        with ingesting(database, store) as ingest, pytest.raises(Refused, match=WAY_OUT):
            ingest.claim(stream, FIRST, "run", wait_seconds=0, refresh=refresh)


def test_a_file_without_rebuild_is_refused(database, old):
    with pytest.raises(OldForm, match=rf"streams.blocks: its rows are stored in form 1.*{WAY_OUT}"):
        apply(database)
    with pytest.raises(OldForm, match=WAY_OUT):
        Jobs(database).check(parse(text()))
    assert Jobs(database).check(parse(text()), rebuild=True) == {"blocks", "logs"}


READING = [["status"], ["jobs"], ["query", "select count(*) from blocks"], ["changes"], ["sweep", "--dry-run"],
           ["verify", "--job", "job"], ["pause", "--job", "job"], ["compact"], ["compact", "--dry-run"],
           ["changes", "--now"], ["migrate"], ["cold", "--all"], ["token", "list"]]  # fmt: skip
ACTING = [["retry", "--job", "job"], ["refresh", "--job", "job", "--stream", "blocks", "--range", "0:10"],
          ["resume", "--job", "job"], ["verify", "--job", "job", "--repair"], ["certify", "--job", "job"],
          ["compact", "--job", "job"],
          ["apply", "--file", "FILE"], ["plan", "--file", "FILE"]]  # fmt: skip


ELSEWHERE = {"up", "down", "demo", "follow", "serve", "chaos-rpc"}
"""Commands without a registry, services, and those that start one: the stack prints the notes (lite/stack.py)."""


def test_no_command_is_left_out():
    assert {each[0] for each in [*READING, *ACTING]} | ELSEWHERE == set(main.commands)


def test_every_command_names_the_old_form_and_the_way_out(database, old, variables, tmp_path):
    for arguments in READING:
        done = run(variables, *arguments)
        assert done.exit_code == (1 if arguments[0] == "verify" else 0), (arguments, done.output)
        assert done.stderr.count(WAY_OUT) == 1, arguments
    answer = run(variables, "query", "--json", "select count(*) from blocks").stdout
    assert json.loads(answer)["rows"] == [[0]]
    for arguments in ACTING:
        done = run(variables, *[str(tmp_path / "job.yaml") if each == "FILE" else each for each in arguments])
        assert done.exit_code in (1, 2), arguments
        assert WAY_OUT in done.stderr, arguments
    with database.connection() as connection:
        assert (
            connection.execute("select count(*) as n from trace.tasks where state <> 'committed'").fetchone()["n"] == 0
        )


def test_a_rebuild_brings_every_range_back_as_its_next_generation(database, store, cycle, old, variables, tmp_path):
    before = ChangeLog(database).now()
    planned = json.loads(
        run(variables, "plan", "--file", str(tmp_path / "job.yaml"), "--rebuild", "--no-sample", "--json").stdout
    )
    assert [each["ranges"] for each in planned["streams"]] == [5, 5]
    done = run(variables, "apply", "--file", str(tmp_path / "job.yaml"), "--rebuild")
    assert done.exit_code == 0, done.output
    assert "blocks: 5 ranges are left out until their next generation is committed" in done.stderr
    told, _ = ChangeLog(database).after(before)
    assert {(each.kind, each.generation) for each in told} == {("invalidated", 0)}
    assert len(told) == 10
    (job,) = job_statuses(database, Jobs(database))
    assert [(stream.committed_ranges, stream.queued) for stream in job.streams] == [(0, 5), (0, 5)]
    assert run(variables, "status").stderr == ""
    assert keys_of(database, "blocks") == []
    turn(cycle)
    for key in ("blocks", "logs"):
        assert committed(database, key) == [ALL]
        assert generations(database, key) == dict.fromkeys(range(0, END, 100), 1)
        assert max(block_numbers(database, store, key)) < MADE_UP
    assert sorted(set(block_numbers(database, store))) == list(range(END))
    assert_registry_sound(database, store)
    assert Jobs(database).check(parse(text())) == set()
    again = apply(database, rebuild=True)
    assert again.rebuilt == {"blocks": 0, "logs": 0}
    turn(cycle)
    assert set(generations(database).values()) == {1}
    sweep(database, store, grace_seconds=0, dry_run=False)
    assert not set(old) & set(store.keys(""))  # the old objects are gone after the grace period
    assert_registry_sound(database, store)


def test_a_live_attempt_of_the_old_form_cannot_commit(database, store, cycle):
    apply(database)
    turn(cycle)
    stream = stream_of(database)
    with ingesting(database, store) as ingest:
        held = ingest.claim(stream, FIRST, "old", wait_seconds=0, refresh=True)
        started = ingest.start(held)
        make_old(database, store)
        apply(database, rebuild=True)
        with pytest.raises(LeaseLost):
            ingest.commit(started)
    with database.connection() as connection:
        states = connection.execute("select distinct state from trace.tasks").fetchall()
    assert [row["state"] for row in states] == ["queued"]
    turn(cycle)
    assert committed(database) == [ALL]
    assert_registry_sound(database, store)


def test_a_run_from_before_the_rebuild_fails_no_range(database, store, cycle):
    """Its definitions have the old columns: what it would commit could not be read with the rest."""
    apply(database)
    turn(cycle)
    stale = stream_of(database)
    apply(database, rebuild=True, streams=FEWER)
    with ingesting(database, store) as ingest, pytest.raises(Refused, match="rebuilt after this run was started"):
        ingest.claim(stale, FIRST, "stale", wait_seconds=0)
    with database.connection() as connection:
        connection.execute("update trace.tasks set state = 'superseded' where lower(block_range) = 0")
    with ingesting(database, store) as ingest, pytest.raises(Refused, match="not planned"):
        ingest.claim(stale, FIRST, "stale", wait_seconds=0)
    turn(cycle)
    assert committed(database) == [ALL]
    assert len(_schemas(database)) == 1


def _schemas(database):
    with database.connection() as connection:
        rows = connection.execute(
            "select distinct v.schema_json::text as schema from trace.dataset_versions v join trace.datasets d"
            " using (dataset_uuid) where visible and dataset_key = 'blocks'"
        ).fetchall()
    return [tuple(row) for row in rows]


def test_other_columns_are_refused_without_rebuild_and_never_mixed_with_it(database, store, cycle):
    apply(database)
    turn(cycle)
    with pytest.raises(InvalidInput, match=r"streams\.blocks: columns of an applied stream cannot change.*--rebuild"):
        apply(database, streams=FEWER)
    assert apply(database, rebuild=True, streams=FEWER).rebuilt == {"blocks": 5, "logs": 0}
    assert committed(database) == []
    assert committed(database, "logs") == [ALL]
    stream = stream_of(database)
    with ingesting(database, store) as ingest:
        ingest.commit(ingest.start(ingest.claim(stream, FIRST, "run", wait_seconds=0)))
    assert committed(database) == [FIRST]
    assert set(rows_of(store, keys_of(database, "blocks")).column_names) == set(
        stream.dataset.schema(stream.columns).names
    )
    turn(cycle)
    assert committed(database) == [ALL]
    assert set(generations(database, "logs").values()) == {0}
    assert_registry_sound(database, store)


def test_what_is_bound_for_ever_stays_so(database):
    apply(database)
    other = TWO_STREAMS.replace("blocks: {cryo_dataset_name: blocks}", "blocks: {cryo_dataset_name: transactions}")
    with pytest.raises(InvalidInput, match="holds blocks for ever"):
        apply(database, rebuild=True, streams=other)
    job = parse(text().replace("chain_id: 99", "chain_id: 98"))
    with pytest.raises(InvalidInput, match="chain_id cannot change"):
        Jobs(database).apply(job, Bounds(0, END), rebuild=True)


def test_rows_in_a_compacted_file_are_masked_until_they_come_back(database, store, cycle):
    """The file of the layout still holds the old rows: no reader may take them for rows of the new columns."""
    apply(database)
    turn(cycle)
    assert Compactor(database, store).compact(window_of(stream_of(database), 0, 200)).files_after == 1
    apply(database, rebuild=True, streams=FEWER)
    stream = stream_of(database)
    assert visible_rows(database, store, stream).num_rows == 0
    with ingesting(database, store) as ingest:
        ingest.commit(ingest.start(ingest.claim(stream, FIRST, "run", wait_seconds=0)))
    assert visible_rows(database, store, stream)["block_number"].to_pylist() == list(range(100))
    turn(cycle)
    assert visible_rows(database, store, stream)["block_number"].to_pylist() == list(range(END))
    assert Compactor(database, store).compact(window_of(stream, 0, 200)).files_after == 1
    assert visible_rows(database, store, stream)["block_number"].to_pylist() == list(range(END))
    assert_registry_sound(database, store)


def test_another_chunk_size_is_rebuilt_on_the_new_grid(database, store, cycle, old):
    apply(database, rebuild=True, chunk=250)
    turn(cycle)
    assert committed(database) == [ALL]
    assert generations(database) == {0: 0, 250: 0}
    assert sorted(set(block_numbers(database, store))) == list(range(END))
    assert_registry_sound(database, store)


def test_failed_and_uncommitted_ranges_go_on(database, store, cycle, old):
    with database.connection() as connection:
        connection.execute("update trace.tasks set state = 'failed', error = 'old' where lower(block_range) = 100")
        connection.execute("update trace.tasks set state = 'dead', error = 'old' where lower(block_range) = 200")
    apply(database, rebuild=True)
    turn(cycle)
    assert committed(database) == [ALL]
    assert_registry_sound(database, store)


def test_an_enlarged_job_is_rebuilt_and_goes_on(database, store, cycle, old):
    job = parse(job_text(to_block=800))
    Jobs(database).apply(job, Bounds(0, 800), rebuild=True)
    turn(cycle)
    assert committed(database) == [BlockRange(0, 800)]
    assert generations(database) == {**dict.fromkeys(range(0, END, 100), 1), 500: 0, 600: 0, 700: 0}


def test_a_stream_that_is_not_in_the_file_stays_as_it_is(database, store, cycle, old, variables):
    apply(database, rebuild=True, streams="blocks: {cryo_dataset_name: blocks}")
    assert set(generations(database, "logs").values()) == {0}
    turn(cycle)
    assert (committed(database), committed(database, "logs")) == ([ALL], [])
    assert "job: logs (taken out of the file: put it back first): its rows" in run(variables, "status").stderr
    assert run(variables, "retry", "--job", "job").exit_code == 0
    apply(database, rebuild=True)
    turn(cycle)
    assert committed(database, "logs") == [ALL]


def test_a_derived_dataset_of_the_old_form_is_named_and_replaced(database, store, variables):
    derived = uuid4()
    Jobs(database).add_derived(derived, 99, "holders", {})
    table = pa.table({"block_number": [1, 2]})
    target = CommitTarget(
        derived, "holders", "holders", 99, FIRST, "derived", table.schema, prefix="derived", whole=True
    )

    def derive():
        rows = RangeRows([table], lambda: {"asked": "off", "level": "derived"}, {"name": "duckdb", "version": "1"})
        with ingesting(database, store) as ingest:
            return ingest.commit_derived(derived, uuid5(derived, "task"), target, rows, "run")

    derive()
    make_old(database, store)
    assert [(entry.ranges, entry.schema) for entry in Catalog(database).datasets()] == [(0, None)]
    assert "holders of chain 99: its rows are stored in form 1" in run(variables, "status").stderr
    assert derive().created
    assert run(variables, "status").stderr == ""
    assert [entry.rows for entry in Catalog(database).datasets()] == [2]
    assert_registry_sound(database, store)


STEPS = st.lists(st.sampled_from(["turn", "rebuild", "fewer", "all", "chunk", "refresh", "age"]), max_size=8)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_whatever_is_rebuilt_in_between_visible_rows_have_one_configuration(database, store, steps):
    """Any order of applies with rebuild, runs and refreshes ends complete, and no two forms are visible at a time."""
    options = {"streams": TWO_STREAMS, "chunk": 100}
    cycle = Cycle(database, store)
    apply(database, rebuild=True, **options)
    for step in [*steps, "turn"]:
        if step == "turn":
            turn(cycle)
        elif step == "age":
            make_old(database, store)
            apply(database, rebuild=True, **options)
        elif step == "refresh":
            with database.connection() as connection:
                connection.execute("update trace.tasks set state = 'queued' where state = 'committed'")
        else:
            options |= {"fewer": {"streams": FEWER}, "all": {"streams": TWO_STREAMS}, "chunk": {"chunk": 250}}.get(
                step, {}
            )
            apply(database, rebuild=True, **options)
        with database.connection() as connection:
            mixed = connection.execute(
                "select count(*) as n from trace.dataset_versions v join trace.streams s using (dataset_uuid)"
                " where v.visible and (v.config_hash <> s.config_hash or v.form <> s.form)"
            ).fetchone()
        assert mixed["n"] == 0
    assert committed(database) == [ALL]
    assert_registry_sound(database, store)
    cycle.close()


OLD_ROWS = """
insert into trace.jobs (job_id, org_id, name, chain_id, mode, spec)
    values ('{job}', '{job}', 'j', 1, 'fixed_target', '{{}}');
insert into trace.datasets (dataset_uuid, org_id, chain_id, dataset_key, kind, source)
    values ('{job}', '{job}', 1, 'blocks', 'stream', 'blocks');
insert into trace.streams (dataset_uuid, job_id, rpc_pool, chunk_size, max_inflight, columns, config_hash, verify,
    options, from_block, to_block, next_block)
    values ('{job}', '{job}', 'x', 10, 1, '{{}}', 'x', 'full', '{{}}', 0, 10, 10);
insert into trace.tasks (task_id, dataset_uuid, block_range, config_hash, state, attempt)
    values ('{job}', '{job}', '[0,10)', 'x', 'committed', 1);
"""
OLD_ATTEMPT = """
insert into trace.attempts (task_id, attempt, lease_token, run_id, state)
    values ('{job}', {attempt}, gen_random_uuid(), 'r', 'committed');
"""
OLD_VERSION = """
insert into trace.dataset_versions (dataset_version, dataset_uuid, block_range, generation, task_id, attempt,
    config_hash, storage_ref, manifest_key, manifest_sha256, content_digest, row_count, byte_count, schema_json,
    verification) values (gen_random_uuid(), '{job}', '[{start},{end})', 0, '{job}', {attempt}, 'x', 's', 'm{start}',
    '{digest}', '{digest}', 5, 50, '[]', '{{"level": "full"}}');
"""


def test_a_migration_makes_what_is_there_the_old_form_and_so_does_a_process_of_before(postgres):
    port, password = postgres
    name = f"o{uuid4().hex}"
    with psycopg.connect(dsn(port, password, "postgres"), autocommit=True) as connection:
        connection.execute(f"create database {name}")
    url = dsn(port, password, name)
    job, digest = uuid4(), "0" * 64
    shipped = _shipped()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create schema trace")
        connection.execute(
            "create table trace.migrations (name text primary key, sha256 text not null,"
            " applied_at timestamptz not null default now())"
        )
        for each in sorted(shipped)[:10]:
            connection.execute(shipped[each])
            connection.execute(
                "insert into trace.migrations values (%s, %s)", (each, sha256_hex(shipped[each].encode()))
            )
        connection.execute(OLD_ROWS.format(job=job))
        connection.execute(
            OLD_ATTEMPT.format(job=job, attempt=1)
            + OLD_VERSION.format(job=job, start=0, end=5, attempt=1, digest=digest)
        )
    assert migrate(url)[0] == "0011_lake.sql"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            OLD_ATTEMPT.format(job=job, attempt=2)
            + OLD_VERSION.format(job=job, start=5, end=10, attempt=2, digest=digest)
        )
        assert connection.execute("select form from trace.streams").fetchall() == [(1,)]
        assert connection.execute("select form from trace.dataset_versions").fetchall() == [(1,), (1,)]
        assert connection.execute("select count(*) from trace.visible_totals where ranges > 0").fetchone() == (0,)
        connection.execute("update trace.dataset_versions set visible = false, hidden_at = now()")
    with psycopg.connect(dsn(port, password, "postgres"), autocommit=True) as connection:
        connection.execute(f"drop database {name} with (force)")
