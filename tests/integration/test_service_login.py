"""Who a request comes from, by HTTP: tokens, hostile headers, login links, sessions and the log of denied queries."""

from __future__ import annotations

import json
from datetime import timedelta
from http.cookies import SimpleCookie

import pytest

from tests.support.clock import advance
from tests.support.committed import FULL, commit_rows
from tests.support.registry import apply, job_text
from tests.support.service import running_service
from trace_dagster.blocks import BlockRange
from trace_dagster.registry.query_log import DENIALS_PER_MINUTE
from trace_dagster.registry.tokens import SESSION_LIFETIME, Tokens
from trace_dagster.service import login_routes
from trace_dagster.service.failed_logins import MOST_PER_MINUTE, FailedLogins

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

SQL = "select count(*) as n from blocks"
UNKNOWN = "trace_" + "A" * 43


@pytest.fixture
def service(database, store, postgres_url, s3, monkeypatch):
    monkeypatch.setattr(login_routes, "_failed", FailedLogins())
    stream = apply(database, job_text(to_block=20, chunk=20, streams="blocks: {cryo_dataset_name: blocks}"))["blocks"]
    commit_rows(database, store, stream, BlockRange(0, 20), FULL)
    with running_service(postgres_url, s3) as running:
        yield running


@pytest.fixture
def tokens(database):
    return Tokens(database)


def logged(database):
    with database.connection() as connection:
        return connection.execute("select * from trace.query_log order by started_at, query_id").fetchall()


def own_page(service):
    """Return the headers that a browser adds to a request of the service's own page."""
    return {"Origin": service.url, "Sec-Fetch-Site": "same-origin"}


def log_in(service, code):
    """Return the answer to a login, and the cookie that it sets."""
    answer = service.ask("/v1/login", {"code": code}, token=None, headers=own_page(service))
    cookie = SimpleCookie(answer.headers.get("Set-Cookie", ""))
    return answer, cookie.get("trace_session")


def query_with(service, session, sql=SQL):
    headers = {"Cookie": f"trace_session={session}", **own_page(service)}
    return service.query(sql, token=None, headers=headers)


def test_a_link_logs_a_browser_in_once_and_logging_out_ends_it(service, tokens):
    code = tokens.link("ann")
    answer, cookie = log_in(service, code)
    assert (answer.status, answer.body) == (204, b"")
    assert cookie["httponly"]
    assert not cookie["secure"]
    assert (cookie["samesite"].lower(), cookie["path"], cookie["domain"]) == ("strict", "/", "")
    assert int(cookie["max-age"]) == SESSION_LIFETIME.total_seconds()
    assert cookie.value not in (code, service.token)
    assert query_with(service, cookie.value).json()["rows"] == [[20]]
    again, none = log_in(service, code)
    assert (again.status, none) == (401, None)
    assert "trace-lite token link" in again.error["message"]
    out = service.ask(
        "/v1/logout", b"", token=None, headers={"Cookie": f"trace_session={cookie.value}", **own_page(service)}
    )
    assert out.status == 204
    assert SimpleCookie(out.headers["Set-Cookie"])["trace_session"]["max-age"] == "0"
    assert query_with(service, cookie.value).status == 401


def test_behind_tls_the_cookie_is_secure(service, tokens):
    headers = {**own_page(service), "X-Forwarded-Proto": "https"}
    answer = service.ask("/v1/login", {"code": tokens.link("ann")}, token=None, headers=headers)
    assert SimpleCookie(answer.headers["Set-Cookie"])["trace_session"]["secure"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example"},
        {"Origin": "http://evil.example", "Host": "evil.example"},
        {"Sec-Fetch-Site": "same-site"},
        {},
    ],
)
def test_another_page_gets_nothing_with_the_cookie(service, tokens, headers):
    session = tokens.use_link(tokens.link("ann"))
    answer = service.query(SQL, token=None, headers={"Cookie": f"trace_session={session}", **headers})
    assert (answer.status, answer.error["code"]) == (403, "forbidden")
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_another_page_cannot_log_a_browser_in(service, tokens):
    answer = service.ask(
        "/v1/login", {"code": tokens.link("ann")}, token=None, headers={"Origin": "http://evil.example"}
    )
    assert answer.status == 403
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"code": 1}', b'{"code": "a", "more": 1}', b'{"code": "%s"}' % (b"x" * 201)]
)
def test_a_login_of_wrong_form(service, body):
    answer = service.ask("/v1/login", body, token=None, headers=own_page(service))
    assert (answer.status, "Set-Cookie" in answer.headers) == (422, False)
    assert answer.error["code"] in ("no_json", "wrong_form")


def test_a_login_is_small(service):
    assert service.ask("/v1/login", {"code": "x" * 5000}, token=None).status == 413


def test_an_address_with_many_failed_logins_has_one_try_a_second(service, tokens, monkeypatch):
    now = [600.0]
    monkeypatch.setattr(login_routes, "_failed", FailedLogins(lambda: now[0]))
    code = tokens.link("ann")
    statuses = [log_in(service, UNKNOWN)[0].status for _ in range(MOST_PER_MINUTE + 2)]
    assert statuses == [401] * (MOST_PER_MINUTE + 1) + [429]
    refused, _ = log_in(service, code)
    assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
    assert "open the link again" in refused.error["message"]
    now[0] += 1
    assert log_in(service, code)[0].status == 204  # it was not used up


