"""Connections to the registry, and the one place that maps psycopg's errors to the package's own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool, PoolTimeout

from trace_dagster.errors import Corrupt, InvalidInput, Refused, Unavailable
from trace_dagster.registry.pooler import require_own_session
from trace_dagster.registry.queries import query
from trace_dagster.registry.server_errors import connection_error

Row = dict[str, Any]

RESTED_SECONDS = 1.0
"""A connection that was idle for this long is tested before use. In steady work none is."""

_TEST_SECONDS = 3
_KEEPALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000}
"""A server that is gone without a word is noticed after a minute; by the system's defaults, after two hours."""

_ROWS_AT_ONCE = 2000
"""Rows that a cursor at the server sends at a time."""


class Connection(psycopg.Connection[Row]):
    """A connection that knows when it was last used, by this process's monotonic clock."""

    used_at = 0.0


class Database:
    """A pool of connections to one registry database. Thread-safe. Close it when done."""

    def __init__(
        self,
        dsn: str,
        *,
        max_connections: int = 8,
        connect_timeout_seconds: float = 10.0,
        reconnect_seconds: float = 300.0,
    ) -> None:
        """``reconnect_seconds`` limits the growing pauses between attempts to connect: with a low limit, the first
        call after an outage of the server connects at once.
        """
        self._dsn = dsn
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            dsn,
            min_size=0,
            max_size=max_connections,
            timeout=connect_timeout_seconds,
            reconnect_timeout=reconnect_seconds,
            kwargs={"row_factory": dict_row, "application_name": "trace_dagster", "connect_timeout": 5, **_KEEPALIVE},
            connection_class=Connection,
            check=_check,
            open=True,
        )

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Yield a connection in a transaction, for SQL that is not a named statement: tests, benches, tools.

        The transaction commits when the block ends and rolls back if it raises. Errors stay psycopg's own.
        """
        try:
            with self._pool.connection() as connection:
                yield connection
                connection.used_at = time.monotonic()
        except PoolTimeout:
            # the pool does not say why it got no connection: one that is made now does
            psycopg.connect(self._dsn, connect_timeout=_TEST_SECONDS).close()
            raise

    def require_answer(self) -> None:
        """Raise Unavailable if the server does not answer."""
        with self.transaction() as session:
            session.one("is_there")

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Yield a session in a transaction, which commits when the block ends and rolls back if it raises."""
        with mapped_errors(), self.connection() as connection:
            yield Session(connection)

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """Yield a session in a read-only REPEATABLE READ transaction: everything that it reads is of one moment."""
        with self.transaction() as session:
            session.execute_raw("set transaction isolation level repeatable read, read only")
            yield session


def _check(connection: Connection) -> None:
    if time.monotonic() - connection.used_at > RESTED_SECONDS:
        ConnectionPool.check_connection(connection)


class Session:
    """Runs named statements inside one transaction."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def run(self, name: str, /, **values: object) -> int:
        """Execute a statement; return the number of rows affected."""
        return self.connection.execute(query(name), values).rowcount

    def one(self, name: str, /, **values: object) -> Row | None:
        """Return the first row, or None."""
        return self.connection.execute(query(name), values).fetchone()

    def all(self, name: str, /, **values: object) -> list[Row]:
        """Return every row."""
        return self.connection.execute(query(name), values).fetchall()

    def each(self, name: str, /, **values: object) -> Iterator[Row]:
        """Yield all rows of a cursor at the server, a few thousand at a time."""
        self.one("read_whole_cursor")
        with self.connection.cursor(name) as cursor:
            cursor.itersize = _ROWS_AT_ONCE
            cursor.execute(query(name), values)
            yield from cursor

    def many(self, name: str, rows: list[Row]) -> None:
        """Execute a statement once per row, pipelined if there are several."""
        if len(rows) == 1:
            self.run(name, **rows[0])
            return
        with self.connection.cursor() as cursor:
            cursor.executemany(query(name), rows)

    def execute_raw(self, statement: str) -> None:
        """Execute a transaction setting; every other statement is named."""
        self.connection.execute(statement)


MAX_TEXT = 2000


def storable(text: str) -> str:
    """Return a text from outside in a form that Postgres stores: without NUL, and cut if it is long."""
    return text.replace("\x00", "").encode(errors="replace").decode()[:MAX_TEXT]


def require_database(dsn: str) -> None:
    """Raise an error unless the database takes connections, and not through a pooler that shares sessions."""
    with mapped_errors(), psycopg.connect(dsn, autocommit=True, connect_timeout=5) as connection:
        require_own_session(connection, dsn)


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Map psycopg's errors to the package's own; texts that could hold a password are left out."""
    try:
        yield
    except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure) as error:
        raise Unavailable("others changed the same rows at this moment: try again") from error
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise connection_error(error) from error
    except psycopg.ProgrammingError as error:
        if error.sqlstate is not None or "URI" not in str(error):
            raise
        raise connection_error(error) from None  # libpq does not accept the URL, which its text repeats
    except psycopg.errors.ExclusionViolation as error:
        raise Refused("another range of this dataset already covers these blocks") from error
    except psycopg.errors.UndefinedTable as error:
        raise Unavailable("the registry's tables are missing: run `trace-lite migrate`") from error
    except psycopg.DataError as error:
        raise InvalidInput("postgres refuses a value", reason=type(error).__name__) from error
    except psycopg.IntegrityError as error:
        raise Corrupt("the registry refused a row that breaks its rules", constraint=_constraint(error)) from error


def _constraint(error: psycopg.Error) -> str:
    return str(error.diag.constraint_name or error.sqlstate)
