"""Streams by HTTP: whole, broken, cancelled, and to clients that leave or take nothing."""

import io
import json
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from uuid import uuid4

import psutil
import pytest
import requests
import urllib3

from tests.support.service import running_service, small_lake
from trace_dagster.registry.connection import Database
from trace_dagster.registry.tokens import Tokens
from trace_dagster.service import answering, connections, sending

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

MANY = 3_000_000
LONG = f"select range as n, 'filling the transfer' as t from range({MANY})"
BREAKS = (
    f"select case when range = {MANY} then 'x' else hash(range)::varchar end::ubigint as n, 'end' as t"
    f" from range({MANY + 10})"
)
"""Its rows do not become small by compression: a small answer is an error with a status of its own. A chunk of its CSV
never ends as a whole transfer does.
"""
SLOW = "select count(*) from range(1000000) a, range(1000000) b where a.range * b.range % 7 = 3"


@pytest.fixture(scope="module")
def lake(postgres, template_database, s3_server):
    with small_lake(postgres, template_database, s3_server, 40) as found:
        yield found


@pytest.fixture
def service(lake):
    with running_service(*lake, running=2) as running:
        yield running
        until(lambda: running.answering.places.running == 0)


def until(is_so, seconds=60):
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def outcome(service, query_id):
    found = []

    def has_ended():
        database = Database(service.postgres_url, max_connections=1)
        with database.connection() as connection:
            row = connection.execute("select outcome from trace.query_log where query_id = %s", [query_id]).fetchone()
        database.close()
        found[:] = [row["outcome"]] if row and row["outcome"] else []
        return found

    until(has_ended)
    return found[0]


