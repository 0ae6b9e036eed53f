"""Queries by HTTP: answers as JSON, and the shape and status of every error."""

import csv
import io
import json
import time
from contextlib import closing
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.service import running_service, small_lake
from trace_dagster.registry.connection import Database

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
BLOCKS = 60


@pytest.fixture(scope="module")
def lake(postgres, template_database, s3_server):
    with small_lake(postgres, template_database, s3_server, BLOCKS) as found:
        yield found


@pytest.fixture(scope="module")
def service(lake):
    with running_service(*lake) as running:
        yield running


@pytest.fixture
def database(lake):
    with closing(Database(lake[0])) as opened:
        yield opened


def test_an_answer_has_rows_snapshot_and_the_id_of_the_query(service):
    query_id = str(uuid4())
    answer = service.query(
        "select count(*) as n, max(block_number) as last from blocks", headers={"Trace-Query-Id": query_id}
    )
    assert answer.status == 200
    found = answer.json()
    assert found["query_id"] == query_id == answer.headers["Trace-Query-Id"]
    assert found["columns"] == [{"name": "n", "type": "BIGINT"}, {"name": "last", "type": "BIGINT"}]
    assert found["rows"] == [[BLOCKS, BLOCKS - 1]]
    assert found["truncated"] is False
    assert [each["name"] for each in found["snapshot"]["relations"]] == ["chain_99.blocks"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_formats_have_their_rows_type_and_name(service):
    sql = "select block_number, block_hash from blocks order by 1"
    expected = list(range(BLOCKS))
    answer = service.query(sql, format="arrow")
    assert answer.headers["Content-Type"] == "application/vnd.apache.arrow.stream"
    assert pa.ipc.open_stream(answer.body).read_all()["block_number"].to_pylist() == expected
    answer = service.query(sql, format="parquet")
    assert answer.headers["Content-Type"] == "application/vnd.apache.parquet"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="query.parquet"'
    assert pq.read_table(io.BytesIO(answer.body))["block_number"].to_pylist() == expected
    answer = service.query(sql, format="csv")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
    lines = list(csv.reader(io.StringIO(answer.body.decode())))
    assert [line[0] for line in lines] == ["block_number", *map(str, expected)]
    assert json.loads(answer.headers["Trace-Snapshot"])["relations"][0]["name"] == "chain_99.blocks"


def test_a_limit_holds_for_every_format(service):
    plan = "explain select * from blocks where block_number > 5"
    assert service.query(plan, limit=1).json()["truncated"] is True
    assert len(service.query(plan, limit=1, format="csv").body.splitlines()) == 2
    sql = "select block_number from blocks order by block_number desc"
    assert service.query(sql, limit=3).json()["truncated"] is True
    assert service.query(sql, limit=3, format="csv").body.split() == [b"block_number", b"59", b"58", b"57"]
    assert pa.ipc.open_stream(service.query(sql, limit=2, format="arrow").body).read_all().num_rows == 2
    assert pq.read_table(io.BytesIO(service.query(sql, limit=5, format="parquet").body)).num_rows == 5


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/csv", "text/csv"),
        ("application/vnd.apache.arrow.stream;q=0.5, text/csv;q=0.1", "application/vnd.apache.arrow.stream"),
        ("*/*", "application/json"),
        ("text/html, application/vnd.apache.parquet", "application/vnd.apache.parquet"),
        ("text/csv;q=0, ;;,q=;q=x", "application/json"),
    ],
)
def test_the_accept_header_chooses_the_format_if_the_body_does_not(service, accept, kind):
    answer = service.query("select 1 as a", headers={"Accept": accept})
    assert answer.headers["Content-Type"].partition(";")[0] == kind
    answer = service.query("select 1 as a", format="json", headers={"Accept": accept})
    assert answer.headers["Content-Type"] == "application/json"


