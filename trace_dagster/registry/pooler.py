"""Recognises a pooler before Postgres, such as PgBouncer, and refuses those that share a session among clients."""

from __future__ import annotations

from typing import Any

import psycopg

from trace_dagster.errors import InvalidInput

_TRIES = 5
"""Another client may take the backend that the test looks for."""


def require_own_session(connection: psycopg.Connection[Any], dsn: str) -> None:
    """Raise InvalidInput if a pooler gives each transaction another session of the server.

    Dagster's storage sets its schema and a timeout for its session; in such a pool they would be lost, or apply to
    other clients. ``connection`` must be in autocommit: a transaction could hold the pool's only session.
    """
    # a pooler tells its client a process id of its own
    if _backend(connection) != connection.info.backend_pid and _is_shared(dsn):
        raise InvalidInput(
            "TRACE_POSTGRES_URL leads through a pooler in transaction mode, which Dagster's storage cannot use:"
            " set pool_mode = session (PgBouncer), or use the port of Postgres itself"
        )


def _is_shared(dsn: str) -> bool:
    """Return whether two connections meet on one backend, or one connection changes its backend."""
    try:
        with psycopg.connect(dsn, autocommit=True) as one, psycopg.connect(dsn, autocommit=True) as other:
            for _ in range(_TRIES):
                before = _backend(one)
                with other.transaction():
                    if _backend(other) == before or _backend(one) != before:
                        return True
        return False
    except psycopg.errors.ProtocolViolation:  # PgBouncer's statement mode allows no transaction
        return True


def _backend(connection: psycopg.Connection[Any]) -> int:
    found = connection.execute("select pg_backend_pid() as pid").fetchone()
    assert found is not None
    return int(found["pid"] if isinstance(found, dict) else found[0])
