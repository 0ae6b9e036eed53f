"""The door before Dagster's web server: a real server, real WebSockets, a real browser and a page of another origin."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.browser import running_browser
from trace_dagster.cli.dagster_client import DagsterWeb
from trace_dagster.config.web_password import authorization
from trace_dagster.errors import InvalidInput, Unavailable
from trace_dagster.lite.ports import HOST, Ports

pytestmark = pytest.mark.integration

PASSWORD = "pässword: with colons:"
PUBLIC = "box.example"
DEFINITIONS = """
import dagster as dg

cells = dg.DynamicPartitionsDefinition(name="cells")

@dg.asset(partitions_def=cells)
def blocks(): ...

defs = dg.Definitions([blocks])
"""
PARTITIONS = "{ assetNodes { partitionKeys } }"
SUBSCRIPTION = 'subscription { pipelineRunLogs(runId: "none") { __typename } }'
ANSWERED = ["connection_ack", "PipelineRunLogsSubscriptionFailure"]
SUBSCRIBE_IN_PAGE = """query => new Promise((answered, failed) => {
  const socket = new WebSocket(location.origin.replace("http", "ws") + "/graphql", "graphql-ws"), got = [];
  socket.onerror = failed;
  socket.onopen = () => {
    socket.send('{"type": "connection_init"}');
    socket.send(JSON.stringify({type: "start", id: "1", payload: {query}}));
  };
  socket.onmessage = (message) => {
    const {type, payload} = JSON.parse(message.data);
    got.push(payload ? payload.data.pipelineRunLogs.__typename : type);
    if (payload) answered(got);
  };
})"""


def adding(key: str) -> str:
    """Return a mutation whose effect a query shows."""
    selector = 'repositoryLocationName: "defs.py", repositoryName: "__repository__"'
    return (
        f'mutation {{ addDynamicPartition(repositorySelector: {{{selector}}}, partitionsDefName: "cells",'
        f' partitionKey: "{key}") {{ __typename }} }}'
    )


@dataclass
class Web:
    """A running web server, and the password that its users know."""

    port: int
    password: str | None

    def ask(self, method: str, target: str, *headers: tuple[str, str], body: str = "") -> tuple[int, str]:
        """Send exactly these headers, with the right Host and password unless they are among them."""
        given = {name.lower() for name, _ in headers}
        usual = {"Host": f"{HOST}:{self.port}", **authorization(self.password)}
        connection = http.client.HTTPConnection(HOST, self.port, timeout=30)
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in [*((name, value) for name, value in usual.items() if name.lower() not in given), *headers]:
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body.encode())))
        connection.endheaders(body.encode())
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def graphql(self, query: str, *headers: tuple[str, str]) -> tuple[int, str]:
        kind = ("Content-Type", "application/json")
        return self.ask("POST", "/graphql", kind, *headers, body=json.dumps({"query": query}))

    def partitions(self) -> list[str]:
        """Return the partitions that exist: each mutation that got through added one."""
        status, text = self.graphql(PARTITIONS)
        assert status == 200, text
        return json.loads(text)["data"]["assetNodes"][0]["partitionKeys"]


@contextmanager
def serving(folder: Path, password: str | None) -> Iterator[Web]:
    home = folder / "home"
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    (folder / "defs.py").write_text(DEFINITIONS)
    web = Web(Ports({}).take(), password)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TRACE_", "DAGSTER"))}
    environment |= {"DAGSTER_HOME": str(home), "TRACE_WEB_URL": f"https://{PUBLIC}/dagster"}
    environment |= {"TRACE_WEB_PASSWORD": password} if password else {}
    log = (folder / "log").open("wb")
    command = [
        sys.executable,
        "-m",
        "trace_dagster.dagster_instance.web",
        "-h",
        HOST,
        "-p",
        str(web.port),
        "-f",
        "defs.py",
    ]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                assert web.ask("GET", "/server_info")[0] == 200
                break
            except ConnectionError:
                alive = process.poll() is None and time.monotonic() < deadline
                assert alive, (folder / "log").read_text()[-2000:]
                time.sleep(0.1)
        yield web
    finally:
        process.terminate()
        process.wait(20)
        log.close()


@pytest.fixture(scope="module")
def open_web(tmp_path_factory) -> Iterator[Web]:
    with serving(tmp_path_factory.mktemp("web") / "open", None) as web:
        yield web


@pytest.fixture(scope="module")
def locked_web(tmp_path_factory) -> Iterator[Web]:
    with serving(tmp_path_factory.mktemp("web") / "locked", PASSWORD) as web:
        yield web


@pytest.mark.parametrize(
    "host", ["127.0.0.1:{}", "localhost:{}", "LocalHost:8080", "127.0.0.1", "[::1]:{}", PUBLIC, f"{PUBLIC.upper()}:443"]
)
def test_loopbacks_names_and_the_configured_host_are_answered(open_web, host):
    assert open_web.ask("GET", "/server_info", ("Host", host.format(open_web.port)))[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{}",
        "127.0.0.1.evil.example:{}",
        "localhost.evil.example",
        "evil.localhost",
        f"{PUBLIC}.evil.example",
        "127.0.0.1:{}@evil.example",
        "evil.example@127.0.0.1",
        "127.0.0.1:{}/x",
        "127.0.0.1:{}, evil.example",
        "2130706433",
        "127.1",
        "0.0.0.0:{}",
        "",
    ],
)
@pytest.mark.parametrize("path", ["/", "/graphql", "/server_info", "/runs/x", "/report_asset_materialization/blocks"])
def test_another_host_is_refused_on_every_path(open_web, host, path):
    for method in ("GET", "POST"):
        status, text = open_web.ask(method, path, ("Host", host.format(open_web.port)))
        assert status in {400, 403}, (method, text)


def test_two_hosts_are_refused(open_web):
    first, second = ("Host", f"{HOST}:{open_web.port}"), ("Host", "evil.example")
    assert open_web.ask("GET", "/server_info", first, second)[0] in {400, 403}
    assert open_web.ask("GET", "/server_info", second, first)[0] in {400, 403}


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:{}", "http://127.0.0.1:{}"),
        ("localhost:{}", "http://localhost:{}"),
        ("localhost:{}", "HTTP://LOCALHOST:{}"),
        (PUBLIC, f"https://{PUBLIC}"),
        (f"{PUBLIC}:443", f"https://{PUBLIC}"),
    ],
)
def test_a_page_of_the_server_itself_may_mutate(open_web, host, origin):
    key = f"own {host} {origin}".format(open_web.port, open_web.port)
    headers = ("Host", host.format(open_web.port)), ("Origin", origin.format(open_web.port))
    status, text = open_web.graphql(adding(key), *headers)
    assert status == 200, text
    assert key in open_web.partitions()


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "http://127.0.0.1",
        "http://127.0.0.1:1",
        "https://127.0.0.1",
        "http://localhost:{}",
        "http://127.0.0.1:{}.evil.example",
        "http://127.0.0.1:{}@evil.example",
        "http://evil.example/127.0.0.1:{}",
        "file://127.0.0.1:{}",
        "127.0.0.1:{}",
        "null",
        "",
    ],
)
def test_a_page_of_another_origin_is_refused(open_web, origin):
    headers = [("Origin", origin.format(open_web.port))]
    before = open_web.partitions()
    assert open_web.graphql(adding("foreign"), *headers)[0] == 403
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        target = "/graphql?" + urlencode({"query": adding("foreign")})
        assert open_web.ask("POST", target, *headers, ("Content-Type", kind))[0] == 403
    assert open_web.ask("POST", "/report_asset_materialization/blocks", *headers)[0] == 403
    assert open_web.ask("GET", "/server_info", *headers)[0] == 403
    assert open_web.ask("GET", "/server_info", ("Origin", f"http://{HOST}:{open_web.port}"), *headers)[0] == 403
    assert open_web.partitions() == before


@pytest.mark.parametrize(
    "parameters",
    [
        {"query": adding("get")},
        {"query": "query q { version } " + adding("get").replace("mutation", "mutation m"), "operationName": "m"},
        {"query": "# query\n\ufeff" + adding("get")},
        {"query": "fragment f on Query { version } " + adding("get")},
        [("query", "{ version }"), ("query", adding("get"))],
        [("query", adding("get")), ("query", "{ version }")],
        {"query": "subscription { locationStateChangeEvents { event { eventType } } }"},
        {"query": "{ version } query mutation { version }"},
    ],
)
def test_a_mutation_by_get_is_refused(open_web, parameters):
    before = open_web.partitions()
    for path in ("/graphql", "/%67raphql"):
        status, text = open_web.ask("GET", f"{path}?{urlencode(parameters, quote_via=quote)}")
        assert (status, text) == (405, "refused: a mutation must be sent by POST\n")
        assert open_web.ask("HEAD", f"{path}?{urlencode(parameters, quote_via=quote)}")[0] == 405
    assert open_web.partitions() == before


def test_a_mutation_by_get_is_refused_however_deep_it_is(open_web):
    """The parser gives up at a depth that depends on the stack, which is shorter in Dagster's threads."""
    before = open_web.partitions()
    for depth in [*range(100, 300, 5), 2000]:
        deep = "... { " * depth + "__typename" + " }" * depth
        query = adding(f"deep {depth}").replace("__typename", deep)
        assert open_web.ask("GET", "/graphql?" + urlencode({"query": query}))[0] == 405
    assert open_web.partitions() == before