def test_parameters_keep_their_exact_values(service):
    values = {"a": 12345678901234567890123456789012345678, "b": 7, "c": [1, 2], "d": None, "e": "it's"}
    (row,) = service.rows("select $a::varchar, $b + 1, len($c), $d, $e", parameters=values)
    assert row == ["12345678901234567890123456789012345678", 8, 2, None, "it's"]
    body = b'{"sql": "select ?::varchar, typeof(?)", "parameters": [0.1000000000000000055511151231257827, 1.50]}'
    answer = service.ask("/v1/query", body)
    assert answer.json()["rows"] == [[".1000000000000000055511151231257827", "DECIMAL(3,2)"]]  # as DuckDB writes it


def test_as_of_cuts_the_rows(service):
    for as_of in (9, "9", [9], ["9"], [9, "common"]):
        assert service.rows("select count(*) from blocks", as_of=as_of) == [[10]]
    assert service.rows("select count(*) from blocks", finalized_only=True) == [[BLOCKS]]


def test_an_empty_list_is_no_cut(service):
    found = service.query("select 1", as_of=[]).error
    assert (found["status"], found["code"]) == (422, "wrong_form")
    assert "'as_of': an empty list is no cut: leave it out" in found["message"]


@pytest.mark.parametrize("form", ["json", "csv"])
@pytest.mark.parametrize("as_of", ["yesterday", "2024-05-01T12:00:00", [1, 2], 2**62])
def test_a_query_with_a_wrong_cut_is_refused_and_logged(service, database, form, as_of):
    answer = service.query("select count(*) from blocks", as_of=as_of, format=form)
    assert answer.status == 400
    assert "as_of" in answer.error["message"] or "needs a zone" in answer.error["message"]
    assert answer.headers["Trace-Query-Id"] == answer.error["query_id"]
    assert logged(database, answer.error["query_id"])["outcome"] == "refused"


WRONG_BODIES = [
    b"",
    b"select 1",
    b"[]",
    b"null",
    b'"select 1"',
    b"{}",
    b'{"sql": ""}',
    b'{"sql": 1}',
    b'{"sql": null}',
    b'{"sql": "select 1", "sql": "select 2"}',
    b'{"sql": "select 1", "unknown": 1}',
    b'{"sql": "select 1", "limit": true}',
    b'{"sql": "select 1", "limit": 0}',
    b'{"sql": "select 1", "limit": -1}',
    b'{"sql": "select 1", "limit": 10001}',
    b'{"sql": "select 1", "limit": 1.0}',
    b'{"sql": "select 1", "limit": "5"}',
    b'{"sql": "select 1", "limit": 1e2}',
    b'{"sql": "select 1", "limit": 9223372036854775808, "format": "csv"}',
    b'{"sql": "select 1", "limit": ' + b"9" * 5000 + b"}",
    b'{"sql": "select 1", "format": "xml"}',
    b'{"sql": "select 1", "format": ["json"]}',
    b'{"sql": "select 1", "as_of": true}',
    b'{"sql": "select 1", "as_of": 1.5}',
    b'{"sql": "select 1", "as_of": {}}',
    b'{"sql": "select 1", "as_of": [[1]]}',
    b'{"sql": "select 1", "as_of": -1}',
    b'{"sql": "select 1", "finalized_only": 1}',
    b'{"sql": "select 1", "finalized_only": "yes"}',
    b'{"sql": "select 1", "parameters": "a"}',
    b'{"sql": "select 1", "parameters": [NaN]}',
    b'{"sql": "select 1", "parameters": [-Infinity]}',
    b'{"sql": "select 1", "parameters": [1e99999999999999999999]}',
    b'{"sql": "select \\ud800"}',
    b'{"sql": "select 1", "parameters": ["\\udfff"]}',
    b'{"sql": "select 1", "parameters": {"\\ud800": 1}}',
    b'{"sql": "\xff\xfe"}',
    '{"sql": "select 1"}'.encode("utf-16"),
    b'\xef\xbb\xbf{"sql": "select 1"}',
    b"[" * 200_000,
    b'{"sql": "select 1", "parameters": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"sql": "select 1"} x',
    b"\x1f\x8b\x08\x00",
]


