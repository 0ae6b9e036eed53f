"""Dagster's event log in groups: the rows equal those of Dagster's own storage, also if many threads store at once."""

import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetKey,
    AssetMaterialization,
    EventLogEntry,
    EventRecordsFilter,
)
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.definitions.partitions.subset import DefaultPartitionsSubset
from dagster._core.events import (
    AssetMaterializationPlannedData,
    DagsterEvent,
    DagsterEventType,
    HandledOutputData,
    StepMaterializationData,
)
from dagster._core.execution.plan.objects import StepSuccessData
from dagster._core.execution.plan.outputs import StepOutputData, StepOutputHandle
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.event_log import PostgresEventLogStorage
from dagster_postgres.utils import DagsterPostgresException

from trace_dagster.dagster_instance.event_log import step_end_follows
from trace_dagster.dagster_instance.storage import SCHEMA, TraceDagsterStorage
from trace_dagster.lite.postgres import dsn

THREADS = 12
PARTITIONS = 40
EVENTS = (
    "select run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition from {}.event_logs order by 2"
)
CHECKS = """
select c.asset_key, c.check_name, c.partition, c.run_id, c.execution_status, c.evaluation_event,
  c.evaluation_event_timestamp, c.materialization_event_storage_id, e.event
from {0}.asset_check_executions c join {0}.event_logs e on e.id = c.evaluation_event_storage_id order by 1, 2, 3
"""
ASSETS = "select asset_key, last_run_id, last_materialization is not null from {}.asset_keys order by 1"


@pytest.fixture
def grouped(postgres_url):
    storage = TraceDagsterStorage(postgres_url)
    yield storage.event_log_storage
    storage.event_log_storage.dispose()


@pytest.fixture
def stock(postgres_url):
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("create schema stock")
    url = f"{postgres_url}?options=-csearch_path%3Dstock".replace("postgres://", "postgresql://")
    storage = DagsterPostgresStorage(url)
    yield storage.event_log_storage
    storage.event_log_storage.dispose()


def of_partition(run_id: str, number: int) -> list[EventLogEntry]:
    """Return the events of one range in order: every kind that a run stores."""
    key, partition = AssetKey(["143", f"d{number % 3}"]), f"b{number:06}"
    made = AssetMaterialization(key, partition=partition, metadata={"rows": number})
    checked = AssetCheckEvaluation(
        asset_key=key, check_name="verification", passed=number % 7 > 0, metadata={}, partition=partition
    )
    known: list[tuple[DagsterEventType, object]] = [
        (DagsterEventType.STEP_START, None),
        (DagsterEventType.STEP_OUTPUT, StepOutputData(StepOutputHandle(f"step[{partition}]", "result"))),
        (DagsterEventType.ASSET_MATERIALIZATION, StepMaterializationData(made)),
        (DagsterEventType.ASSET_CHECK_EVALUATION, checked),
        (DagsterEventType.HANDLED_OUTPUT, HandledOutputData("result", "io_manager")),
        (DagsterEventType.STEP_SUCCESS, StepSuccessData(duration_ms=1.0)),
    ]
    return [
        entry(
            run_id,
            f"step[{partition}]",
            f"{partition} {place}",
            DagsterEvent(kind.value, "job", step_key=f"step[{partition}]", event_specific_data=data),
        )
        for place, (kind, data) in enumerate(known)
    ] + [entry(run_id, None, f"{partition} said", None)]


def entry(run_id: str, step_key: str | None, message: str, event: DagsterEvent | None) -> EventLogEntry:
    return EventLogEntry(
        error_info=None,
        level=20,
        user_message=message,
        run_id=run_id,
        timestamp=1_700_000_000.0 + hash(message) % 1000,
        step_key=step_key,
        job_name="job",
        dagster_event=event,
    )


def stored_at_once(storage, batches: list[list[EventLogEntry]]) -> None:
    """Store every batch in order, THREADS of them at a time."""
    together = threading.Barrier(THREADS, timeout=10)

    def store(batch: list[EventLogEntry]) -> None:
        for event in batch:
            storage.store_event(event)

    def first(batch: list[EventLogEntry]) -> None:
        together.wait()
        store(batch)

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(first, batches[:THREADS]))
        list(threads.map(store, batches[THREADS:]))


def in_one_group(storage, store, each: list) -> None:
    """Call ``store`` for each item at once while the write lock is held, so that all of them form one group."""
    with storage._writing:
        threads = [threading.Thread(target=store, args=(one,)) for one in each]
        for thread in threads:
            thread.start()
        while len(storage._waiting) < len(each):
            pass
    for thread in threads:
        thread.join()


