"""What the service tells of the lake: datasets, files and its own health, to each token what it may see."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from uuid import uuid4, uuid5

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import cloned_database, fresh_bucket
from tests.support.followed import settled_tip, time_of
from tests.support.registry import ingesting
from tests.support.service import running_service
from trace_dagster.blocks import MAX_BLOCK, BlockRange
from trace_dagster.ingest.commit import CommitTarget, RangeRows
from trace_dagster.registry.catalog import Catalog
from trace_dagster.registry.changes import ChangeLog
from trace_dagster.registry.connection import Database
from trace_dagster.registry.jobs import Jobs
from trace_dagster.store.objects import ObjectStore

pytestmark = pytest.mark.integration

SECRET = "holders_of_secret"


@pytest.fixture(scope="module")
def lake(postgres, template_database, s3_server):
    """Return a service over two chains with the same streams, and a derived dataset of the second one."""
    with cloned_database(*postgres, template_database) as url, fresh_bucket(s3_server) as access:
        database, store = Database(url), ObjectStore(access)
        first = settled_tip(database, store, 143)
        settled_tip(database, store, 1)
        derive(database, store, 1, SECRET)
        with running_service(url, access) as service:
            service.tip, service.database, service.store = first, database, store
            service.of_143 = service.new_token("of_143", "chain_143.*")
            service.of_logs = service.new_token("of_logs", "chain_1.logs", "chain_7.*")
            yield service
        database.close()


def derive(database, store, chain_id, key):
    dataset, blocks = uuid4(), BlockRange(0, 200)
    Jobs(database).add_derived(dataset, chain_id, key, {})
    table = pa.table({"block_number": [1, 2], "amount": pa.array([1, 2], pa.decimal128(38, 0))})
    target = CommitTarget(dataset, key, key, chain_id, blocks, "derived", table.schema, prefix="derived", whole=True)
    rows = RangeRows([table], lambda: {"asked": "off", "level": "derived"}, {"name": "duckdb", "version": "1"})
    with ingesting(database, store) as ingest:
        ingest.commit_derived(dataset, uuid5(dataset, blocks.key), target, rows, "run")


def names(answer):
    return [each["name"] for each in answer.json()["datasets"]]


def test_a_dataset_has_its_columns_blocks_rows_and_age(lake):
    found = lake.ask("/v1/datasets/chain_143.logs").json()
    assert (found["name"], found["kind"], found["dataset"], found["chain_id"]) == (
        "chain_143.logs",
        "stream",
        "logs",
        143,
    )
    columns = {each["name"]: each for each in found["columns"]}
    assert list(columns)[:2] == ["block_number", "block_timestamp"]
    assert columns["block_timestamp"]["type"] == "TIMESTAMP WITH TIME ZONE"
    assert columns["topic0"] == {
        "name": "topic0", "type": "BLOB", "description": "topics of the log; null if there are fewer"
    }  # fmt: skip
    assert found["coverage"] == {
        "first_block": 0,
        "last_block": 299,
        "hot_from": 200,
        "last_committed": 199,
        "missing_blocks": 0,
        "gaps": [],
        "wanted_from": 0,
        "wanted_to": None,
    }
    assert (found["ranges"], found["levels"]) == (2, {"full": 2})
    files = lake.ask("/v1/datasets/chain_143.logs/files").json()["files"]
    assert (found["rows"], found["bytes"]) == (
        sum(each["rows"] for each in files),
        sum(each["bytes"] for each in files),
    )
    fresh = found["freshness"]
    assert datetime.fromisoformat(fresh["last_block_time"]) == time_of(299)
    age = (datetime.now(UTC) - time_of(299)).total_seconds()
    assert fresh["age_seconds"] == pytest.approx(age, abs=60)
    assert (datetime.now(UTC) - datetime.fromisoformat(fresh["committed_at"])).total_seconds() < 600


def test_heads_of_a_chain_have_labels_numbers_hashes_and_ages(lake):
    chain = lake.ask("/v1/datasets/chain_143.logs").json()["chain"]
    assert (chain["chain_id"], chain["name"]) == (143, "Monad")
    heads = [(each["tag"], each["label"], each["number"], each["hash"]) for each in chain["heads"]]
    assert heads == [
        ("latest", "proposed", 299, f"0x{299:064x}"),
        ("safe", "voted", 290, f"0x{290:064x}"),
        ("finalized", "finalized", 279, f"0x{279:064x}"),
    ]
    assert all(0 <= each["age_seconds"] < 600 for each in chain["heads"])


def test_a_derived_dataset_has_the_columns_of_its_template(lake):
    found = lake.ask(f"/v1/datasets/{SECRET}").json()
    assert (found["kind"], found["short_name"], found["rows"]) == ("derived", SECRET, 2)
    assert [(each["name"], each["type"]) for each in found["columns"]] == [
        ("block_number", "BIGINT"),
        ("amount", "DECIMAL(38,0)"),
    ]
    assert found["coverage"]["hot_from"] is None
    assert (found["coverage"]["wanted_from"], found["coverage"]["last_block"]) == (None, 199)


def test_a_token_sees_its_datasets_only(lake):
    everything = lake.ask("/v1/datasets")
    assert names(everything) == [
        "chain_1.blocks", "chain_1.logs", f"chain_1.{SECRET}", "chain_143.blocks", "chain_143.logs"
    ]  # fmt: skip
    assert {each["short_name"] for each in everything.json()["datasets"]} == {None, SECRET}
    limited = lake.ask("/v1/datasets", token=lake.of_143)
    assert names(limited) == ["chain_143.blocks", "chain_143.logs"]
    assert [each["short_name"] for each in limited.json()["datasets"]] == ["blocks", "logs"]
    assert [each["chain_id"] for each in limited.json()["chains"]] == [143]
    assert names(lake.ask("/v1/datasets", token=lake.of_logs)) == ["chain_1.logs"]


@pytest.mark.parametrize("path", ["", "/files"])
def test_what_a_token_may_not_see_does_not_exist(lake, path):
    hidden = lake.ask(f"/v1/datasets/chain_1.{SECRET}{path}", token=lake.of_143)
    assert hidden.status == 404
    missing = lake.ask(f"/v1/datasets/chain_1.nothing{path}", token=lake.of_143)
    assert hidden.error == missing.error
    assert SECRET not in str(hidden.error)
    assert lake.ask(f"/v1/datasets/logs{path}", token=lake.of_143).status == 200
    assert lake.ask(f"/v1/datasets/logs{path}").status == 404  # two chains have it
    assert lake.ask(f"/v1/datasets/chain_143.logs{path}", token=lake.of_logs).status == 404
    assert lake.ask(f"/v1/datasets/chain_1.logs{path}", token=None).status == 401


def test_the_files_are_those_of_a_snapshot_with_what_a_reader_needs_to_check_them(lake):
    found = lake.ask("/v1/datasets/chain_143.blocks/files").json()
    assert (found["dataset"], found["hot_from"], found["last_committed"]) == ("chain_143.blocks", 200, 199)
    assert (found["from_block"], found["to_block"]) == (0, MAX_BLOCK)
    assert found["cursor"] == ChangeLog(lake.database).now()
    rows = []
    for each in found["files"]:
        assert each["uri"] == f"s3://{lake.store.access.bucket}/{each['key']}"
        assert each["masked"] == []
        stored = lake.store.stored_now(each["key"])
        assert (stored.bytes, stored.etag) == (each["bytes"], each["etag"])
        assert lake.store.sha256(each["key"]) == each["sha256"]
        table = pq.read_table(pa.BufferReader(lake.store.get(each["key"])[0]), columns=["block_number"])
        assert each["rows"] == table.num_rows
        numbers = table.column(0).to_pylist()
        assert each["first_block"] <= min(numbers) <= max(numbers) <= each["last_block"]
        rows += numbers
    assert sorted(rows) == list(range(200))


def test_files_of_some_blocks(lake):
    path = "/v1/datasets/chain_143.blocks/files"
    assert [each["first_block"] for each in lake.ask(f"{path}?from_block=100").json()["files"]] == [100]
    assert [each["first_block"] for each in lake.ask(f"{path}?to_block=100").json()["files"]] == [0]
    assert lake.ask(f"{path}?from_block=200").json()["files"] == []
    assert lake.ask(f"{path}?from_block=5&to_block=5").status == 400
    for wrong in ("from_block=-1", "to_block=1e3", f"to_block={2**63}", "from_block=", "from_block=0x10"):
        assert lake.ask(f"{path}?{wrong}").status == 422


def test_masked_blocks_of_a_file_are_listed(lake):
    key = lake.ask("/v1/datasets/chain_1.blocks/files").json()["files"][0]["key"]
    with lake.database.connection() as connection:
        connection.execute("update trace.files set masked_blocks = '{[3,5),[9,10)}' where file_key = %s", (key,))
    assert lake.ask("/v1/datasets/chain_1.blocks/files").json()["files"][0]["masked"] == [[3, 5], [9, 10]]


@pytest.mark.parametrize("name", ["%00", "a" * 101, "chain_143.logs%0a", "..%2f..%2fetc", "%ff", "'%20or%201=1"])
def test_names_that_are_none_are_refused_in_the_shape_of_errors(lake, name):
    answer = lake.ask(f"/v1/datasets/{name}")
    assert answer.status in (404, 422)
    assert answer.error["code"] in ("unknown_dataset", "wrong_form", "not_found")


def test_a_client_that_does_not_read_its_files_holds_no_connection_of_the_registry(lake):
    with socket.create_connection(("127.0.0.1", lake.port)) as slow:
        slow.sendall(
            b"GET /v1/datasets/chain_143.logs/files HTTP/1.1\r\nHost: localhost\r\n"
            b"Authorization: Bearer %b\r\n\r\n" % lake.token.encode()
        )
        time.sleep(1)
        with lake.database.connection() as connection:
            (row,) = connection.execute(
                "select count(*) as n from pg_stat_activity"
                " where state like 'idle in transaction%' and datname = current_database()"
            )
        assert row["n"] == 0


def test_requests_that_wait_to_list_files_keep_no_other_request_waiting(lake, monkeypatch):
    listing, may_go_on = Catalog.listing, threading.Event()

    def slow(*arguments):
        may_go_on.wait(60)
        return listing(*arguments)

    monkeypatch.setattr(Catalog, "listing", slow)
    with ThreadPoolExecutor(50) as threads:  # more than the service has threads for requests
        waiting = [threads.submit(lake.ask, "/v1/datasets/chain_143.logs/files") for _ in range(50)]
        time.sleep(2)
        began = time.monotonic()
        assert lake.ask("/v1/datasets").status == 200
        assert time.monotonic() - began < 6  # a turn is waited for 10 s
        may_go_on.set()
    assert {each.result().status for each in waiting} <= {200, 429}


def test_health_needs_no_token_and_tells_nothing_else(lake):
    answer = lake.ask("/healthz", token=None)
    assert (answer.status, answer.json()) == (200, {"status": "ok", "away": []})


def test_metrics_need_a_token_that_may_see_everything(lake):
    answer = lake.ask("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b"trace_query_listeners 0.0" in answer.body
    limited = lake.ask("/metrics", token=lake.of_143)
    assert (limited.status, limited.error["code"]) == (403, "limited_token")
    assert b'trace_query_denials_total{reason="rights"} 1.0' in lake.ask("/metrics").body
    assert lake.ask("/metrics", token=None).status == 401