@pytest.mark.parametrize("number", range(len(WRONG_BODIES)))
def test_a_body_of_another_form_is_refused(service, number):
    answer = service.ask("/v1/query", WRONG_BODIES[number], method="POST")
    assert answer.status == 422, answer.body
    assert answer.error["code"] in {"no_json", "wrong_form"}


WRONG_QUERIES = [
    ({"sql": "select"}, "not valid SQL"),
    ({"sql": "drop table blocks"}, ""),
    ({"sql": "select * from nothing"}, "nothing"),
    ({"sql": "select $a"}, "$a"),
    ({"sql": "select 1", "parameters": {"b": 1}}, "$b"),
    ({"sql": "select $a", "parameters": {"a": 10**38 * 10}}, "38 digits"),
    ({"sql": "select $a", "parameters": {"a": {"x": 1}}}, "$a"),
    ({"sql": "select $a", "parameters": {"a": 1, "A": 2}}, "same name"),
    ({"sql": "select $a", "parameters": {"a": "\0"}}, "NUL"),
    ({"sql": "select \0"}, ""),
    ({"sql": "select 'a'::int"}, "Could not convert"),
    ({"sql": "select 1; select 2"}, ""),
]


@pytest.mark.parametrize("form", ["json", "csv"])
def test_a_query_that_is_wrong_is_a_400_that_says_why(service, form):
    for members, text in WRONG_QUERIES:
        answer = service.ask("/v1/query", {**members, "format": form})
        assert answer.status == 400, answer.body
        assert answer.error["code"] == "invalid"
        assert text in answer.error["message"]
        assert answer.error["query_id"] == answer.headers["Trace-Query-Id"]


@pytest.mark.parametrize("depth", [50, 500, 900, 2000, 5000])
def test_deeply_nested_parameters_are_an_error_of_the_caller(service, depth):
    body = b'{"sql": "select $a", "parameters": {"a": ' + b"[" * depth + b"]" * depth + b"}}"
    answer = service.ask("/v1/query", body)
    assert answer.status in {200, 400, 422}, answer.body


def test_a_body_or_sql_that_is_too_large_is_a_413(service):
    assert service.query("select " + "1" * 100_000).error["code"] == "sql_too_large"
    assert service.query("select '" + "\N{SNOWMAN}" * 40_000 + "'").error["code"] == "sql_too_large"
    assert service.query("select 1", parameters=["x" * (1 << 20)]).error["code"] == "body_too_large"
    assert service.rows("select len(?)", parameters=["x" * 900_000]) == [[900_000]]


def test_a_list_of_thousands_of_values_is_a_parameter(service):
    (known,) = service.rows("select block_hash from blocks where block_number = 7")[0]
    hashes = [{"type": "binary", "value": "0x" + number.to_bytes(32).hex()} for number in range(6000)]
    texts = [each["value"] for each in hashes]
    for many in ([*hashes, {"type": "binary", "value": known}], [*texts, known]):
        asked = {"parameters": {"many": many}}
        assert service.rows("select block_number from blocks where block_hash in $many", **asked) == [[7]]
        counted = "select count(*) filter (where block_hash in $many), $one + 1, 'x' as \"$one\" from blocks"
        answer = service.query(counted, parameters={"many": many, "one": 5}).json()
        assert answer["rows"] == [[1, 6, "x"]]
        names = ["count_star() FILTER (WHERE contains($many, block_hash))", "($one + 1)", "$one"]
        assert [each["name"] for each in answer["columns"]] == names
    chosen = "select 1 as \"CAST('5' AS BIGINT)\", $one + 1"
    answer = service.query(chosen, parameters={"one": 5}).json()
    assert [each["name"] for each in answer["columns"]] == ["CAST('5' AS BIGINT)", "($one + 1)"]
    numbers = {"parameters": {"many": [*range(30, 10_000)]}}
    assert service.rows("select count(*) from blocks where block_number in $many", **numbers) == [[30]]


