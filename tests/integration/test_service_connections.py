"""Connections to the service: slow, large, broken or too many of them, and servers behind it that are away."""

import http.client
import json
import signal
import socket
import threading
import time
from contextlib import closing, contextmanager
from urllib.parse import urlsplit
from uuid import uuid4

import psutil
import pytest

from tests.support.service import HOST, running_service, service_process, small_lake
from trace_dagster.service import bodies, connections
from trace_dagster.store.access import S3Access

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

SLOW = "select count(*) from range(1000000) a, range(1000000) b where a.range * b.range % 7 = 3"


@pytest.fixture(scope="module")
def lake(postgres, template_database, s3_server):
    with small_lake(postgres, template_database, s3_server, 40) as found:
        yield found


@pytest.fixture(scope="module")
def service(lake):
    with running_service(*lake) as running:
        yield running


def until(is_so, seconds=30):
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def talk(service, data, *, wait=10):
    """Send bytes on a new connection and return all that comes back until it is closed."""
    with service.connect() as connection:
        connection.settimeout(wait)
        found = b""
        try:
            for piece in [data] if isinstance(data, bytes) else data:
                connection.sendall(piece)
            while piece := connection.recv(1 << 16):
                found += piece
        except (ConnectionResetError, BrokenPipeError):
            pass
        return found


def head(service, *lines, path="/v1/query", method="POST"):
    given = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {service.token}", *lines, "", ""]
    return "\r\n".join(given).encode()


def error_in(data):
    """Return the error that a raw answer holds."""
    before, _, body = data.partition(b"\r\n\r\n")
    error = json.loads(body)["error"]
    assert before.startswith(b"HTTP/1.1 %d " % error["status"])
    return error


@pytest.mark.parametrize(
    "data", [b"\0" * 100, b"GET\r\n\r\n", b"POST / HTTP/9\r\n\r\n", b"GET / HTTP/1.1\r\nA B: c\r\n\r\n"]
)
def test_what_is_no_http_gets_an_error_of_our_shape(service, data):
    assert error_in(talk(service, data))["code"] == "no_http"


def test_a_request_that_arrives_too_slowly_is_ended(service, monkeypatch):
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 1.0)
    for begun in (b"", b"POST /v1/query HT", head(service)[:-2] + b"X: "):
        began = time.monotonic()
        assert talk(service, begun) == b""
        assert time.monotonic() - began < 8


def test_a_body_that_arrives_too_slowly_is_a_408(service, monkeypatch):
    monkeypatch.setattr(bodies, "BODY_SECONDS", 1.0)
    assert error_in(talk(service, head(service, "Content-Length: 100") + b"{"))["status"] == 408


def test_a_connection_that_was_idle_for_a_while_is_used_again(service):
    """uvicorn closes one after 5 s, in which a client or proxy may send the next query, which is lost then."""
    with closing(http.client.HTTPConnection(HOST, service.port, timeout=10)) as connection:
        for pause in (0, 6):
            time.sleep(pause)
            connection.request("GET", "/healthz")
            assert connection.getresponse().read()
            assert connection.sock is not None


def test_headers_are_bounded(service):
    lines = [b"X-%d: " % number + b"a" * 1000 + b"\r\n" for number in range(500)]
    assert error_in(talk(service, [head(service)[:-2], *lines]))["status"] == 431
    assert error_in(talk(service, [head(service)[:-2] + b"X: ", *[b"a" * 10_000] * 100]))["status"] == 431
    chunks = [b"1;" + b"x" * 1000 + b"\r\na\r\n"] * 300
    assert error_in(talk(service, [head(service, "Transfer-Encoding: chunked"), *chunks]))["status"] == 431


def test_a_body_is_counted_while_it_arrives(service):
    chunk = b"%x\r\n" % 50_000 + b"a" * 50_000 + b"\r\n"
    body = [head(service, "Transfer-Encoding: chunked"), *[chunk] * 40, b"0\r\n\r\n"]
    assert error_in(talk(service, body))["code"] == "body_too_large"
    body = [head(service, "Content-Length: 2000000"), b"a" * 2_000_000]
    assert error_in(talk(service, body))["code"] == "body_too_large"
    announced = head(service, "Content-Length: 99999999999", "Expect: 100-continue")
    assert error_in(talk(service, announced))["code"] == "body_too_large"


def test_requests_that_are_sent_ahead_are_answered_in_order_and_bounded(service):
    one = head(service, path=f"/v1/queries/{uuid4()}", method="GET")
    last = head(service, "Connection: close", path="/nothing", method="GET")
    data = talk(service, one * 3 + last)
    assert data.count(b"HTTP/1.1 404") == 4
    body = json.dumps({"sql": SLOW}).encode()
    query = head(service, f"Content-Length: {len(body)}") + body
    talk(service, query + one * 50)
    until(lambda: not service.answering.live._by_id)


