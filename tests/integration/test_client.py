"""The Python client against a real service over committed rows of the devchain."""

from __future__ import annotations

import datetime
import subprocess
import sys
import time
from decimal import Decimal

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import trace_dagster
from tests.conftest import cloned_database, fresh_bucket
from tests.support.corpus_lake import commit_lake
from tests.support.service import running_service, service_process
from tests.support.sql_corpora import CHAIN_ID, lake_tables
from trace_dagster.errors import InvalidInput, NoAccess, TooMany, Unavailable
from trace_dagster.registry.connection import Database
from trace_dagster.store.objects import ObjectStore

pytestmark = pytest.mark.integration
BLOCKS = 120
ENDLESS = "select count(*) from range(1000000) a, range(1000000) b where a.range + b.range = -1"
BREAKS = "select case when range = 3000000 then 'x' else hash(range)::varchar end::ubigint as n from range(3000010)"
MARKS = "select (range - range + 4294967295)::bigint as a from range(30000000)"
"""Rows that look like the mark at the end of an Arrow stream."""
MANY = "select range as n, range * 2 as twice, 'row number ' || range as text from range({rows})"


@pytest.fixture(scope="module")
def filled(postgres, template_database, s3_server):
    """Commit the devchain's first blocks; return the registry's URL and the bucket."""
    with cloned_database(*postgres, template_database) as url, fresh_bucket(s3_server) as access:
        database = Database(url)
        commit_lake(database, ObjectStore(access), BLOCKS)
        database.close()
        yield url, access


@pytest.fixture(scope="module")
def service(filled):
    with running_service(*filled) as found:
        yield found


@pytest.fixture(scope="module")
def lake(service):
    return trace_dagster.connect(service.url, service.token, retries=0)


def test_rows_are_those_of_the_chain(lake):
    expected = lake_tables(BLOCKS)["blocks"].select(["block_number", "gas_used"]).sort_by("block_number")
    sql = "select block_number, gas_used from blocks order by block_number"
    found = lake.sql(sql).arrow()
    assert found.to_pylist() == expected.to_pylist()
    assert lake.sql(sql).pl().equals(pl.from_arrow(found))
    assert lake.sql(sql).df()["block_number"].tolist() == list(range(BLOCKS))
    assert lake.json(sql, limit=2)["rows"] == [list(row.values()) for row in expected.to_pylist()[:2]]
    assert lake.json(sql, limit=2)["truncated"]


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        2**62,
        -(2**100),
        0.1,
        Decimal("1.50"),
        b"\x00\xff",
        "it's",
        datetime.date(2024, 5, 1),
        datetime.datetime(2024, 5, 1, 12, 0, 0, 1),
        datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.UTC),
        [1, 2],
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_parameter_comes_back_as_it_was_sent(lake, value):
    assert lake.sql("select $x as x", {"x": value}).arrow()["x"].to_pylist() == [value]
    assert lake.sql("select ? as x", [value]).arrow()["x"].to_pylist() == [value]


def test_a_hash_is_compared_as_bytes(lake):
    (wanted,) = lake.sql("select block_hash from blocks where block_number = 7").arrow()["block_hash"].to_pylist()
    sql = "select block_number from blocks where block_hash = $h"
    assert lake.sql(sql, {"h": wanted}).arrow().to_pylist() == [{"block_number": 7}]
    assert lake.sql(sql, {"h": "0x" + wanted.hex()}).arrow().to_pylist() == [{"block_number": 7}]


def test_a_cut_holds_and_is_in_the_snapshot(lake):
    result = lake.sql("select max(block_number) as m from blocks", as_of=50)
    assert result.arrow().to_pylist() == [{"m": 50}]
    assert result.snapshot["cuts"] == [{"chain_id": CHAIN_ID, "block": 50}]
    assert lake.sql("select max(block_number) as m from blocks", as_of=[60, "common"]).arrow()["m"].to_pylist() == [60]


def test_errors_are_raised_by_the_call(lake, service):
    with pytest.raises(InvalidInput, match="nothing"):
        lake.sql("select * from nothing")
    with pytest.raises(InvalidInput, match=r"\$x has no value: give it one$"):
        lake.sql("select $x")
    with pytest.raises(NoAccess):
        trace_dagster.connect(service.url, "trace_" + "x" * 43).sql("select 1")
    with pytest.raises(NoAccess):
        trace_dagster.connect(service.url).datasets()


def test_a_file_has_the_rows_in_each_format(lake, tmp_path):
    sql = "select block_number, block_hash from blocks order by block_number"
    expected = lake.sql(sql).arrow()
    assert pq.read_table(lake.save(sql, tmp_path / "rows.parquet")).to_pylist() == expected.to_pylist()
    with pa.ipc.open_stream(lake.save(sql, tmp_path / "rows.arrow")) as reader:
        assert reader.read_all() == expected
    text = lake.save(sql, tmp_path / "rows.csv").read_text().splitlines()
    assert text[0] == "block_number,block_hash"
    assert text[8] == f"7,0x{expected['block_hash'][7].as_py().hex()}"


def test_a_limit_holds_for_streams(lake):
    assert lake.sql(MANY.format(rows=100), limit=7).arrow().num_rows == 7