def rows(postgres_url: str, query: str, schema: str) -> list[tuple]:
    with psycopg.connect(postgres_url) as connection:
        return connection.execute(query.format(schema)).fetchall()


def test_groups_leave_the_rows_that_dagster_leaves(grouped, stock, postgres_url, monkeypatch):
    sizes = []
    number = grouped._number
    monkeypatch.setattr(grouped, "_number", lambda group: sizes.append(len(group)) or number(group))
    batches = [of_partition("r1", number) for number in range(PARTITIONS)]
    stored_at_once(grouped, batches)
    for batch in batches:
        for event in batch:
            stock.store_event(event)
    assert max(sizes) > THREADS / 2, "nothing was stored in groups: this test shows nothing"
    for query in (EVENTS, CHECKS, ASSETS):
        assert rows(postgres_url, query, SCHEMA) == rows(postgres_url, query, "stock"), query
    assert len(rows(postgres_url, EVENTS, SCHEMA)) == 7 * PARTITIONS


def test_events_of_one_thread_keep_their_order(grouped):
    batches = [of_partition("r1", number) for number in range(PARTITIONS)]
    stored_at_once(grouped, batches)
    places = {event.user_message: place for place, event in enumerate(grouped.get_logs_for_run("r1"))}
    for batch in batches:
        order = [places[event.user_message] for event in batch]
        assert order == sorted(order)


def test_an_event_that_cannot_be_stored_fails_its_own_thread_only(grouped, postgres_url):
    batches = [of_partition("r1", number) for number in range(THREADS)]
    batches[3] = [entry("r1\x00", None, "refused by Postgres", None)]
    failed = []

    def store(batch: list[EventLogEntry]) -> None:
        try:
            grouped.store_event(batch[0])
        except ValueError as error:
            failed.append((batch[0].user_message, str(error)))

    in_one_group(grouped, store, batches)
    assert [message for message, _ in failed] == ["refused by Postgres"]
    assert len(rows(postgres_url, EVENTS, SCHEMA)) == THREADS - 1


def test_what_a_step_says_on_the_way_is_stored_before_what_it_says_next(grouped, postgres_url):
    start, output, *_, handled, success, _ = of_partition("r1", 1)
    for each in (start, output, handled):
        grouped.store_event(each)
    assert len(rows(postgres_url, EVENTS, SCHEMA)) == 1, "nobody waits for these alone"
    grouped.store_event(success)
    assert [event.user_message for event in grouped.get_logs_for_run("r1")] == [
        each.user_message for each in (start, output, handled, success)
    ]


def test_what_a_step_says_on_the_way_and_cannot_be_stored_fails_it(grouped, postgres_url):
    output = of_partition("r1\x00", 1)[1]
    start, *_, success, said = of_partition("r2", 2)
    grouped.store_event(output)
    with ThreadPoolExecutor(1) as other:
        other.submit(grouped.store_event, start).result()  # this thread writes both; the error belongs to the other one
    grouped.store_event(said)  # Dagster would swallow an error here
    with pytest.raises(ValueError, match="NUL"):
        grouped.store_event(success)  # nor is the other event reported as stored
    grouped.store_event(of_partition("r2", 3)[-2])
    found = [event.user_message for event in grouped.get_logs_for_run("r2")]
    assert found == ["b000002 0", "b000002 said", "b000003 5"]


def test_a_commit_is_stored_with_the_steps_end(grouped, stock, postgres_url):
    start, output, made, checked, _, success, _ = of_partition("r1", 1)
    events = [start, output, made, checked, success]
    grouped.store_event(start)
    grouped.store_event(output)
    with step_end_follows():
        grouped.store_event(made)
        grouped.store_event(checked)
    assert len(rows(postgres_url, EVENTS, SCHEMA)) == 1, "the step's end is about to follow"
    grouped.store_event(success)
    assert [event.user_message for event in grouped.get_logs_for_run("r1")] == [each.user_message for each in events]
    for event in events:
        stock.store_event(event)
    for query in (EVENTS, CHECKS, ASSETS):
        assert rows(postgres_url, query, SCHEMA) == rows(postgres_url, query, "stock"), query


def test_a_step_does_not_succeed_without_its_commit(grouped, postgres_url):
    made = of_partition("r1\x00", 1)[2]
    success = of_partition("r2", 2)[-2]
    with step_end_follows():
        grouped.store_event(made)
    with pytest.raises(ValueError, match="NUL"):
        grouped.store_event(success)
    assert rows(postgres_url, EVENTS, SCHEMA) == []


