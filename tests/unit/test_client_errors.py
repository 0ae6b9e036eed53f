"""What the Python client raises: one class for each action of its caller, and never the token to another server."""

from __future__ import annotations

import json
import socket

import numpy as np
import pytest

from tests.support.scripted_service import refusal, reply, scripted_service
from tests.support.wrong_servers import banner_server, web_server
from trace_dagster.client.lake import ConnectedLake
from trace_dagster.client.service_http import ServiceHttp
from trace_dagster.errors import (
    Cancelled,
    Corrupt,
    CursorGone,
    InvalidInput,
    NoAccess,
    TooLate,
    TooMany,
    TraceError,
    Unavailable,
)

TOKEN = "trace_" + "s" * 43
NO_ROWS = {"query_id": "q", "columns": [], "rows": [], "truncated": False}
NO_FILES = {"cursor": "0", "dataset": "x", "from_block": 3, "to_block": 4, "files": []}


def asked(url, *, retries=0, pauses=None):
    return ServiceHttp(url, TOKEN, retries, 5, (pauses if pauses is not None else []).append).json(
        "GET", "/v1/datasets"
    )


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "refused", InvalidInput),
        (401, "no_token", NoAccess),
        (403, "forbidden", NoAccess),
        (404, "not_found", InvalidInput),
        (408, "too_late", TooLate),
        (409, "duplicate", InvalidInput),
        (410, "cursor_gone", CursorGone),
        (413, "too_large", InvalidInput),
        (422, "wrong_shape", InvalidInput),
        (429, "too_many_queries", TooMany),
        (499, "cancelled", Cancelled),
        (500, "internal", TraceError),
        (500, "corrupt", Corrupt),
        (503, "unavailable", Unavailable),
    ],
)
def test_each_answer_is_the_error_of_its_meaning(status, code, kind):
    with scripted_service(lambda _: refusal(status, code, "what happened: what to do")) as server:
        with pytest.raises(TraceError, match="what happened: what to do") as raised:
            asked(server.url)
        assert type(raised.value) is kind
        assert server.asked[0].headers["authorization"] == f"Bearer {TOKEN}"


def test_too_many_queries_say_when_to_come_back():
    with scripted_service(lambda _: refusal(429, "too_many", "no place", retry_after="77")) as server:
        with pytest.raises(TooMany) as raised:
            asked(server.url, retries=3)
        assert raised.value.facts == {"retry_after_seconds": 77.0}
        assert len(server.asked) == 1, "a pause of 77 s is the caller's to decide"


def test_a_service_without_a_place_is_asked_again_after_the_pause_that_it_names():
    answers = [
        refusal(429, "too_many", "no place", retry_after="3"),
        refusal(503, "away", "away"),
        reply(200, {"a": 1}),
    ]
    pauses: list[float] = []
    with scripted_service(lambda _: answers.pop(0)) as server:
        assert asked(server.url, retries=2, pauses=pauses) == {"a": 1}
    assert pauses == [3.0, 2.0]


def test_each_try_of_a_query_has_a_name_of_its_own():
    answers = [refusal(429, "x", "x"), refusal(503, "away", "away"), reply(200, NO_ROWS)]
    with scripted_service(lambda _: answers.pop(0)) as server:
        ConnectedLake(ServiceHttp(server.url, TOKEN, 2, 5, lambda _: None)).json("select 1")
        assert len({each.headers["trace-query-id"] for each in server.asked}) == 3


@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize("ask", [lambda lake: lake.json("x"), lambda lake: lake.sql("x")], ids=["json", "stream"])
def test_a_query_that_a_server_had_is_not_sent_again_when_its_connection_is_lost(ask, retries):
    with scripted_service(lambda _: b"") as server:
        with pytest.raises(Unavailable, match="ended the connection without an answer"):
            ask(ConnectedLake(ServiceHttp(server.url, TOKEN, retries, 5, lambda _: None)))
        assert [each.method for each in server.asked] == ["POST"]