def test_a_query_by_get_and_a_page_of_the_ui_are_answered(open_web):
    assert open_web.ask("GET", "/graphql?query={version}")[0] == 200
    assert open_web.ask("GET", "/assets?query=mutation")[0] == 200


@pytest.mark.parametrize(
    "shown",
    [
        None,
        "Basic",
        "Basic !",
        "Basic " + b64encode(PASSWORD.encode()).decode(),
        "Basic " + b64encode(b"trace:wrong").decode(),
        "Basic " + b64encode(f"trace:{PASSWORD}x".encode()).decode(),
        "Basic " + b64encode(f"trace:{PASSWORD[:-1]}".encode()).decode(),
        "Basic " + b64encode(b"trace:").decode(),
        "Bearer " + b64encode(f"trace:{PASSWORD}".encode()).decode(),
    ],
)
def test_every_path_wants_the_password(locked_web, shown):
    knows_nothing = Web(locked_web.port, None)
    headers = [] if shown is None else [("Authorization", shown)]
    for path in ("/", "/graphql?query={version}", "/server_info", "/runs/x", "/favicon.png", "/logs/x", "/notebook"):
        status, text = knows_nothing.ask("GET", path, *headers)
        assert (status, "TRACE_WEB_PASSWORD" in text) == (401, True), path
    assert knows_nothing.graphql(adding("unknown"), *headers)[0] == 401
    assert locked_web.partitions() == []


