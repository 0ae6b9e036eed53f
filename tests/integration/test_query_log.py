"""The log of queries: what a row says while a query runs and after it ended, and when rows go."""

from __future__ import annotations

from hashlib import sha256
from types import SimpleNamespace
from uuid import uuid4

import pytest

from tests.support.clock import advance
from tests.support.committed import FULL, commit_rows
from tests.support.registry import apply, job_text
from trace_dagster.blocks import BlockRange
from trace_dagster.defs.retention import PRUNE_SECONDS, prune_if_due
from trace_dagster.errors import Refused
from trace_dagster.registry.catalog import Catalog
from trace_dagster.registry.changes import ChangeLog
from trace_dagster.registry.conditions import Reads
from trace_dagster.registry.query_log import DENIALS_PER_MINUTE, QueryLog
from trace_dagster.registry.retention import Retention
from trace_dagster.registry.tokens import Tokens

pytestmark = pytest.mark.integration

DAY = 86_400


@pytest.fixture
def log(database):
    return QueryLog(database)


@pytest.fixture
def caller(database):
    tokens = Tokens(database)
    return tokens.caller(tokens.new("reports", expires_in=None))


def rows(database, table="query_log"):
    with database.connection() as connection:
        return connection.execute(f"select * from trace.{table}").fetchall()


def begun(log, caller=None, seconds=60.0):
    query = uuid4()
    log.begin(query, caller, "arrow", seconds)
    return query


def test_a_row_is_there_before_the_snapshot_and_complete_at_the_end(database, store, log, caller):
    stream = apply(database, job_text(chunk=20, streams="logs: {cryo_dataset_name: logs}"))["logs"]
    for start in (0, 20):
        commit_rows(database, store, stream, BlockRange(start, start + 20), FULL)
    query = begun(log, caller)
    (row,) = rows(database)
    assert (row["token_id"], row["token_name"], row["format"]) == (caller.token_id, "reports", "arrow")
    assert (row["outcome"], row["ended_at"], row["snapshot"], row["datasets"]) == (None, None, None, {})
    assert abs((row["deadline_at"] - row["started_at"]).total_seconds() - 60) < 1
    opened = Catalog(database).open({stream.dataset_uuid: Reads()})
    log.read(query, opened)
    (running,) = log.running()
    assert (running.query_id, running.token_name, running.datasets) == (query, "reports", ("chain_99.logs",))
    log.end(query, "done", 7, 900)
    (row,) = rows(database)
    keys = sorted(opened.files[stream.dataset_uuid].all_keys())
    assert row["datasets"] == {
        "chain_99.logs": {
            "files": 2,
            "digest": sha256("\n".join(keys).encode()).hexdigest()[:16],
            "first_block": 0,
            "last_block": 39,
        }
    }
    assert row["snapshot"] == ChangeLog(database).now()
    assert (row["outcome"], row["rows"], row["bytes"]) == ("done", 7, 900)
    assert row["started_at"] <= row["ended_at"]
    assert log.running() == []


def test_an_id_is_used_once_and_the_first_end_counts(database, log):
    query = begun(log)
    with pytest.raises(Refused, match="choose another id"):
        log.begin(query, None, "json", 60)
    log.end(query, "cancelled")
    log.end(query, "done", 1, 1)
    with pytest.raises(Refused):
        log.begin(query, None, "json", 60)
    (row,) = rows(database)
    assert (row["outcome"], row["format"], row["rows"]) == ("cancelled", "arrow", None)


def test_a_query_of_a_dead_service_does_not_run_after_its_deadline(database, log):
    begun(log, seconds=100)
    advance(database, 90)
    assert len(log.running()) == 1
    advance(database, 20)
    assert log.running() == []


def test_denials_are_logged_up_to_a_limit_each_minute(database, log):
    for _ in range(30):
        log.end(begun(log), "done", 1, 1)  # other queries do not count
    assert [log.denied() for _ in range(DENIALS_PER_MINUTE + 5)] == [True] * DENIALS_PER_MINUTE + [False] * 5
    advance(database, 61)
    assert log.denied()
    assert len(rows(database)) == 30 + DENIALS_PER_MINUTE + 1


def test_old_rows_go_once_an_hour_and_those_of_running_queries_stay(database, log, monkeypatch):
    log.end(begun(log), "done", 1, 1)
    long = begun(log, seconds=40 * DAY)
    begun(log, seconds=60)  # its service dies
    advance(database, 31 * DAY)
    log.end(begun(log), "done", 1, 1)
    settings = SimpleNamespace(registry=SimpleNamespace(changes_days=30), query=SimpleNamespace(log_days=30))
    runtime = SimpleNamespace(database=database, settings=settings)
    assert prune_if_due(runtime, due_at=100.0, now=99.0) == 100.0
    assert len(rows(database)) == 4
    assert prune_if_due(runtime, due_at=100.0, now=100.0) == 100.0 + PRUNE_SECONDS
    left = rows(database)
    assert len(left) == 2
    assert long in {row["query_id"] for row in left}


def test_many_old_rows_go_in_short_transactions(database, log, monkeypatch):
    monkeypatch.setattr("trace_dagster.registry.retention._CHANGES_AT_ONCE", 2)
    for _ in range(5):
        log.end(begun(log), "done", 1, 1)
    advance(database, 31 * DAY)
    assert Retention(database).prune_queries(30) == 5
    assert rows(database) == []


def test_links_and_sessions_go_a_day_after_their_end_and_tokens_later(database):
    tokens = Tokens(database)
    session = tokens.use_link(tokens.link("ann"))
    tokens.link("unused")
    tokens.new("revoked", expires_in=None)
    tokens.revoke("revoked")
    live = tokens.new("live", expires_in=None)

    def left():
        Retention(database).prune_queries(30)
        return sorted((each.caller.name, each.caller.kind) for each in tokens.list())

    advance(database, DAY / 4)
    assert tokens.caller(session).name == "ann"
    advance(database, DAY)  # the link ended more than a day ago, its session did not
    assert left() == [("ann", "link"), ("ann", "session"), ("live", "token"), ("revoked", "token")]
    advance(database, DAY)
    assert left() == [("live", "token"), ("revoked", "token")]
    advance(database, 30 * DAY)
    assert left() == [("live", "token")]
    tokens.caller(live)
