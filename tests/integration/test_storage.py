"""Dagster's storage: one connection pool per process, for any number of storages that Dagster creates."""

import multiprocessing

import psycopg
import pytest
from dagster import DagsterRun
from dagster._core.utils import make_new_run_id
from sqlalchemy import event

from trace_dagster.dagster_instance import storage
from trace_dagster.dagster_instance.storage import TraceDagsterStorage

pytestmark = pytest.mark.integration
CONNECTED = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"


def backend(of: TraceDagsterStorage) -> int:
    """Return the process id of the Postgres backend that answers."""
    with of.run_storage.connect() as connection:
        return connection.exec_driver_sql("select pg_backend_pid()").scalar()


def test_storages_of_one_process_share_their_connections(postgres_url):
    storages = [TraceDagsterStorage(postgres_url) for _ in range(5)]
    for each in storages:
        assert each.run_storage.get_runs() == []
        assert not each.event_log_storage.get_logs_for_run("none")
        assert each.schedule_storage.all_instigator_state() == []
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute(CONNECTED).fetchone() == (1,)


def test_dagster_does_not_look_for_its_tables_again_and_again(postgres_url):
    made = TraceDagsterStorage(postgres_url)
    asked = []
    event.listen(made.run_storage._engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    made.run_storage.add_run(DagsterRun(job_name="job", run_id=make_new_run_id()))
    made.run_storage.get_run_records()
    assert made.schedule_storage.supports_batch_queries
    assert made.schedule_storage.all_instigator_state() == []
    assert not [each for each in asked if "pg_catalog" in each], asked


def test_a_connection_that_rested_is_asked_whether_it_lives(postgres_url, monkeypatch):
    monkeypatch.setattr(storage, "RESTED_SECONDS", 0.0)
    made = TraceDagsterStorage(postgres_url)
    first = backend(made)
    assert backend(made) == first
    with psycopg.connect(postgres_url) as connection:
        connection.execute("select pg_terminate_backend(%s)", [first])
    assert backend(made) != first


def test_a_forked_process_connects_itself(postgres_url):
    ours = backend(TraceDagsterStorage(postgres_url))
    context = multiprocessing.get_context("fork")
    theirs, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(backend(TraceDagsterStorage(postgres_url))))
    child.start()
    assert theirs.poll(30)
    assert theirs.recv() != ours
    child.join(30)
    assert backend(TraceDagsterStorage(postgres_url)) == ours, "the child's end closed our connection"