def test_any_user_name_goes_with_the_password(locked_web):
    for user in ("", "trace", "someone else"):
        shown = "basic  " + b64encode(f"{user}:{PASSWORD}".encode()).decode()
        assert locked_web.ask("GET", "/server_info", ("Authorization", shown))[0] == 200


def test_the_command_lines_client_shows_the_password(locked_web):
    url = f"http://{HOST}:{locked_web.port}"
    with pytest.raises(InvalidInput, match="asks for a password: set TRACE_WEB_PASSWORD"):
        DagsterWeb(url).launch("any")
    with pytest.raises(InvalidInput, match="asks for a password: set TRACE_WEB_PASSWORD"):
        DagsterWeb(url, "a wrong one").launch("any")
    with pytest.raises(Unavailable, match="refused a request"):
        DagsterWeb(url, PASSWORD).launch("there is no such job")


def subscribe(web: Web, **headers: str) -> list[str]:
    """Open a WebSocket, subscribe, and return the types of the two answers."""
    wanted = {**authorization(web.password), **headers}
    with connect(
        f"ws://{HOST}:{web.port}/graphql", additional_headers=wanted, subprotocols=["graphql-ws"], proxy=None
    ) as socket:
        socket.send('{"type": "connection_init"}')
        socket.send(json.dumps({"type": "start", "id": "1", "payload": {"query": SUBSCRIPTION}}))
        first, second = json.loads(socket.recv(10)), json.loads(socket.recv(10))
        return [first["type"], second["payload"]["data"]["pipelineRunLogs"]["__typename"]]