def test_paths_methods_and_ids_have_errors_of_the_same_shape(service):
    assert service.ask("/nothing").error["status"] == 404
    assert service.ask("/v1/query/").error["status"] == 404
    answer = service.ask("/v1/query")
    assert (answer.error["status"], answer.headers["Allow"]) == (405, "POST")
    answer = service.ask(f"/v1/queries/{uuid4()}", method="PUT")
    assert (answer.error["status"], answer.headers["Allow"]) == (405, "DELETE, GET")
    assert service.ask(f"/v1/queries/{uuid4()}").error["status"] == 404
    assert service.ask(f"/v1/queries/{uuid4()}", method="DELETE").error["status"] == 404
    assert service.ask("/v1/queries/x").error["status"] == 422
    assert service.query("select 1", headers={"Trace-Query-Id": "x"}).error["status"] == 422
    assert service.query("select 1", headers={"Trace-Query-Id": "x"}, token=None).error["status"] == 401


def test_head_is_answered_as_get_without_a_body_outside_of_the_api(service):
    for path in ("/healthz", "/", "/login", "/page/main.js"):
        got, head = service.ask(path, token=None), service.ask(path, method="HEAD", token=None)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["Content-Type"] == got.headers["Content-Type"]
    assert service.ask("/healthz", token=None).status == 200, "the connection is still in order"
    assert service.ask("/nothing", method="HEAD").status == 404
    assert service.ask("/v1/datasets", method="HEAD").status == 405


def test_an_id_is_used_once(service):
    headers = {"Trace-Query-Id": str(uuid4())}
    assert service.query("select 1", headers=headers).status == 200
    assert service.query("select 1", headers=headers).error["status"] == 409


def test_what_a_token_may_not_see_does_not_exist_for_it(service):
    token = service.new_token("blocks-only", "chain_99.blocks")
    assert service.query("select count(*) from blocks", token=token).json()["rows"] == [[BLOCKS]]
    hidden = service.query("select count(*) from logs", token=token)
    absent = service.query("select count(*) from lags", token=token)
    assert hidden.status == absent.status == 400
    assert hidden.error["message"].replace("logs", "lags") == absent.error["message"]
    shown = service.query("select table_name from information_schema.tables", token=token, format="csv").body
    assert b"logs" not in shown


def test_every_query_is_logged_with_its_outcome(service, database):
    token = service.new_token("somebody")
    asked = {
        "done": {"sql": "select block_number from blocks", "format": "arrow"},
        "truncated": {"sql": "select block_number from logs", "limit": 2},
        "refused": {"sql": "select nothing"},
    }
    for outcome, members in asked.items():
        query_id = str(uuid4())
        service.ask("/v1/query", members, token=token, headers={"Trace-Query-Id": query_id})
        row = logged(database, query_id)
        assert (row["outcome"], row["token_name"], row["format"]) == (
            outcome,
            "somebody",
            members.get("format", "json"),
        )
        assert row["snapshot"] is not None or outcome == "refused"
    assert row["datasets"] == {}
    with database.connection() as connection:
        rows = connection.execute(
            "select outcome, rows, datasets from trace.query_log where token_name = 'somebody' order by started_at"
        ).fetchall()
    assert [(row["outcome"], row["rows"]) for row in rows] == [("done", BLOCKS), ("truncated", 2), ("refused", 0)]
    assert rows[0]["datasets"]["chain_99.blocks"]["files"] == 3