def request_of(service, sql, form="csv", query_id=None, version="1.1", **members):
    """Return the bytes of a request for a query."""
    body = json.dumps({"sql": sql, "format": form, **members}).encode()
    head = [
        f"POST /v1/query HTTP/{version}",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {service.token}",
        f"Trace-Query-Id: {query_id or uuid4()}",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


def sent(service, *arguments, **named):
    """Open a connection and send a query on it."""
    connection = service.connect()
    connection.sendall(request_of(service, *arguments, **named))
    return connection


def read_all(connection):
    data = io.BytesIO()
    while True:
        try:
            piece = connection.recv(1 << 20)
        except ConnectionResetError:
            return data.getvalue()
        if not piece:
            return data.getvalue()
        data.write(piece)


def children(service):
    """Return the processes that run a query now."""
    return [each for each in psutil.Process().children(recursive=True) if each.status() == psutil.STATUS_RUNNING]


def test_a_long_stream_arrives_whole(service):
    query_id = str(uuid4())
    answer = service.query(LONG, format="csv", headers={"Trace-Query-Id": query_id})
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert answer.body.count(b"\n") == MANY + 1
    assert outcome(service, query_id) == "done"


@pytest.mark.parametrize("form", ["csv", "arrow", "parquet"])
def test_a_stream_that_fails_midway_has_no_last_chunk(service, form):
    query_id = str(uuid4())
    with sent(service, BREAKS, form=form, query_id=query_id) as connection:
        data = read_all(connection)
    assert data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"transfer-encoding: chunked" in data
    assert len(data) > 100_000
    assert not data.endswith(b"0\r\n\r\n")
    assert outcome(service, query_id) == "broken"


@pytest.mark.parametrize("form", ["json", "csv", "arrow", "parquet"])
@pytest.mark.parametrize("rows", [10, 300_000])
def test_a_client_that_has_the_last_byte_may_ask_again_at_once(service, form, rows):
    token = service.new_token(f"one-{form}-{rows}", max_queries=1)
    sql = f"select range as a, hash(range) as h from range({rows})"
    assert {service.query(sql, format=form, token=token).status for _ in range(12)} == {200}


def test_every_client_takes_a_broken_stream_for_broken(service, tmp_path):
    url, headers, body = (
        service.url + "/v1/query",
        service.authorization(),
        json.dumps({"sql": BREAKS, "format": "csv"}),
    )
    header = f"Authorization: {headers['Authorization']}"
    curl = ["curl", "-sS", "-f", "-o", str(tmp_path / "rows.csv"), "-H", header, "-d", body, url]
    assert subprocess.run(curl, check=False, capture_output=True).returncode in {18, 56}  # partial file, or reset
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.post(url, data=body, headers=headers, timeout=60)
    with pytest.raises(urllib3.exceptions.ProtocolError):
        urllib3.PoolManager(retries=False).request("POST", url, body=body, headers=headers)


def test_a_small_stream_that_fails_has_a_status(service):
    sql = BREAKS.replace(str(MANY + 10), "10").replace(str(MANY), "5")
    for form in ("csv", "arrow", "parquet"):
        assert service.query(sql, format=form).error["status"] == 400


def test_http_1_0_gets_no_stream_that_it_could_take_for_whole(service):
    with sent(service, "select 1 as a", version="1.0") as connection:
        data = read_all(connection)
    assert data.startswith(b"HTTP/1.1 505 ")
    with sent(service, "select 1 as a", form="json", version="1.0") as connection:
        assert b'"rows":[[1]]' in read_all(connection)


def test_a_client_that_takes_nothing_loses_its_place(service, monkeypatch):
    monkeypatch.setattr(sending, "TAKE_SECONDS", 1.0)
    ids = [str(uuid4()) for _ in range(2)]
    stuck = [sent(service, LONG, query_id=query_id) for query_id in ids]
    assert service.rows("select 1 as a") == [[1]]
    assert [outcome(service, query_id) for query_id in ids] == ["cancelled", "cancelled"]
    for connection in stuck:
        data = read_all(connection)
        assert data.startswith(b"HTTP/1.1 200 OK")
        assert not data.endswith(b"0\r\n\r\n")
        connection.close()


def test_a_connection_whose_client_takes_nothing_is_ended(service, monkeypatch):
    monkeypatch.setattr(connections, "STUCK_SECONDS", 1.0)
    query_id = str(uuid4())
    with sent(service, "select repeat('a', 1500) as a from range(20000)", "json", query_id, limit=10_000) as connection:
        assert outcome(service, query_id) == "cancelled"
        assert not read_all(connection).endswith(b"}")


@pytest.mark.parametrize("form", ["json", "csv"])
def test_clients_that_leave_take_their_queries_with_them(service, form):
    ids = [str(uuid4()) for _ in range(20)]
    leaving = [sent(service, SLOW, form=form, query_id=query_id) for query_id in ids]
    until(lambda: service.answering.places.running == 2 and service.answering.places.waiting == 18)
    left = time.monotonic()
    for connection in leaving:
        connection.close()
    until(lambda: not service.answering.live._by_id, 10)
    assert time.monotonic() - left < 15
    until(lambda: not children(service), 10)
    assert service.rows("select 1 as a") == [[1]]
    with Database(service.postgres_url).connection() as connection:
        rows = connection.execute("select outcome from trace.query_log where query_id = any(%s)", [ids]).fetchall()
    assert {row["outcome"] for row in rows} == {"cancelled"}


def test_a_query_is_seen_and_cancelled_by_its_token_only(service):
    other, query_id = service.new_token(f"other-{uuid4()}"), str(uuid4())
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(service.query, SLOW, headers={"Trace-Query-Id": query_id})
        until(lambda: service.ask(f"/v1/queries/{query_id}").status == 200)
        until(lambda: service.ask(f"/v1/queries/{query_id}").json()["state"] == "running")
        for method in ("GET", "DELETE"):
            assert service.ask(f"/v1/queries/{query_id}", method=method, token=other).error["status"] == 404
        assert service.query("select 1", headers={"Trace-Query-Id": query_id}).error["status"] == 409
        answer = service.ask(f"/v1/queries/{query_id}", method="DELETE")
        assert (answer.status, answer.json()["state"]) == (202, "cancelling")
        assert asked.result(20).error["code"] == "cancelled"
    assert service.ask(f"/v1/queries/{query_id}").error["status"] == 404
    assert outcome(service, query_id) == "cancelled"


REVOKED = "the query was ended because its token was revoked"
LOGGED_OUT = "the query was ended because its session ended: it logged out, or its login link was revoked"


def test_revoking_a_token_ends_its_queries_and_its_sessions(lake, monkeypatch):
    monkeypatch.setattr(answering, "REVOKED_SECONDS", 0.2)
    with running_service(*lake, running=3) as service, ThreadPoolExecutor() as threads:
        tokens = Tokens(Database(service.postgres_url, max_connections=1))
        leaked, session = service.new_token("leaked"), tokens.use_link(tokens.link("leaked"))
        other, query_id = service.token, str(uuid4())
        ended = [threads.submit(service.query, SLOW, token=token) for token in (leaked, session)]
        kept = threads.submit(service.query, SLOW, token=other, headers={"Trace-Query-Id": query_id})
        until(lambda: service.answering.places.running == 3)
        tokens.revoke("leaked")
        errors = [each.result(10).error for each in ended]
        assert [each["message"] for each in errors] == [REVOKED, LOGGED_OUT]
        assert [(each["status"], each["code"]) for each in errors] == [(409, "cancelled")] * 2
        time.sleep(0.5)
        assert service.ask(f"/v1/queries/{query_id}").json()["state"] == "running"
        assert service.ask(f"/v1/queries/{query_id}", method="DELETE").status == 202
        assert kept.result(10).error["message"] == "the query was cancelled"


def test_a_query_that_waits_says_that_its_session_logged_out(lake, monkeypatch):
    monkeypatch.setattr(answering, "REVOKED_SECONDS", 0.2)
    with running_service(*lake, running=1) as service, ThreadPoolExecutor() as threads:
        tokens, query_id = Tokens(Database(service.postgres_url, max_connections=1)), str(uuid4())
        running = threads.submit(service.query, SLOW, headers={"Trace-Query-Id": query_id})
        until(lambda: service.answering.places.running == 1)
        session = tokens.use_link(tokens.link("person"))
        waiting = threads.submit(service.query, SLOW, token=session)
        until(lambda: service.answering.places.waiting == 1)
        tokens.end_session(session)
        assert waiting.result(10).error["message"] == LOGGED_OUT
        service.ask(f"/v1/queries/{query_id}", method="DELETE")
        running.result(10)


def test_a_stream_that_is_cancelled_breaks_off(service):
    query_id = str(uuid4())
    with sent(service, LONG.replace(str(MANY), str(50 * MANY)), query_id=query_id) as connection:
        connection.recv(1000)
        until(lambda: service.ask(f"/v1/queries/{query_id}").json().get("rows", 0) > 0)
        assert service.ask(f"/v1/queries/{query_id}", method="DELETE").status == 202
        assert not read_all(connection).endswith(b"0\r\n\r\n")
    assert outcome(service, query_id) == "cancelled"


def test_memory_stays_flat_with_clients_that_are_slow(lake):
    with running_service(*lake, running=16) as service:
        service.query(LONG, format="csv")
        before = psutil.Process().memory_info().rss
        slow = [sent(service, LONG) for _ in range(16)]
        until(lambda: service.answering.places.running == 16, 120)
        time.sleep(5)
        grown = psutil.Process().memory_info().rss - before
        for connection in slow:
            connection.close()
    assert grown < 16 * 4 << 20


def test_a_deadline_ends_a_query(lake):
    with running_service(*lake, seconds=2, stream_seconds=3) as service:
        began = time.monotonic()
        answer = service.query(SLOW)
        assert (answer.error["status"], answer.error["code"]) == (408, "too_late")
        assert time.monotonic() - began < 20
        assert service.query(SLOW, format="arrow").error["status"] == 408
        query_id = str(uuid4())
        with sent(service, LONG.replace(str(MANY), str(10**12)), query_id=query_id) as connection:
            assert not read_all(connection).endswith(b"0\r\n\r\n")
        assert outcome(service, query_id) == "timeout"


def test_a_client_that_takes_little_loses_its_place_at_the_deadline(lake, monkeypatch):
    monkeypatch.setattr(answering, "_MARGIN_SECONDS", 0)
    with running_service(*lake, seconds=5) as service:
        query_id = str(uuid4())
        sql = "select repeat('a', 3000) as a from range(20000)"
        with sent(service, sql, "json", query_id, limit=10_000) as connection:
            taken = connection.recv(1 << 16)
            assert taken.startswith(b"HTTP/1.1 200 OK")
            began = time.monotonic()
            with suppress(ConnectionResetError):
                while piece := connection.recv(1 << 16):
                    taken += piece
                    time.sleep(0.1)
            assert time.monotonic() - began < 15
            assert not taken.endswith(b"}")
        assert outcome(service, query_id) == "timeout"


def test_what_has_no_place_is_refused_with_a_time_to_wait(lake):
    with running_service(*lake, running=1, waiting=1) as service:
        others = [service.new_token(f"busy-{uuid4()}") for _ in range(3)]
        ids = [str(uuid4()) for _ in others]
        with ThreadPoolExecutor() as threads:
            asked = []
            for token, query_id in zip(others[:2], ids[:2], strict=True):
                asked.append(threads.submit(service.query, SLOW, token=token, headers={"Trace-Query-Id": query_id}))
                until(lambda known=query_id, by=token: service.ask(f"/v1/queries/{known}", token=by).status == 200)
            assert service.ask(f"/v1/queries/{ids[1]}", token=others[1]).json()["position"] == 1
            answer = service.query("select 1 as a", token=others[2], headers={"Trace-Query-Id": ids[2]})
            assert (answer.error["status"], answer.error["code"]) == (429, "too_many")
            assert outcome(service, ids[2]) == "busy"
            assert 1 <= int(answer.headers["Retry-After"]) <= 30
            for token, query_id in zip(others[:2], ids[:2], strict=True):
                service.ask(f"/v1/queries/{query_id}", method="DELETE", token=token)
            assert [each.result(20).status for each in asked] == [409, 409]


def test_many_clients_at_once_get_an_answer_or_a_429(service):
    lock, found = threading.Lock(), []

    def ask(number):
        answer = service.query(f"select {number} as a, count(*) as n from blocks")
        with lock:
            found.append((answer.status, number if answer.status == 429 else answer.json()["rows"][0][0] == number))

    with ThreadPoolExecutor(40) as threads:
        list(threads.map(ask, range(60)))
    assert {status for status, _ in found} <= {200, 429}
    assert all(is_right for status, is_right in found if status == 200)
