"""Finds the running stack, so that a command started in the same folder needs no exported variables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import psutil

from trace_dagster.config.home_folder import DEFAULT_HOME

CREDENTIALS = frozenset(
    {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"}
    | {"TRACE_S3_QUERY_ACCESS_KEY_ID", "TRACE_S3_QUERY_SECRET_ACCESS_KEY"}
)
AWS_VARIABLES = CREDENTIALS | {"AWS_REGION", "AWS_DEFAULT_REGION"}
STORE_VARIABLES = AWS_VARIABLES | {"TRACE_S3_ENDPOINT", "TRACE_S3_BUCKET"}
STACK_VARIABLE = "TRACE_STACK_ID"
_QUERY_URL = "TRACE_QUERY_URL"
_THIS_HOST = frozenset({"", "localhost", "127.0.0.1", "::1"})

STATE_FILE = "stack.json"
"""The file in TRACE_HOME that the supervisor writes while the stack runs."""


@dataclass(frozen=True, slots=True)
class StackState:
    """A running stack: the supervisor's process, the addresses of its services, and the variables to use them."""

    pid: int
    started: float
    """When the supervisor started, in seconds since the epoch: another process may have its pid later."""
    stack_id: str
    web_url: str
    s3_endpoint: str
    postgres_address: str
    devchain_address: str
    variables: dict[str, str] = field(repr=False)

    def environment(self) -> dict[str, str]:
        """Return the variables that a process needs to use this stack. They hold secrets."""
        return dict(self.variables)

    def summary(self) -> str:
        """Return the addresses, one a line, without secrets."""
        lines = [
            f"dagster ui   {self.web_url}",
            f"queries      {self.variables['TRACE_QUERY_URL']}",
            f"s3           {self.s3_endpoint} (bucket {self.variables['TRACE_S3_BUCKET']})",
            f"postgres     {self.postgres_address}",
            f"devchain     {self.devchain_address} (rpc pool `devchain`, chain 20143)",
        ]
        return "\n".join(lines)


def environment_with_stack(environment: Mapping[str, str]) -> dict[str, str]:
    """Complete ``environment`` with the running stack's variables; a variable that is set already wins.

    A stack of another database than TRACE_POSTGRES_URL names is ignored. Address and credentials of the object store
    are used together: keys that were exported for AWS are not those of the stack's server, and the stack's keys are not
    sent to another one. So are the query service's URL and token. A process of a stack gets its variables from the
    supervisor alone.
    """
    given = {name: value for name, value in environment.items() if value.strip()}
    if STACK_VARIABLE in given:
        return dict(environment)
    state = load_state(Path(given.get("TRACE_HOME") or DEFAULT_HOME).absolute())
    if state is None or not _same_database(given, state.variables):
        return dict(environment)
    stack = state.environment()
    if _uses_own_store(given, stack):
        stack = {name: value for name, value in stack.items() if name not in STORE_VARIABLES}
    else:
        given = {name: value for name, value in given.items() if name not in AWS_VARIABLES}
    if not _is_same_url(given.get(_QUERY_URL), stack.get(_QUERY_URL)):
        stack.pop("TRACE_QUERY_TOKEN", None)  # it opens the stack's service, and is not sent to another one
    return {**stack, **given}


def _is_same_url(given: str | None, stacks: str | None) -> bool:
    """Return whether no URL is given, or the stack's."""
    return given is None or (stacks is not None and given.rstrip("/") == stacks.rstrip("/"))


def _same_database(given: Mapping[str, str], stack: Mapping[str, str]) -> bool:
    url = given.get("TRACE_POSTGRES_URL")
    return url is None or _database(url) == _database(stack.get("TRACE_POSTGRES_URL", ""))


def _database(url: str) -> tuple[str, str, str]:
    """Return host, port and name of a URL's database: two URLs may name it with other users and options."""
    try:
        parts = urlsplit(url)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        host = query.get("hostaddr") or query.get("host") or unquote(parts.hostname or "")
        port = query.get("port") or str(parts.port or 5432)
    except ValueError:
        return url, "", ""
    user = query.get("user") or unquote(parts.username or "")
    name = query.get("dbname") or unquote(parts.path.lstrip("/")) or user
    return "127.0.0.1" if host.lower() in _THIS_HOST else host.lower(), port, name


def _uses_own_store(given: Mapping[str, str], stack: Mapping[str, str]) -> bool:
    """Return whether the environment names an object store of its own, or its own keys for the stack's."""
    endpoint = given.get("TRACE_S3_ENDPOINT")
    if endpoint is None:
        return False
    return not _is_same_url(endpoint, stack.get("TRACE_S3_ENDPOINT", "")) or not CREDENTIALS.isdisjoint(given)


def load_state(home: Path) -> StackState | None:
    """Return the stack that runs in ``home``, or None."""
    try:
        state = StackState(**json.loads((home / STATE_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return state if _is_running(state) else None


def _is_running(state: StackState) -> bool:
    try:
        process = psutil.Process(state.pid)
        # if nothing reaps orphans, a killed supervisor stays as a zombie
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - state.started) < 1
    except psutil.Error:
        return False