def logged(database, query_id):
    """Return the row of a query, once it has ended."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        with database.connection() as connection:
            row = connection.execute("select * from trace.query_log where query_id = %s", [query_id]).fetchone()
        if row and row["outcome"]:
            return row
        time.sleep(0.05)
    raise AssertionError("the query has no end in the log")


def test_the_openapi_document_describes_the_errors(service):
    document = service.ask("/openapi.json", token=None).json()
    query = document["paths"]["/v1/query"]["post"]
    assert {"200", "400", "401", "403", "408", "409", "413", "422", "429", "503"} <= query["responses"].keys()
    for status, found in query["responses"].items():
        if status != "200":
            assert found["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorBody")
    assert query["requestBody"]["content"]["application/json"]["schema"]["additionalProperties"] is False


OF_URLS = {
    "/v1/changes": "it has after, limit, wait",
    "/v1/datasets/{key}/files": "it has from_block, to_block",
}


def test_an_unknown_parameter_of_a_url_is_refused_with_the_known_ones(service):
    """It would be ignored: `/v1/changes?cursor=now` would begin at the oldest change."""
    paths = service.ask("/openapi.json", token=None).json()["paths"]
    asked = [(path, each) for path, item in paths.items() if path.startswith("/v1/") for each in item]
    assert len(asked) == 9
    for path, method in asked:
        url = path.format(key="blocks", query_id=uuid4())
        body = {"sql": "select 1"} if path == "/v1/query" else {"code": "x"}
        given = {"method": method.upper(), "body": None if method in {"get", "delete"} else body}
        answer = service.ask(f"{url}?surprise=1", **given)
        assert (answer.status, answer.error["code"]) == (422, "wrong_form"), (path, answer.body)
        known = OF_URLS.get(path, "it has none")
        assert answer.error["message"].endswith(f"'surprise' is no parameter of this path: {known}")
        assert "422" in paths[path][method]["responses"]
        if "security" in paths[path][method]:
            assert service.ask(f"{url}?surprise=1", token=None, **given).status == 401
    assert service.ask("/v1/datasets/blocks/files?from_block=1&to_block=5").status == 200
    assert service.ask("/v1/datasets?").status == 200


def rows_of(service, form, sql, **members):
    """Return the rows of an answer as numbers, whatever its format is."""
    answer = service.query(sql, format=form, **members)
    assert answer.status == 200, answer.body
    match form:
        case "json":
            found = answer.json()["rows"]
        case "csv":
            found = list(csv.reader(io.StringIO(answer.body.decode())))[1:]
        case "arrow":
            found = [list(row.values()) for row in pa.ipc.open_stream(answer.body).read_all().to_pylist()]
        case _:
            found = [list(row.values()) for row in pq.read_table(io.BytesIO(answer.body)).to_pylist()]
    return [[int(value) for value in row] for row in found]


@pytest.mark.parametrize("form", ["json", "arrow", "csv", "parquet"])
@pytest.mark.parametrize(
    ("sql", "members", "rows"),
    [
        ("select block_number, $b from blocks where block_number > $a order by 1",
         {"parameters": {"a": 56, "b": 5}}, [[57, 5], [58, 5], [59, 5]]),
        ("select block_number from blocks where block_number in (?, ?) order by 1", {"parameters": [3, 8]}, [[3], [8]]),
        ("select block_number from blocks where block_number > ? order by 1", {"parameters": [7], "as_of": 9},
         [[8], [9]]),
        ("select max(block_number) from blocks where block_hash <> $h",
         {"parameters": {"h": "0x00"}, "as_of": ["12", "common"], "finalized_only": False}, [[12]]),
        ("select block_number from blocks where block_number > $a order by 1", {"parameters": {"a": 1}, "limit": 2},
         [[2], [3]]),
        ("select sum(block_number) from blocks", {"finalized_only": True, "limit": 1}, [[1770]]),
        ("with few as (select * from blocks where block_number < $n) select count(*), max(block_number) from few",
         {"parameters": {"n": 4}}, [[4, 3]]),
        ("select count(*) from blocks where block_number = any($many)", {"parameters": {"many": [1, 2, 70]}}, [[2]]),
    ],
)  # fmt: skip
def test_every_member_of_a_request_means_the_same_in_every_format(service, form, sql, members, rows):
    assert rows_of(service, form, sql, **members) == rows
