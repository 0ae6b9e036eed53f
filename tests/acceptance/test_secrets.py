"""A real stack whose pools fail in 40 ways that echo their key: no key is anywhere but in some environments."""

from __future__ import annotations

import base64
import json
import os
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
import pytest
from psycopg import sql

from tests.acceptance.conftest import Running
from tests.support.echoing_node import CHAIN_ID, WAYS, echoing, key_of
from trace_dagster.config.settings import Settings
from trace_dagster.lite.processes import STACK_VARIABLE
from trace_dagster.lite.stack import Stack

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(580)]

LIMITED = 2
"""Pools with an even number have a limit, so that the gateway stands before them; the others are asked directly."""

HEADER = """
kind: chain_sync
name: echoes
chain_id: {chain}
mode: {{kind: fixed_target, from_block: 0, to_block: 1}}
streams:
"""


def is_limited(number: int) -> bool:
    return number % LIMITED == 0


def pool_of(number: int) -> str:
    return f"echo{number}"


def forms_of(number: int) -> list[bytes]:
    """Return the forms of a key to look for, in lower case."""
    key = key_of(number)
    encoded = [base64.b64encode(lead + key.encode())[4:-4] for lead in (b"", b"a", b"ab")]
    return [form.lower() for form in (key.encode(), key.encode().hex().encode(), quote(key).encode(), *encoded)]


FORMS = {form: number for number in range(len(WAYS)) for form in forms_of(number)}


def found_in(data: bytes) -> set[int]:
    """Return the numbers of the ways whose keys are in some data."""
    text = data.lower()
    return {number for form, number in FORMS.items() if form in text}


@dataclass
class Watch:
    """Looks into the environments and command lines of a stack's processes, again and again."""

    stack_id: str
    seen: dict[tuple[str, ...], set[int]] = field(default_factory=dict)
    """Keys in the environment, by command line."""
    in_arguments: set[int] = field(default_factory=set)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.stop.wait(0.1):
            for process in psutil.process_iter():
                with suppress(psutil.Error):
                    environment = process.environ()
                    if process.pid != os.getpid() and (
                        environment.get(STACK_VARIABLE) == self.stack_id or found_in(json.dumps(environment).encode())
                    ):
                        self._look(tuple(process.cmdline()), environment)

    def _look(self, command: tuple[str, ...], environment: dict[str, str]) -> None:
        self.in_arguments |= found_in(" ".join(command).encode())
        self.seen.setdefault(command, set()).update(found_in("\n".join(environment.values()).encode()))


@dataclass
class Tried:
    """A stack that has tried the job, what its commands said, and what its processes knew."""

    stack: Running
    said: str
    watch: Watch


@pytest.fixture(scope="module")
def tried(open_folder, tmp_path_factory) -> Iterator[Tried]:
    home = open_folder / "secrets"
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("TRACE_", "AWS_"))}
    with echoing() as url_of:
        environment = {
            **plain,
            "TRACE_HOME": str(home),
            "TRACE_DEVCHAIN_BLOCKS": "20",
            "TRACE_MAX_ATTEMPTS": "1",
            "TRACE_RETRY_BASE_SECONDS": "1",
            **{f"TRACE_RPC_POOL_ECHO{number}_URL": url_of(number) for number in range(len(WAYS))},
            **{f"TRACE_RPC_POOL_ECHO{number}_RPS": "1000" for number in range(len(WAYS)) if is_limited(number)},
        }
        with Stack(Settings.read(environment)).running(lambda _: None) as state:
            watch = Watch(state.stack_id)
            thread = threading.Thread(target=watch.run, daemon=True)
            thread.start()
            # the commands find the stack by its home; their shell has no pool
            stack = Running(home, state, {**plain, "TRACE_HOME": str(home)})
            said = _try(stack, tmp_path_factory.mktemp("jobs") / "echoes.yaml")
            watch.stop.set()
            thread.join()
            yield Tried(stack, said, watch)


def job(streams: int) -> str:
    """Return a job with one block of as many pools."""
    lines = [f"  e{n}: {{cryo_dataset_name: blocks, rpc_pool: {pool_of(n)}, chunk_size: 1}}" for n in range(streams)]
    return HEADER.format(chain=CHAIN_ID) + "\n".join(lines)


def _try(stack: Running, path: Path) -> str:
    path.write_text(job(len(WAYS)))
    few = path.with_name("few.yaml")
    few.write_text(job(4))
    applied = stack.cli("apply", "--file", str(path))
    assert applied.returncode == 0, applied.stderr
    deadline = time.monotonic() + 240
    left = ["all"]
    while left and time.monotonic() < deadline:
        time.sleep(2)
        (shown,) = stack.json("status", "--json")["jobs"]
        left = [stream["dataset_key"] for stream in shown["streams"] if not stream["failed"]]
    assert left == []
    file = ["--file", str(path)]
    commands = (
        ["status"],
        ["status", "--json"],
        ["jobs"],
        ["plan", "--sample", "1", "--file", str(few)],
        ["apply", *file, "--wait"],
    )
    said = [applied, *(stack.cli(*command) for command in commands)]
    return "\n".join(each.stdout + each.stderr for each in said)