def test_a_question_that_changes_nothing_is_sent_again_when_its_connection_is_lost():
    answers = [b"", reply(200, {"a": 1})]
    with scripted_service(lambda _: answers.pop(0)) as server:
        assert asked(server.url) == {"a": 1}


def test_a_connection_that_the_server_closed_while_it_was_idle_fails_no_query():
    with scripted_service(lambda _: reply(200, NO_ROWS, connection="keep-alive")) as server:
        lake = ConnectedLake(ServiceHttp(server.url, TOKEN, 0, 5))
        for _ in range(3):
            assert lake.json("select 1") == NO_ROWS
            server.closed.get(timeout=5)
        assert len(server.asked) == 3


@pytest.mark.parametrize(("most_idle_seconds", "connections"), [(60.0, 1), (0.0, 3)])
def test_a_connection_is_used_again_unless_it_was_idle_for_long(monkeypatch, most_idle_seconds, connections):
    monkeypatch.setattr("trace_dagster.client.connections.MOST_IDLE_SECONDS", most_idle_seconds)
    answer = reply(200, NO_ROWS, connection="keep-alive")
    with scripted_service(lambda _: answer, keeps_open=True) as server:
        lake = ConnectedLake(ServiceHttp(server.url, TOKEN, 0, 5))
        for _ in range(3):
            assert lake.json("select 1") == NO_ROWS
        assert server.connections == connections


def test_the_last_try_raises():
    with scripted_service(lambda _: refusal(503, "away", "the registry is away")) as server:
        with pytest.raises(Unavailable, match="the registry is away"):
            asked(server.url, retries=2)
        assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("status", "code"), [(400, "invalid"), (401, "no_access"), (408, "too_late"), (503, "corrupt")]
)
def test_what_fails_again_is_asked_once(status, code):
    with scripted_service(lambda _: refusal(status, code, "no", retry_after="1")) as server:
        with pytest.raises(TraceError):
            asked(server.url, retries=5)
        assert len(server.asked) == 1


def test_a_redirect_is_not_followed():
    with (
        scripted_service(lambda _: reply(200, {})) as other,
        scripted_service(lambda _: reply(307, location=f"{other.url}/v1/datasets")) as server,
    ):
        with pytest.raises(InvalidInput, match="redirects to another address, to which the token is not sent"):
            asked(server.url)
        assert other.asked == []


@pytest.mark.parametrize(
    "answer",
    [
        reply(404, b"<html>not found</html>"),
        reply(200, b"<html>welcome</html>"),
        reply(400, {"error": "text"}),
        reply(400, {"error": {"message": 5, "code": "x"}}),
        reply(400, b"[" * 100_000),
        reply(200, b"[" * 100_000),
    ],
    ids=["404", "200", "text", "number", "deep error", "deep"],
)
def test_another_server_behind_the_url_is_recognised(answer):
    with (
        scripted_service(lambda _: answer) as server,
        pytest.raises(InvalidInput, match="does not answer as a query service of trace_dagster: check the URL"),
    ):
        asked(server.url)


@pytest.mark.parametrize(
    "head",
    [b"content-type: application/json\r\ncontent-le", b"content-length: ", b"transfer-encoding: chun", b""],
    ids=["name", "length", "encoding", "none"],
)
def test_an_answer_without_a_mark_of_its_end_is_broken(head):
    with (
        scripted_service(lambda _: b"HTTP/1.1 200 OK\r\n" + head) as server,
        pytest.raises(Unavailable, match=r"the answer of 127.0.0.1:\d+ broke off within its headers"),
    ):
        asked(server.url)


def test_a_page_without_a_mark_of_its_end_is_of_another_server():
    with (
        scripted_service(lambda _: b"HTTP/1.0 200 OK\r\ncontent-type: text/html\r\n\r\n<html>") as server,
        pytest.raises(InvalidInput, match="does not answer as a query service"),
    ):
        asked(server.url)


def test_a_proxy_whose_service_is_away():
    with (
        scripted_service(lambda _: reply(502, b"<html>Bad Gateway</html>")) as server,
        pytest.raises(Unavailable, match=r"a proxy before the query service at 127.0.0.1"),
    ):
        asked(server.url)