def test_what_follows_a_body_is_no_header(service):
    body = json.dumps({"sql": "select 1 as a"}).encode()
    chunks = b"%x\r\n%s\r\n0\r\n" % (len(body), body)
    token = f"Authorization: Bearer {service.token}\r\n".encode()
    given = head(service, "Transfer-Encoding: chunked", "Connection: close")
    assert talk(service, given + chunks + token + b"Host: evil\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert error_in(talk(service, given.replace(token, b"") + chunks + token + b"\r\n"))["status"] == 401


def test_a_body_behind_an_upgrade_is_refused_with_a_reason(service):
    body = json.dumps({"sql": "select 1 as a"}).encode()
    lines = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"]
    found = error_in(talk(service, head(service, *lines, f"Content-Length: {len(body)}") + body))
    assert (found["status"], found["code"]) == (400, "no_upgrade")
    answer = talk(service, head(service, lines[0] + ", close", *lines[1:], path="/healthz", method="GET"))
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("after", [b"\0\0\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000])
def test_a_wrong_request_does_not_become_a_part_of_the_answer_before_it(service, after):
    body = json.dumps({"sql": "select repeat('a', 1000) as a from range(40000)", "limit": 10_000}).encode()
    with service.connect() as connection:
        connection.settimeout(20)
        connection.sendall(head(service, f"Content-Length: {len(body)}") + body)
        found = connection.recv(1000)
        assert found.startswith(b"HTTP/1.1 200 ")
        connection.sendall(after)
        try:
            while piece := connection.recv(1 << 16):
                found += piece
        except ConnectionResetError:
            pass
    assert found.count(b"HTTP/1.1") == 1


def test_too_many_connections_are_refused(service, monkeypatch):
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)
    held = [service.connect() for _ in range(20)]
    try:
        assert error_in(talk(service, b""))["code"] == "too_many_connections"
    finally:
        for each in held:
            each.close()
    until(lambda: service.query("select 1 as a").status == 200)


class Forwarder:
    """Forwards connections to a port until it is told to refuse them."""

    def __init__(self, port):
        self._target = port
        self.is_open = True
        self._pairs = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if not self.is_open:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._target))
            self._pairs += [near, far]
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=(source, target), daemon=True).start()

    def _copy(self, source, target):
        try:
            while data := source.recv(1 << 16):
                target.sendall(data)
        except OSError:
            pass
        for each in (source, target):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    @contextmanager
    def away(self):
        self.is_open = False
        for each in self._pairs:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        yield
        self.is_open = True

    def close(self):
        self._listener.close()


def test_a_registry_that_is_away_is_a_503_until_it_is_back(lake):
    url, access = lake
    port = urlsplit(url).port
    with closing(Forwarder(port)) as way:
        behind = url.replace(f":{port}/", f":{way.port}/")
        with running_service(behind, access) as service:
            assert service.rows("select count(*) from blocks") == [[40]]
            with way.away():
                for _ in range(2):
                    began = time.monotonic()
                    answer = service.query("select count(*) from blocks")
                    assert (answer.error["status"], answer.headers["Retry-After"]) == (503, "1")
                    assert time.monotonic() - began < 10
            until(lambda: service.query("select count(*) from blocks").status == 200)


@pytest.mark.parametrize("form", ["json", "arrow"])
def test_an_object_store_that_is_away_is_a_503_until_it_is_back(lake, form):
    url, access = lake
    with closing(Forwarder(int(access.endpoint.rpartition(":")[2]))) as way:
        behind = S3Access(access.bucket, access.access_key, access.secret_key, f"http://127.0.0.1:{way.port}")
        with running_service(url, behind) as service:
            sql = "select count(*), max(block_hash) from blocks"
            assert service.query(sql, format=form).status == 200
            with way.away():
                assert service.query(sql, format=form).error["status"] == 503
            assert service.query(sql, format=form).status == 200


def processes_of(service):
    """Return the service's process and all that it started."""
    parent = psutil.Process(service.process.pid)
    return [parent, *parent.children(recursive=True)]


def ask_slowly(service):
    """Send a slow query; return the connection once it runs."""
    query_id, body = str(uuid4()), json.dumps({"sql": SLOW}).encode()
    connection = service.connect()
    connection.sendall(head(service, f"Content-Length: {len(body)}", f"Trace-Query-Id: {query_id}") + body)
    until(lambda: service.ask(f"/v1/queries/{query_id}").status == 200)
    until(lambda: service.ask(f"/v1/queries/{query_id}").json()["state"] == "running")
    return connection


def test_a_service_that_is_killed_leaves_no_process(lake):
    with service_process(*lake) as service, ask_slowly(service):
        started = processes_of(service)
        service.process.send_signal(signal.SIGKILL)
        gone, alive = psutil.wait_procs(started, 15)
        assert not alive
        assert len(gone) > 1


def test_a_service_that_is_told_to_end_lets_queries_end_for_a_while(lake):
    with service_process(*lake) as service, ask_slowly(service) as slow, service.connect() as streaming:
        body = json.dumps({"sql": "select range as n from range(3000000)", "format": "csv"}).encode()
        streaming.sendall(head(service, f"Content-Length: {len(body)}") + body)
        found = streaming.recv(100)  # the rest waits until it is taken
        started = processes_of(service)
        began = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        while piece := streaming.recv(1 << 20):
            found += piece
        assert found.endswith(b"2999999\r\n\r\n0\r\n\r\n")
        _, alive = psutil.wait_procs(started, 30)
        assert not alive
        assert 5 < time.monotonic() - began < 30
        assert b'"rows"' not in slow.recv(1 << 16)


def test_credentials_that_are_refused_are_no_fault_of_the_caller(lake):
    url, access = lake
    wrong = S3Access(access.bucket, access.access_key, "wrong" * 8, access.endpoint)
    with running_service(url, wrong) as service:
        answer = service.query("select max(block_hash) from blocks")
        assert (answer.error["status"], answer.error["code"]) == (503, "unavailable")