def test_each_range_failed_with_a_reason(tried):
    (shown,) = tried.stack.json("status", "--json")["jobs"]
    reasons = {stream["dataset_key"]: stream["last_error"] for stream in shown["streams"]}
    assert all(reasons.values()), reasons
    for number in range(len(WAYS)):
        assert f"{pool_of(number)}#1" in reasons[f"e{number}"], reasons[f"e{number}"]


def test_no_command_shows_a_key(tried):
    assert found_in(tried.said.encode()) == set()
    assert "\x1b" not in tried.said


def test_no_file_holds_a_key(tried):
    """Postgres's files are below the home too. stack.json holds the URLs of endpoints that are asked directly."""
    leaks = {}
    for path in tried.stack.home.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with suppress(FileNotFoundError):
                keys = found_in(path.read_bytes())
                if path.name == "stack.json":
                    keys = {number for number in keys if is_limited(number)}
                if keys:
                    leaks[str(path.relative_to(tried.stack.home))] = keys
    assert leaks == {}


def test_no_table_holds_a_key(tried):
    leaks = {}
    with psycopg.connect(tried.stack.state.environment()["TRACE_POSTGRES_URL"]) as connection:
        tables = connection.execute(
            "select schemaname, tablename from pg_tables where schemaname in ('trace', 'dagster')"
        ).fetchall()
        assert {schema for schema, _ in tables} == {"trace", "dagster"}
        for schema, table in tables:
            rows = connection.execute(
                sql.SQL("select t::text from {}.{} t").format(*map(sql.Identifier, (schema, table)))
            )
            if keys := found_in("\n".join(text for (text,) in rows).encode()):
                leaks[f"{schema}.{table}"] = keys
    assert leaks == {}


RUNS = "{ runsOrError { ... on Runs { results { runId } } } }"
EVENTS = """query($run: ID!) { logsForRun(runId: $run) { ... on EventConnection { events { __typename
  ... on MessageEvent { message }
  ... on ErrorEvent { error { message stack causes { message stack } } }
  ... on ExecutionStepFailureEvent { error { message stack cause { message stack } errorChain { error { message } } } }
  ... on RunFailureEvent { error { message stack } } } } } }"""
ASSETS = """{ assetNodes { id description metadataEntries { label description }
  hasMaterializePermission assetChecksOrError { ... on AssetChecks { checks { name
  executionForLatestMaterialization { evaluation { description metadataEntries { label ... on MarkdownMetadataEntry {
    mdStr } ... on TextMetadataEntry { text } ... on JsonMetadataEntry { jsonString } } } } } } } } }"""
TICKS = """{ workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError { ... on RepositoryLocation {
  repositories { sensors { name sensorState { ticks(limit: 50) {
    status skipReason error { message stack } } } } } } } } } } }"""


def test_dagsters_pages_show_no_key(tried):
    ask = asking(tried.stack.state.web_url)
    runs = [run["runId"] for run in ask(RUNS)["runsOrError"]["results"]]
    assert runs
    shown = [ask(EVENTS, run=run) for run in runs] + [ask(ASSETS), ask(TICKS)]
    text = json.dumps(shown)
    assert "ExecutionStepFailureEvent" in text
    assert found_in(text.encode()) == set()


def asking(url: str) -> Callable[..., dict]:
    def ask(query: str, **variables: str) -> dict:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{url}/graphql", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            said = json.load(answer)
        assert "errors" not in said, said["errors"]
        return said["data"]

    return ask


def test_only_processes_that_ask_nodes_know_a_pool(tried):
    """The gateway knows every pool. The code server and its runs know only those that are asked directly, the follower
    and the query service none.
    """
    assert tried.watch.in_arguments == set()
    directly = {number for number in range(len(WAYS)) if not is_limited(number)}
    known: dict[str, set[int]] = {}
    for command, keys in tried.watch.seen.items():
        known.setdefault(_role(command), set()).update(keys)
    assert known.pop("gateway") == set(range(len(WAYS)))
    assert known.pop("code") == directly
    for role in (
        "follower",
        "queries",
        "query process",
        "devchain",
        "web server",
        "daemon",
        "engine",
        "tail",
        "watch",
        "s3",
        "postgres",
    ):
        assert known.pop(role) == set(), role
    assert all(keys <= directly for keys in known.values()), known


def _role(command: tuple[str, ...]) -> str:
    line = " ".join(command)
    roles = {
        "trace_dagster.gateway": "gateway",
        "cli.main follow": "follower",
        "cli.main serve": "queries",
        "trace_dagster.query": "query process",
        "trace_dagster.devchain": "devchain",
        "trace_dagster.engine.worker": "engine",
        "trace_dagster.dagster_instance.web": "web server",
        "dagster._daemon": "daemon",
        "watch_orphans": "watch",
        "tail -F": "tail",
        "weed": "s3",
        "postgres": "postgres",
        "code-server": "code",
        "dagster api": "code",
        "multiprocessing.spawn": "code",
    }
    return next((role for part, role in roles.items() if part in line), line)