def test_a_connection_that_died_just_now_costs_no_event(grouped, postgres_url):
    start, *_, success, _ = of_partition("r1", 1)
    grouped.store_event(start)
    with psycopg.connect(postgres_url) as other:
        other.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
            " and datname = current_database()"
        )
    grouped.store_event(success)
    assert len(rows(postgres_url, EVENTS, SCHEMA)) == 2


def test_what_could_not_be_stored_on_the_way_is_tried_once_more(grouped, postgres_url, monkeypatch):
    start, output, *_, success, _ = of_partition("r1", 1)
    grouped.store_event(output)
    with monkeypatch.context() as patched, ThreadPoolExecutor(1) as other:
        patched.setattr(PostgresEventLogStorage, "store_event", unreachable)
        patched.setattr(grouped, "_number", lambda _: None)
        assert isinstance(other.submit(grouped.store_event, start).exception(), DagsterPostgresException)
    grouped.store_event(success)
    assert [row[2] for row in rows(postgres_url, EVENTS, SCHEMA)] == ["STEP_OUTPUT", "STEP_SUCCESS"]


def unreachable(*_):
    raise DagsterPostgresException("too many retries for DB connection")


def test_an_assets_last_materialization_is_the_record_that_dagster_reads(grouped, stock, postgres_url):
    made = of_partition("r1", 1)[2]
    grouped.store_event_batch(of_partition("r1", 1)[:3])
    stock.store_event(made)
    found = grouped.get_asset_records([made.get_dagster_event().asset_key])[0].asset_entry.last_materialization_record
    assert found.event_log_entry == made
    columns = "select asset_key, last_run_id, last_materialization_timestamp from {}.asset_keys"
    assert rows(postgres_url, columns, SCHEMA) == rows(postgres_url, columns, "stock")
    assert [found] == list(grouped.get_event_records(EventRecordsFilter(DagsterEventType.ASSET_MATERIALIZATION)))


@pytest.mark.parametrize("doing", ["_number", "_noted"])
def test_a_writer_that_is_told_to_stop_takes_no_event_with_it(grouped, postgres_url, monkeypatch, doing):
    done = getattr(grouped, doing)
    stops = iter([True])

    def stopped_once(group):
        if next(stops, False):
            raise KeyboardInterrupt
        return done(group)

    monkeypatch.setattr(grouped, doing, stopped_once)
    interrupted = []

    def store(event: EventLogEntry) -> None:
        try:
            grouped.store_event(event)
        except KeyboardInterrupt:
            interrupted.append(event.user_message)

    in_one_group(grouped, store, [of_partition("r1", number)[2] for number in range(THREADS)])
    assert len(interrupted) == 1
    assert len(rows(postgres_url, EVENTS, SCHEMA)) == THREADS
    assert [made for _, _, made in rows(postgres_url, ASSETS, SCHEMA)] == [True] * 3


def planned(run_id: str, keys: list[str]) -> list[EventLogEntry]:
    """Return the rows that are stored when a run over these partitions is created."""
    key = AssetKey(["143", "d"])
    materialized = [
        DagsterEvent.build_asset_materialization_planned_event(
            "job", "step", AssetMaterializationPlannedData(key, partition=partition, partitions_subset=None)
        )
        for partition in keys
    ]
    subset = DefaultPartitionsSubset(set(keys))
    kind = DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED.value
    data = AssetCheckEvaluationPlanned(asset_key=key, check_name="verification", partitions_subset=subset)
    events = [*materialized, DagsterEvent(kind, "job", step_key="step", event_specific_data=data)]
    return [entry(run_id, "step", f"planned {place}", event) for place, event in enumerate(events)]


def test_what_a_run_plans_is_one_transaction_and_no_row_lists_all_others(grouped, stock, postgres_url):
    assert int(os.environ["DAGSTER_EVENT_BATCH_SIZE"]) > 1, "Dagster would not bring events in batches"
    keys = [f"b{number:06}" for number in range(PARTITIONS)]
    events = planned("r1", keys)
    grouped.store_event_batch(events)
    for event in events:
        stock.store_event(event)
    transactions = "select count(distinct xmin::text) from {}.event_logs"
    assert rows(postgres_url, transactions, SCHEMA) == [(2,)]  # the check's partition set differs from the asset's
    assert rows(postgres_url, transactions, "stock") == [(PARTITIONS + 1,)]
    for query in (EVENTS, ASSETS):
        assert rows(postgres_url, query, SCHEMA) == rows(postgres_url, query, "stock"), query
    mine, theirs = (rows(postgres_url, CHECKS, schema) for schema in (SCHEMA, "stock"))
    assert [row[:5] + row[6:] for row in mine] == [row[:5] + row[6:] for row in theirs]  # all columns but the event
    assert not any(key in row[5] for row in mine for key in keys)
    for storage in (grouped, stock):
        found = storage.get_asset_check_execution_history(AssetCheckKey(AssetKey(["143", "d"]), "verification"), 100)
        assert {record.partition for record in found} == set(keys)
        assert {record.status for record in found} == {AssetCheckExecutionRecordStatus.PLANNED}