def test_nothing_listens():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(Unavailable, match=f"no query service answers at 127.0.0.1:{port}: start it, or check its URL"):
        asked(f"http://127.0.0.1:{port}", retries=3)


def test_an_unknown_name():
    with pytest.raises(Unavailable, match="no machine is called no-such-host"):
        asked("http://no-such-host.invalid:8480")


def test_a_certificate_of_an_unknown_authority():
    with web_server(tls=True) as port, pytest.raises(Unavailable, match=r"TLS with 127.0.0.1.* failed"):
        asked(f"https://127.0.0.1:{port}")


def test_tls_with_a_server_that_has_none():
    with web_server() as port, pytest.raises(Unavailable, match=r"TLS with 127.0.0.1.* failed"):
        asked(f"https://127.0.0.1:{port}")


def test_a_server_that_speaks_no_http():
    with banner_server() as port, pytest.raises(Unavailable, match="ended the connection without an answer"):
        asked(f"http://127.0.0.1:{port}")


WRONG = [
    (lambda lake: lake.sql(b"select 1"), "the SQL is a text"),
    (lambda lake: lake.json(None), "the SQL is a text"),
    (lambda lake: lake.sql("x", limit=1.5), "limit is a whole number"),
    (lambda lake: lake.sql("x", limit=10**5000), "limit is a whole number"),
    (lambda lake: lake.sql("x", {"x": 10**5000}), "has more than 38 digits"),
    (lambda lake: lake.sql("x", as_of=10**5000), "as_of is a block"),
    (lambda lake: lake.sql("x", 5), "params is a mapping"),
    (lambda lake: lake.files("x", from_block=10**5000), "from_block is a whole number"),
    (lambda lake: lake.files("x", to_block="5&x"), "to_block is a whole number"),
]


@pytest.mark.parametrize(("ask", "message"), WRONG, ids=map(str, range(len(WRONG))))
def test_a_value_that_cannot_be_sent_is_refused_before_the_service_is_asked(ask, message):
    with pytest.raises(InvalidInput, match=message):
        ask(ConnectedLake(ServiceHttp("http://127.0.0.1:1", TOKEN)))


def test_numbers_of_numpy_are_numbers():
    answers = [reply(200, NO_ROWS), reply(200, NO_FILES)]
    with scripted_service(lambda _: answers.pop(0)) as server:
        lake = ConnectedLake(ServiceHttp(server.url, TOKEN))
        lake.json("x", [np.int64(7)], as_of=np.int64(6), limit=np.int64(5))
        lake.files("x", from_block=np.int64(3), to_block=4)
        post, get = server.asked
    assert {"limit": 5, "as_of": 6, "parameters": [7]}.items() <= json.loads(post.body).items()
    assert get.path == "/v1/datasets/x/files?from_block=3&to_block=4"


@pytest.mark.parametrize("token", ["", "a b", "a\r\nx-evil: 1", "ä" * 20, "x" * 600])
def test_a_token_that_no_header_can_hold_is_refused(token):
    with pytest.raises(InvalidInput, match="the token is none of `trace-lite token new`"):
        ServiceHttp("http://127.0.0.1:1", token)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8480",
        "ftp://host",
        "http://",
        "http://user:pw@host",
        "http://host?x=1",
        "http://h#f",
        "http://h:0",
    ],
)
def test_a_url_of_another_form_is_refused(url):
    with pytest.raises(InvalidInput, match="the URL of a query service looks like"):
        ServiceHttp(url, None)


def test_a_url_may_have_a_path_before_those_of_the_service():
    with scripted_service(lambda _: reply(200, {})) as server:
        asked(f"{server.url}/lake/")
        assert server.asked[0].path == "/lake/v1/datasets"


def test_a_message_of_the_service_prints_no_control_characters():
    with (
        scripted_service(lambda _: refusal(400, "x", "bad \x1b[2J")) as server,
        pytest.raises(InvalidInput) as raised,
    ):
        asked(server.url)
    assert "\x1b" not in str(raised.value)
