"""Which requests pass to the routes of the query service: by Host, Origin, cookie and Authorization."""

from __future__ import annotations

import asyncio
import json

import pytest

from trace_dagster.service.doors import SameOrigin

PASSED = 204
HOSTS = ("lake.example", "other.example:8443")
TOKEN = ("authorization", "Bearer x")
COOKIE = ("cookie", "theme=dark; trace_session=x")
OWN = ("host", "127.0.0.1:8480")


def status_of(*headers, method="GET", path="/v1/datasets", hosts=HOSTS):
    """Return the status of a request's answer, and how many requests were counted as denied."""
    return asyncio.run(_status_of(headers, method, path, hosts))


async def _status_of(headers, method, path, hosts):
    sent, denied = [], []

    async def app(_scope, _receive, send):
        await send({"type": "http.response.start", "status": PASSED, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    async def note(asked):
        denied.append(asked.scope["path"])

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
    }
    await SameOrigin(app, hosts=hosts, denied=note)(scope, receive, send)
    if sent[0]["status"] == 403:
        error = json.loads(sent[1]["body"])["error"]
        assert (error["status"], error["code"]) == (403, "forbidden")
    assert len(denied) == (sent[0]["status"] == 403)
    return sent[0]["status"]


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8480", "127.0.0.1", "localhost:9", "LocalHost", "[::1]:8480", "10.1.2.3:8480", "lake.example",
     "lake.example:8480", "LAKE.example", "other.example:8443"],
)  # fmt: skip
def test_own_hosts_pass(host):
    for path in ("/", "/healthz", "/v1/datasets"):
        assert status_of(("host", host), path=path) == PASSED


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8480",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "127.0.0.1@evil.example",
        "lake.example.evil.example",
        "notlake.example",
        "other.example",
        "other.example:1",
        "localhost:8480:1",
        "localhost/",
        "127.0.0.1:8480, evil.example",
        "localhost\u00a0",
        " localhost",
        "[::1",
        "[evil.example]",
        "[fe80::1%25eth0]:1",
        "0x7f.1",
        "127.1",
    ],
)
def test_other_hosts_do_not(host):
    """A name that resolves to this machine (DNS rebinding) reaches neither the page nor a route without a token."""
    for path in ("/", "/healthz", "/metrics", "/openapi.json", "/v1/login", "/v1/datasets"):
        assert status_of(("host", host), path=path) == 403
    for path in ("/", "/healthz", "/openapi.json"):  # a script of that page can set any Authorization
        assert status_of(("host", host), TOKEN, path=path) == 403


def test_a_program_with_a_token_may_use_any_host():
    assert status_of(("host", "queries:8480"), TOKEN) == PASSED
    assert status_of(("host", "queries:8480"), TOKEN, path="/v1/query", method="POST") == PASSED
    assert status_of(("host", "queries:8480"), TOKEN, path="/metrics") == PASSED  # Prometheus uses the service's name
    assert status_of(TOKEN) == PASSED


def test_a_request_has_one_host():
    assert status_of() == 403
    assert status_of(OWN, OWN) == 403


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:8480", "http://127.0.0.1:8480"),
        ("localhost:8480", "HTTP://LOCALHOST:8480"),
        ("[::1]:8480", "http://[::1]:8480"),
        ("lake.example", "https://lake.example"),
        ("lake.example", "https://lake.example:443"),
        ("lake.example:8443", "https://lake.example:8443"),
        ("127.0.0.1:8480", "https://lake.example"),  # a proxy that changes Host
        ("127.0.0.1:8480", "https://other.example:8443"),
    ],
)
def test_the_own_origin_passes(host, origin):
    for method in ("GET", "POST", "DELETE"):
        assert status_of(("host", host), ("origin", origin), COOKIE, method=method) == PASSED


@pytest.mark.parametrize(
    "origin",
    ["null", "", "http://127.0.0.1:3000", "http://localhost:8480", "http://evil.example", "https://127.0.0.1",
     "http://127.0.0.1:8480.evil.example", "http://127.0.0.1:8480/", "file://", "chrome-extension://abc",
     "https://lake.example:9999", "http://127.0.0.1:8480@evil.example", "127.0.0.1:8480", "ws://127.0.0.1:8480"],
)  # fmt: skip
def test_other_origins_do_not_whatever_else_is_sent(origin):
    """A server on another port of this machine is the same site to the browser, but not the same origin."""
    for method in ("GET", "POST", "OPTIONS"):
        for more in ((), (COOKIE,), (TOKEN,), (COOKIE, ("sec-fetch-site", "same-origin"))):
            assert status_of(OWN, ("origin", origin), *more, method=method) == 403


def test_of_several_origins_each_must_be_own():
    own = ("origin", "http://127.0.0.1:8480")
    assert status_of(OWN, own, own, COOKIE, method="POST") == PASSED
    assert status_of(OWN, own, ("origin", "http://evil.example"), COOKIE, method="POST") == 403


@pytest.mark.parametrize(
    ("method", "site", "status"),
    [
        ("GET", None, PASSED),
        ("GET", "same-origin", PASSED),
        ("GET", "none", PASSED),
        ("GET", "same-site", 403),
        ("GET", "cross-site", 403),
        ("GET", "new-word", 403),
        ("POST", None, 403),
        ("DELETE", None, 403),
        ("PURGE", None, 403),
        ("POST", "same-origin", PASSED),
        ("POST", "none", 403),
        ("POST", "same-site", 403),
        ("POST", "cross-site", 403),
    ],
)
def test_the_cookie_counts_only_from_the_own_page(method, site, status):
    more = () if site is None else (("sec-fetch-site", site),)
    assert status_of(OWN, COOKIE, *more, method=method) == status
    assert status_of(OWN, COOKIE, TOKEN, *more, method=method) == PASSED  # the cookie is not used
    assert status_of(OWN, *more, method=method) == PASSED  # it needs a token then
    assert status_of(OWN, COOKIE, *more, path="/") == PASSED  # anybody may see the page


def test_a_cookie_header_anywhere_counts():
    assert status_of(OWN, ("cookie", "a=b"), COOKIE, method="POST") == 403
    assert status_of(OWN, ("cookie", "a=b"), method="POST") == PASSED


def test_a_websocket_is_closed():
    sent = []

    async def ask():
        async def send(message):
            sent.append(message)

        async def note(_):
            pass

        await SameOrigin(lambda *_: None, denied=note)({"type": "websocket", "path": "/", "headers": []}, None, send)

    asyncio.run(ask())
    assert sent[0]["type"] == "websocket.close"