@pytest.mark.parametrize("name", ["open_web", "locked_web"])
def test_a_websocket_goes_through_the_same_door(name, request):
    web = request.getfixturevalue(name)
    own = f"http://{HOST}:{web.port}"
    assert subscribe(web) == ANSWERED
    assert subscribe(web, Origin=own) == ANSWERED
    for origin in ("http://evil.example", "http://127.0.0.1:1", "null"):
        with pytest.raises(InvalidStatus, match="403"):
            subscribe(web, Origin=origin)
    if web.password is not None:
        with pytest.raises(InvalidStatus, match="401"):
            subscribe(Web(web.port, None), Origin=own)


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """Run a real browser."""
    with running_browser() as browser:
        yield browser


@contextmanager
def page_of(browser, web: Web) -> Iterator[object]:
    """Open a page in a new profile that shows the password when it is asked for."""
    known = {"http_credentials": {"username": "me", "password": web.password}} if web.password else {}
    context = browser.new_context(**known)
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("name", ["open_web", "locked_web"])
def test_the_ui_and_its_subscription_work_in_a_browser(name, request, browser):
    web = request.getfixturevalue(name)
    frames: list[str] = []
    refused: list[tuple[int, str]] = []
    with page_of(browser, web) as page:
        page.on("websocket", lambda opened: opened.on("framereceived", lambda frame: frames.append(str(frame))))
        page.on("response", lambda got: refused.append((got.status, got.url)) if got.status >= 400 else None)
        page.goto(f"http://{HOST}:{web.port}/")
        page.get_by_text("Overview").first.wait_for()
        deadline = time.monotonic() + 20
        while not any("connection_ack" in frame for frame in frames):
            assert time.monotonic() < deadline, frames
            page.wait_for_timeout(100)
        assert page.evaluate(SUBSCRIBE_IN_PAGE, SUBSCRIPTION) == ANSWERED
    assert refused == []


def test_the_browser_shows_nothing_without_the_password(locked_web, browser):
    with page_of(browser, Web(locked_web.port, "a wrong one")) as page:
        assert page.goto(f"http://{HOST}:{locked_web.port}/").status == 401
        assert "Overview" not in page.content()


FOREIGN = """<!doctype html><title>foreign</title><form id=form method=post enctype=text/plain target=frame></form>
<iframe name=frame></iframe><script>
const server = "http://%s", mutation = %s, query = "?query=" + encodeURIComponent(mutation);
const tried = (promise) => promise.then(() => "sent", () => "failed");
async function attack() {
  const form = document.getElementById("form");
  form.action = server + "/graphql" + query;
  form.submit();
  new Image().src = server + "/graphql" + query;
  const post = (mode, type) => fetch(server + "/graphql" + query, {method: "POST", mode, credentials: "include",
    headers: {"content-type": type}, body: JSON.stringify({query: mutation})});
  const opened = new Promise((yes) => {
    const socket = new WebSocket(server.replace("http", "ws") + "/graphql", "graphql-ws");
    socket.onopen = () => yes("open"); socket.onerror = () => yes("refused");
  });
  return [await tried(post("no-cors", "text/plain")), await tried(post("cors", "application/json")), await opened];
}
</script>"""


@contextmanager
def foreign_page(target: str) -> Iterator[str]:
    """Serve a page of another origin that attacks ``target``; yield its URL."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = (FOREIGN % (target, json.dumps(adding("foreign page")))).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Write no log."""

    server = ThreadingHTTPServer((HOST, 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://{HOST}:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["open_web", "locked_web"])
def test_a_foreign_page_in_the_users_browser_changes_nothing(name, request, browser):
    """The user has the UI open, and so the browser knows the password."""
    web = request.getfixturevalue(name)
    before = web.partitions()
    with page_of(browser, web) as page, foreign_page(f"{HOST}:{web.port}") as url:
        page.goto(f"http://{HOST}:{web.port}/")
        page.goto(url)
        fetched = page.evaluate("attack()")
        page.wait_for_timeout(1000)
    assert fetched[1:] == ["failed", "refused"]
    assert web.partitions() == before


def test_a_name_that_resolves_to_loopback_opens_nothing(open_web, browser):
    """DNS rebinding: the browser thinks that the page and the server have one origin."""
    with page_of(browser, open_web) as page:
        answer = page.goto(f"http://rebound.localhost:{open_web.port}/")  # browsers resolve it to loopback
        assert answer.status == 403
