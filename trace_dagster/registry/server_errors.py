"""Why Postgres, or a pooler before it, gives no connection: libpq's texts translated, because they have no code."""

from __future__ import annotations

import re

import psycopg

from trace_dagster.errors import TraceError, Unavailable, WrongSetup
from trace_dagster.messages.redaction import redact

_URL = "check TRACE_POSTGRES_URL"
_CAUSES: tuple[tuple[str, type[TraceError], str], ...] = (
    (
        r"server does not support SSL",
        WrongSetup,
        "postgres speaks no TLS, but sslmode requires it: turn TLS on at the server, or change sslmode in"
        " TRACE_POSTGRES_URL",
    ),
    (
        r"SSL required|, no encryption|SSL off",
        WrongSetup,
        "postgres takes connections with TLS only: add ?sslmode=require to TRACE_POSTGRES_URL",
    ),
    (
        r"root certificate file|certificate verify failed|could not read root certificate",
        WrongSetup,
        "the TLS certificate of postgres is not trusted: name its authority with sslrootcert in TRACE_POSTGRES_URL",
    ),
    (
        r"does not match host name",
        WrongSetup,
        "the TLS certificate of postgres is for another host: use the certificate's name in TRACE_POSTGRES_URL",
    ),
    (
        r"client certificate|certificate authentication failed|private key file|could not load .*certificate",
        WrongSetup,
        "postgres wants a TLS client certificate: set sslcert and sslkey in TRACE_POSTGRES_URL",
    ),
    (
        r"SSL error|SSL negotiation|SSL SYSCALL",
        Unavailable,
        f"the TLS handshake with postgres failed: {_URL} and its sslmode",
    ),
    (
        r"unsupported startup parameter",
        WrongSetup,
        "the pooler before postgres refuses an option of TRACE_POSTGRES_URL: remove it from the URL",
    ),
    (
        r"password authentication failed|authentication failed|no password supplied|no such user|pg_hba\.conf"
        r"|role .* does not exist",
        WrongSetup,
        f"postgres refuses this user: {_URL}'s user and password",
    ),
    (
        r"database .* does not exist|no such database",
        WrongSetup,
        f"postgres has no such database: create it, or {_URL}",
    ),
    (
        r"invalid URI query parameter|invalid sslmode|connection is bad: invalid",
        WrongSetup,
        f"a part of the URL is not valid: {_URL}",
    ),
    (
        r"too many clients|connection slots are reserved|too many connections|no more connections",
        Unavailable,
        "postgres has no free connection: raise max_connections, or end other programs",
    ),
    (r"failed to resolve host|could not translate host", Unavailable, f"the host of postgres is not known: {_URL}"),
    (r"starting up|shutting down|recovery mode", Unavailable, "postgres is starting or stopping: try again"),
    (
        r"Connection refused",
        Unavailable,
        f"postgres does not answer: nothing listens there; {_URL}, or that `trace-lite up` is running",
    ),
)
_SAID = re.compile(r".*(?:FATAL|ERROR|failed): +(.+)")


def connection_error(error: psycopg.Error) -> TraceError:
    """Return the error of a connection that was not made or broke, with the server's own words."""
    text = str(error)
    if error.sqlstate is not None:  # of a connection that stood: nothing is known of its transaction
        return _silent(error)
    for pattern, kind, message in _CAUSES:
        if re.search(pattern, text):
            return kind(message, **_said(text))
    return _silent(error)


def _silent(error: psycopg.Error) -> TraceError:
    return Unavailable(
        "postgres does not answer: check TRACE_POSTGRES_URL, or that `trace-lite up` is running",
        reason=type(error).__name__,
    )


def _said(text: str) -> dict[str, str]:
    """Return the last words of libpq or the server; the rest repeats the address."""
    found = _SAID.search(text)
    words = found[1].strip() if found else ""
    return {"said": redact(words)[:200]} if words else {}