def test_a_token_sees_its_datasets_only(service):
    limited = trace_dagster.connect(service.url, service.new_token("logs", f"chain_{CHAIN_ID}.logs"))
    assert [each.name for each in limited.datasets()] == [f"chain_{CHAIN_ID}.logs"]
    with pytest.raises(InvalidInput):
        limited.dataset("blocks")
    with pytest.raises(InvalidInput):
        limited.sql("select * from blocks")


def test_datasets_say_what_there_is(lake):
    found = {each.short_name: each for each in lake.datasets()}
    blocks = found["blocks"]
    assert (blocks.first_block, blocks.last_block, blocks.rows, blocks.missing_blocks) == (0, BLOCKS - 1, BLOCKS, 0)
    assert lake.dataset("blocks").columns == blocks.columns
    assert ("block_number", "BIGINT") in {(each.name, each.type) for each in blocks.columns}
    assert "<td>chain_" in lake.datasets()._repr_html_()
    assert "block_number" in blocks._repr_html_()
    files = lake.files("blocks")["files"]
    assert sum(each["rows"] for each in files) == BLOCKS
    assert len(lake.files("blocks", from_block=100)["files"]) == 1


def test_changes_are_those_of_the_log(lake):
    found = list(lake.changes())
    assert {each.kind for each in found} == {"committed"}
    assert len(found) == 4 * 3
    assert [each.cursor for each in lake.changes(found[4].cursor)] == [each.cursor for each in found[5:]]
    assert list(lake.changes(lake.cursor())) == []


def test_a_result_that_is_left_ends_its_query_on_the_server(lake, service):
    with lake.sql(MANY.format(rows=500_000_000)) as result:
        batches = result.batches()
        next(batches)
        assert service.ask(f"/v1/queries/{result.query_id}").status == 200
    _until(lambda: service.ask(f"/v1/queries/{result.query_id}").status == 404)


def test_too_many_queries_have_an_error_of_their_own(service):
    token = service.new_token("one", max_queries=1)
    lake = trace_dagster.connect(service.url, token, retries=0)
    with lake.sql(MANY.format(rows=500_000_000)) as result:
        batches = result.batches()
        next(batches)
        with pytest.raises(TooMany) as raised:
            lake.sql("select 1")
    assert raised.value.facts["retry_after_seconds"] > 0


def test_batches_need_no_more_memory_for_more_rows(service):
    program = f"""
import resource, trace_dagster
lake = trace_dagster.connect({service.url!r}, {service.token!r})
def read(rows):
    count = sum(batch.num_rows for batch in lake.sql({MANY!r}.format(rows=rows)).batches())
    assert count == rows, count
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
few, many = read(300_000), read(6_000_000)
print(many - few)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 64, "MiB more; the rows are 200 MB"


@pytest.mark.parametrize("victim", ["the service", "the query's process"])
def test_an_answer_whose_sender_dies_raises(filled, victim):
    with service_process(*filled) as service:
        lake = trace_dagster.connect(service.url, service.token, retries=0)
        result = lake.sql(MANY.format(rows=500_000_000))
        batches = result.batches()
        rows = next(batches).num_rows
        _kill(service, victim)
        with pytest.raises(Unavailable, match="broke off"):
            rows += sum(each.num_rows for each in batches)
        assert 0 < rows < 500_000_000


def test_an_answer_that_broke_off_raises_when_it_is_read_again(lake):
    transfer = lake.stream(BREAKS, "csv")
    for _ in range(2):
        with pytest.raises(Unavailable, match="broke off"):
            b"".join(transfer)
    result = lake.sql(BREAKS)
    for read in (result.arrow, result.pl, result.df, lambda: list(result.batches())):
        with pytest.raises(Unavailable, match="broke off"):
            read()


def test_a_form_that_is_not_streamed_is_refused(lake):
    with pytest.raises(InvalidInput, match=r"streamed as arrow, csv, parquet, not as 'json'; see also \.json\(\)"):
        lake.stream(MARKS, "json")


def test_rows_of_a_result_that_was_closed_never_look_whole(lake):
    result = lake.sql(MARKS)
    batches = result.batches()
    next(batches)
    result.close()
    for _ in range(2):
        with pytest.raises(Unavailable, match="was closed before its end"):
            list(batches)


def test_integers_beside_nulls_are_exact_in_pandas(lake):
    sql = "select * from (values (9007199254740993, 18446744073709551615::ubigint, [9007199254740993, null])"
    frame = lake.sql(f"{sql}, (null, null, null)) as rows(signed, unsigned, list)").df()
    assert frame["signed"].tolist()[:1] == [2**53 + 1]
    assert frame["unsigned"].tolist()[:1] == [2**64 - 1]
    assert list(frame["list"][0]) == [2**53 + 1, None]
    assert frame["signed"].isna().tolist() == [False, True]


def _kill(service, victim):
    import psutil

    process = psutil.Process(service.process.pid)
    if victim == "the service":
        process.kill()
        return
    busiest = max(process.children(recursive=True), key=lambda each: sum(each.cpu_times()[:2]))
    busiest.kill()


def _until(is_so, seconds=10):
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)