def test_planned_events_that_cannot_be_stored_together_are_stored_one_by_one(grouped, postgres_url, monkeypatch):
    monkeypatch.setattr(grouped, "_number", lambda group: None)
    grouped.store_event_batch(planned("r1", ["b1", "b2"]))
    assert len(rows(postgres_url, EVENTS, SCHEMA)) == 3


def test_what_cannot_be_noted_together_is_noted_one_by_one(grouped, stock, postgres_url, monkeypatch):
    monkeypatch.setattr(grouped, "_noted", lambda group: False)
    events = [event for number in range(3) for event in of_partition("r1", number)]
    in_one_group(grouped, grouped.store_event, events)
    for event in events:
        stock.store_event(event)
    for query in (EVENTS, CHECKS, ASSETS):
        assert rows(postgres_url, query, SCHEMA) == rows(postgres_url, query, "stock"), query


def test_an_event_that_has_a_number_does_not_wait_for_the_rows_of_its_asset(grouped, postgres_url):
    """Readers that saw a higher number never read a lower one again, except backfills: they look some numbers back."""
    assert int(os.environ["ASSET_BACKFILL_CURSOR_OFFSET"]) > 0
    events = [of_partition("r1", number)[2] for number in (0, 3, 6)]  # rows of one asset
    grouped.store_event(events[0])
    storing = threading.Thread(target=grouped.store_event_batch, args=(events[1:],))
    with psycopg.connect(postgres_url) as other:
        other.execute(f"select from {SCHEMA}.asset_keys for update")
        storing.start()
        deadline = time.monotonic() + 10
        while len(rows(postgres_url, EVENTS, SCHEMA)) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(rows(postgres_url, EVENTS, SCHEMA)) == 3
        assert storing.is_alive(), "nobody waited: this test shows nothing"
    storing.join()
    assert rows(postgres_url, ASSETS, SCHEMA)[0][2]


def test_once_postgres_cannot_be_reached_no_event_waits_for_it_again(grouped, postgres, postgres_url, caplog):
    """A run must not wait either when Dagster captures the storage's own warnings as events of a step."""

    class Captured(logging.Handler):
        def emit(self, record):
            if "Retrying" in record.getMessage():
                grouped.store_event(entry("r1", None, "captured", None))

    name = psycopg.conninfo.conninfo_to_dict(postgres_url)["dbname"]
    events = planned("r1", [f"b{number:06}" for number in range(PARTITIONS)])
    handler = Captured()
    logging.getLogger().addHandler(handler)
    with psycopg.connect(dsn(*postgres, "postgres"), autocommit=True) as admin:
        admin.execute(f'alter database "{name}" allow_connections false')
        admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [name])
        try:
            with pytest.raises(DagsterPostgresException, match="too many retries"):
                grouped.store_event_batch(events)
        finally:
            logging.getLogger().removeHandler(handler)
            admin.execute(f'alter database "{name}" allow_connections true')
    tries = [record for record in caplog.records if "Retrying" in record.getMessage()]
    assert 0 < len(tries) < PARTITIONS
    grouped.store_event_batch(events[:2])
    messages = [row[1] for row in rows(postgres_url, EVENTS, SCHEMA)]
    assert sum("planned" in message for message in messages) == 2
    assert sum("captured" in message for message in messages) == len(tries)


def test_checks_without_a_partition_are_stored_as_dagster_stores_them(grouped, stock, postgres_url):
    events = [of_partition("r1", number)[0] for number in range(THREADS)]
    checked = AssetCheckEvaluation(asset_key=AssetKey(["143", "d"]), check_name="coverage", passed=True, metadata={})
    kind = DagsterEventType.ASSET_CHECK_EVALUATION.value
    events.append(entry("r1", None, "covered", DagsterEvent(kind, "job", event_specific_data=checked)))
    in_one_group(grouped, grouped.store_event, events)
    for event in events:
        stock.store_event(event)
    for query in (EVENTS, CHECKS, ASSETS):
        assert rows(postgres_url, query, SCHEMA) == rows(postgres_url, query, "stock"), query
    assert len(rows(postgres_url, CHECKS, SCHEMA)) == 1
