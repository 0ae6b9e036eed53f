"""Notes about methods that are not asked at an endpoint for a while, and the migration that empties the scores."""

from __future__ import annotations

import json
from uuid import uuid4

import psycopg
import pytest
from click.testing import CliRunner

from tests.integration.test_finality import job_text
from tests.support.clock import advance
from tests.support.gateways import watched
from tests.support.nodes import environment, running
from trace_dagster.blocks import BlockRange
from trace_dagster.cli.main import main
from trace_dagster.config.chain_sync import parse
from trace_dagster.devchain.chain import DevChain
from trace_dagster.lite.postgres import dsn
from trace_dagster.registry import migrations
from trace_dagster.registry.connection import Database
from trace_dagster.registry.endpoint_scores import EndpointScores
from trace_dagster.registry.jobs import Bounds
from trace_dagster.registry.migrations import migrate
from trace_dagster.registry.unreliable_methods import UNRELIABLE_SECONDS, UnreliableMethods
from trace_dagster.rpc.pools import RpcPool

pytestmark = pytest.mark.integration

POOL = RpcPool("dev", ("http://127.0.0.1:1/", "http://127.0.0.1:2/"))
FIRST, SECOND = POOL.endpoints
REASON = "eth_getLogs leaves out 3 of 12 proven logs of block 7"


def test_a_method_is_unreliable_at_one_endpoint_for_an_hour(database):
    methods = UnreliableMethods(database)
    assert not methods.is_unreliable(FIRST, "eth_getLogs")
    methods.note_unreliable(FIRST, "eth_getLogs", REASON)
    assert methods.is_unreliable(FIRST, "eth_getLogs")
    assert not methods.is_unreliable(FIRST, "eth_getBlockReceipts")
    assert not methods.is_unreliable(SECOND, "eth_getLogs")
    assert UnreliableMethods(database).is_unreliable(FIRST, "eth_getLogs"), "another process"
    advance(database, UNRELIABLE_SECONDS - 60)
    assert UnreliableMethods(database).is_unreliable(FIRST, "eth_getLogs")
    advance(database, 61)
    assert not UnreliableMethods(database).is_unreliable(FIRST, "eth_getLogs")
    assert UnreliableMethods(database).all() == []


def test_a_note_is_no_lie_and_a_new_one_replaces_it(database):
    methods = UnreliableMethods(database)
    methods.note_unreliable(FIRST, "eth_getLogs", REASON)
    advance(database, 600)
    methods.note_unreliable(FIRST, "eth_getLogs", "another \0 reason")
    (found,) = methods.all()
    assert (found.endpoint, found.method) == ("dev#1", "eth_getLogs")
    assert "\0" not in found.reason
    assert UNRELIABLE_SECONDS - 60 < found.left_seconds <= UNRELIABLE_SECONDS
    assert EndpointScores(database).all() == []


def test_notes_that_no_longer_hold_are_deleted(database):
    methods = UnreliableMethods(database)
    methods.note_unreliable(FIRST, "eth_getLogs", REASON)
    advance(database, UNRELIABLE_SECONDS + 1)
    methods.note_unreliable(SECOND, "eth_getLogs", REASON)
    with database.connection() as connection:
        rows = connection.execute("select name from trace.unreliable_methods").fetchall()
    assert [row["name"] for row in rows] == ["dev#2"]


def test_status_shows_the_notes(database, postgres_url, s3):
    UnreliableMethods(database).note_unreliable(FIRST, "eth_getLogs", REASON)
    variables = environment(postgres_url, s3)
    shown = CliRunner().invoke(main, ["status"], env=variables)
    assert "methods unreliable here" in shown.output
    assert all(word in shown.output for word in ("dev#1", "eth_getLogs", "leaves out"))
    shown = CliRunner().invoke(main, ["status", "--json"], env=variables)
    (found,) = json.loads(shown.stdout)["unreliable_methods"]
    assert (found["endpoint"], found["method"], found["reason"]) == ("dev#1", "eth_getLogs", REASON)


def test_a_migration_empties_the_scores_of_the_old_rule(postgres, monkeypatch):
    port, password = postgres
    name = f"t{uuid4().hex}"
    with psycopg.connect(dsn(port, password, "postgres"), autocommit=True) as connection:
        connection.execute(f"create database {name}")
        url = dsn(port, password, name)
        shipped = migrations._shipped()
        older = {each: text for each, text in shipped.items() if each < "0009"}
        monkeypatch.setattr(migrations, "_shipped", lambda: older)
        migrate(url)
        database = Database(url)
        try:
            EndpointScores(database).record_lie(FIRST, "a form that was not known")
            assert len(EndpointScores(database).all()) == 1
            monkeypatch.setattr(migrations, "_shipped", lambda: shipped)
            assert "0009_nodes.sql" in migrate(url)
            assert EndpointScores(database).all() == []
            EndpointScores(database).record_lie(FIRST, "a contradiction of a known form")
            assert [each.lies for each in EndpointScores(database).all()] == [1]
        finally:
            database.close()
            connection.execute(f"drop database {name} with (force)")


class Doubled:
    """A node's methods that return every log twice."""

    def __init__(self, methods):
        self._methods = methods

    def answer(self, call):
        """Return the answer to a call, as bytes."""
        answer = json.loads(self._methods.answer(call))
        if call["method"] == "eth_getLogs":
            answer["result"] = [log for log in answer["result"] for _ in range(2)]
        return json.dumps(answer).encode()


def test_logs_that_proven_receipts_contradict_are_a_note_and_no_lie(postgres_url, s3):
    text = job_text(mode="{kind: fixed_target, from_block: 0, to_block: 50}").replace("structural", "full")
    with watched(DevChain(7, 120)) as node, running(postgres_url, s3, dev=node.url) as runtime:
        node.methods = Doubled(node.methods)
        runtime.jobs.apply(parse(text.replace("cryo_dataset_name: blocks", "cryo_dataset_name: logs")), Bounds(0, 50))
        (stream,) = runtime.jobs.streams()
        runtime.ingester.commit(
            runtime.ingester.start(runtime.ingester.claim(stream, BlockRange(0, 50), "run", wait_seconds=0))
        )
        (found,) = runtime.unreliable_methods.all()
        assert (found.endpoint, found.method) == ("dev#1", "eth_getLogs")
        assert runtime.endpoint_scores.all() == []
