"""Describes the query service as a service of the stack, and makes the token and login links of this stack."""

from __future__ import annotations

import http.client
import socket
import sys
from collections.abc import Mapping
from contextlib import closing, suppress
from hashlib import sha256
from pathlib import Path

from trace_dagster.errors import InvalidInput
from trace_dagster.lite.ports import HOST
from trace_dagster.lite.processes import Service
from trace_dagster.registry.connection import Database
from trace_dagster.registry.tokens import Tokens

_HEALTH_SECONDS = 5.0


def query_service(port: int, environment: Mapping[str, str], folder: Path) -> Service:
    """Describe the query service. After a restart it has the same port, and the same tokens open it."""
    return Service(
        name="queries",
        command=[sys.executable, "-m", "trace_dagster.cli.main", "serve", "--host", HOST, "--port", str(port)],
        environment=environment,
        healthy=lambda: _is_healthy(port),
        folder=folder,
    )


def url_of(port: int) -> str:
    """Return the service's URL on this machine."""
    return f"http://{HOST}:{port}"


def _is_healthy(port: int) -> bool:
    """Return whether the service, its registry, object store and processes answer."""
    connection = http.client.HTTPConnection(HOST, port, timeout=_HEALTH_SECONDS)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def make_token(database: Database, home: Path) -> str:
    """Make the token with which this machine's commands ask the stack's service. That of an earlier start ends."""
    end_token(database, home)
    return Tokens(database).new(_name_of(home), expires_in=None)


def end_token(database: Database, home: Path) -> None:
    """Revoke the token of a home's stack, if it has one, and the sessions that its login links began."""
    with suppress(InvalidInput):  # it has none
        Tokens(database).revoke(_name_of(home))


def login_link(postgres_url: str, query_url: str, home: Path) -> str:
    """Return a link that logs a browser in to the page of a home's stack, once and within ten minutes."""
    with closing(Database(postgres_url, max_connections=1)) as database:
        return f"{query_url}/login#{Tokens(database).link(_name_of(home))}"


def _name_of(home: Path) -> str:
    """Return the name of a home's token: stacks of several machines may share a registry."""
    return f"local-{sha256(f'{socket.gethostname()}:{home}'.encode()).hexdigest()[:12]}"
