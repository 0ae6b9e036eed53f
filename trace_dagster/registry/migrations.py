"""Numbered migrations of schema ``trace``. Any number of processes may run them at once."""

from __future__ import annotations

import re
from importlib.resources import files

import psycopg

from trace_dagster.errors import Corrupt, InvalidInput
from trace_dagster.identity import sha256_hex
from trace_dagster.messages.logs import component_log
from trace_dagster.registry.connection import mapped_errors
from trace_dagster.registry.pooler import require_own_session

_FILE = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_log = component_log("registry")
_ADVISORY_LOCK = 0x7472616365  # "trace"


def migrate(dsn: str) -> list[str]:
    """Migrate the database to this package's schema; return the names of the migrations applied now.

    Raise InvalidInput if the database is newer than this package or a pooler shares its sessions, Corrupt if an
    applied migration differs from the shipped one, Unavailable if Postgres does not answer.
    """
    with mapped_errors(), psycopg.connect(dsn, autocommit=True) as connection:
        require_own_session(connection, dsn)
        connection.execute("select pg_advisory_lock(%s)", (_ADVISORY_LOCK,))
        connection.execute("create schema if not exists dagster")
        connection.execute("create schema if not exists trace")
        connection.execute(
            "create table if not exists trace.migrations (name text primary key, sha256 text not null,"
            " applied_at timestamptz not null default now())"
        )
        applied: dict[str, str] = dict(connection.execute("select name, sha256 from trace.migrations").fetchall())
        shipped = _shipped()
        _check(applied, shipped)
        pending = [name for name in sorted(shipped) if name not in applied]
        for name in pending:
            with connection.transaction():
                connection.execute(shipped[name])
                connection.execute(
                    "insert into trace.migrations (name, sha256) values (%s, %s)",
                    (name, sha256_hex(shipped[name].encode())),
                )
        for name in pending:
            _log.event("migration_applied", name=name)
        return pending


def is_current(dsn: str) -> bool:
    """Return whether the database has exactly this package's schema.

    Raise InvalidInput if a pooler that shares sessions is in between, Unavailable if Postgres does not answer.
    """
    with mapped_errors(), psycopg.connect(dsn, autocommit=True) as connection:
        require_own_session(connection, dsn)
        if connection.execute("select to_regclass('trace.migrations')").fetchone() == (None,):
            return False
        return {name for (name,) in connection.execute("select name from trace.migrations")} == set(_shipped())


def _shipped() -> dict[str, str]:
    folder = files(__package__).joinpath("migrations")
    return {entry.name: entry.read_text() for entry in folder.iterdir() if _FILE.fullmatch(entry.name)}


def _check(applied: dict[str, str], shipped: dict[str, str]) -> None:
    newer = sorted(set(applied) - set(shipped))
    if newer:
        raise InvalidInput(
            "this database was made by a newer trace_dagster: upgrade the package, or use another"
            " TRACE_HOME or TRACE_POSTGRES_URL",
            unknown_migration=newer[0],
        )
    for name, digest in applied.items():
        if digest != sha256_hex(shipped[name].encode()):
            raise Corrupt("a migration that ran here is not the one this package ships", migration=name)