def test_failures_count_by_the_address_that_a_proxy_on_this_machine_names(service, monkeypatch):
    noted = []
    monkeypatch.setattr(FailedLogins, "note", lambda _, address: noted.append(address))
    for forwarded in ({}, {"X-Forwarded-For": "203.0.113.7"}, {"X-Forwarded-For": "198.51.100.1, 203.0.113.7"}):
        headers = own_page(service) | forwarded
        assert service.ask("/v1/login", {"code": UNKNOWN}, token=None, headers=headers).status == 401
    assert noted == ["127.0.0.1", "203.0.113.7", "203.0.113.7"]


def test_revocation_and_expiry_act_on_the_next_request(service, tokens, database):
    short, revoked = tokens.new("short", expires_in=timedelta(hours=1)), tokens.new("revoked", expires_in=None)
    session = tokens.use_link(tokens.link("ann"))
    for token in (short, revoked):
        assert service.query(SQL, token=token).status == 200
    assert query_with(service, session).status == 200
    tokens.revoke("revoked")
    tokens.revoke("ann")
    advance(database, 3601)
    for token in (short, revoked):
        answer = service.query(SQL, token=token)
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert query_with(service, session).status == 401
    assert service.query(SQL).status == 200


GOOD = ["Bearer {}", "bearer {}", "BEARER {}", "Bearer   {}", "Bearer {}  "]
BAD = ["{}", "Bearer", "Bearer ", "Bearer{}", "Bearer\t{}", "Basic {}", "Bearer {} {}", "Bearer {},", "Bearer \xe9{}",
       "Bearer {}\x85", 'Bearer "{}"', "Bearer " + "A" * 20_000, "Token {}", "Bearer {}\xa0"]  # fmt: skip


def raw(service, *headers):
    """Send a query with these header lines and return the status of the answer."""
    body = json.dumps({"sql": SQL}).encode()
    lines = [f"POST /v1/query HTTP/1.1\r\nHost: 127.0.0.1:{service.port}\r\nContent-Length: {len(body)}\r\n"]
    lines += [f"{header}\r\n" for header in headers]
    with service.connect() as connection:
        connection.sendall("".join([*lines, "Connection: close\r\n\r\n"]).encode("latin-1") + body)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return int(answer.split(b" ", 2)[1])


def test_authorization_in_every_spelling(service):
    for form in GOOD:
        assert raw(service, f"Authorization: {form.format(service.token, service.token)}") == 200, form
    for form in BAD:
        assert raw(service, f"Authorization: {form.format(service.token, service.token)}") == 401, form
    good = f"Authorization: Bearer {service.token}"
    assert raw(service, good.swapcase().replace(service.token.swapcase(), service.token)) == 200
    assert raw(service) == 401
    assert raw(service, good, good) == 401
    assert raw(service, "Authorization: ", good) == 401


def test_a_token_in_another_place_counts_for_nothing(service, tokens):
    session = tokens.use_link(tokens.link("ann"))
    for path in (f"/v1/query?token={service.token}", f"/v1/query?access_token={service.token}"):
        assert service.ask(path, {"sql": SQL}, token=None).status == 401
    assert query_with(service, tokens.link("bob")).status == 401  # the code of a link
    assert raw(service, f"Cookie: trace_session={session}; trace_session={session}",
               f"Origin: {service.url}") == 401  # fmt: skip
    assert raw(service, f"Cookie: a=1; trace_session={session} ;b=2", f"Origin: {service.url}") == 200
    assert raw(service, "Authorization: Bearer x", f"Cookie: trace_session={session}",
               f"Origin: {service.url}") == 401  # a wrong token is no absent one  # fmt: skip


def test_denied_queries_are_logged_up_to_a_limit_and_counted(service, database):
    for _ in range(DENIALS_PER_MINUTE + 15):
        assert service.query(SQL, token=UNKNOWN).status == 401
    assert service.ask("/v1/datasets", token=UNKNOWN).status in (401, 404)
    rows = logged(database)
    assert len(rows) == DENIALS_PER_MINUTE
    assert {(row["outcome"], row["token_id"], row["token_name"]) for row in rows} == {("denied", None, None)}
    metrics = service.parts.metrics.exposition().decode()
    (count,) = [line for line in metrics.splitlines() if line.startswith('trace_query_denials_total{reason="token"}')]
    assert float(count.split()[-1]) >= DENIALS_PER_MINUTE + 15
    advance(database, 61)
    service.query(SQL, token=UNKNOWN)
    assert len(logged(database)) == DENIALS_PER_MINUTE + 1


def test_a_query_for_a_page_of_another_site_is_logged_as_denied(service, database):
    for wrong in ({"Origin": "https://evil.example"}, {"Origin": "null"}):
        assert service.query(SQL, headers=wrong).status == 403
    assert service.ask("/v1/datasets", headers={"Origin": "https://evil.example"}).status == 403
    assert [(row["outcome"], row["token_name"]) for row in logged(database)] == [("denied", None)] * 2


def test_the_registry_has_no_sql_no_value_and_no_token(service, database):
    secret = "xyzzy-secret-word"
    service.query(f"select '{secret}' as a, $v as b", parameters={"v": f"{secret}-value"})
    service.query(f"select {secret.replace('-', '_')} from blocks")
    service.query(f"select '{secret}'", token=UNKNOWN)
    assert len(logged(database)) == 3
    with database.connection() as connection:
        tables = connection.execute(
            "select format('%I.%I', table_schema, table_name) as name from information_schema.tables"
            " where table_schema in ('trace', 'hot') and table_type = 'BASE TABLE'"
        ).fetchall()
        for table in tables:
            text = connection.execute(f"select string_agg(t::text, ' ') as text from {table['name']} t").fetchone()[
                "text"
            ]
            for hidden in (secret, secret.replace("-", "_"), service.token, UNKNOWN):
                assert hidden not in (text or ""), table
