"""DuckDB sessions over Parquet files in the object store: one view per table, and no access to anything else."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from trace_dagster.errors import InvalidInput, Unavailable
from trace_dagster.query.gate import check
from trace_dagster.store.access import S3Access

MAX_ROWS = 10_000
"""Most rows that one query returns, even if the caller requests more."""
DEFAULT_ROWS = 1_000
"""Rows that one query returns if the caller requests no number."""


@dataclass(frozen=True, slots=True)
class Relation:
    """One table: its name (``blocks`` or ``chain_1.blocks``), its columns and the URIs of its Parquet files."""

    name: str
    schema: pa.Schema
    uris: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """Resource limits of one session; ``timeout_seconds`` applies to each query."""

    memory_mib: int = 2048
    threads: int = 2
    timeout_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class QueryResult:
    """Columns as (name, DuckDB type) and rows in column order. ``truncated`` is true if the query had more rows."""

    columns: tuple[tuple[str, str], ...]
    rows: list[tuple[Any, ...]]
    truncated: bool


class QuerySession:
    """One DuckDB connection over a fixed set of relations. Not thread-safe; the caller closes it."""

    def __init__(
        self, relations: Sequence[Relation], access: S3Access, limits: QueryLimits | None = None, *, macros: str = ""
    ) -> None:
        """Create the views and lock the connection down.

        ``macros`` is trusted SQL that creates the macros of the analytics templates; it runs before the lock.
        Raises Unavailable if the object store cannot be read or the httpfs extension does not match DuckDB.
        Raises InvalidInput if DuckDB reports another error.
        """
        self._limits = limits or QueryLimits()
        self._names = [relation.name for relation in relations]
        self._empty_tables: list[pa.Table] = []
        self._connection = duckdb.connect(
            config={
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "memory_limit": f"{self._limits.memory_mib}MiB",
                "threads": str(self._limits.threads),
                "python_enable_replacements": "false",
            }
        )
        try:
            self._open(relations, access, macros)
        except duckdb.Error as error:
            self._connection.close()
            raise _mapped_error(error) from None

    def query(self, sql: str, limit: int = DEFAULT_ROWS) -> QueryResult:
        """Run SQL from a user and return at most ``limit`` rows (from 1 to MAX_ROWS).

        Raises InvalidInput if the gate refuses the SQL, DuckDB rejects it or it exceeds the memory limit. Raises
        Unavailable if it exceeds ``timeout_seconds`` or the object store does not serve a file.
        """
        check(sql, self._names)
        most = max(1, min(limit, MAX_ROWS))
        with self._deadline():
            try:
                self._connection.execute(sql)
                columns = tuple((str(entry[0]), str(entry[1])) for entry in self._connection.description or ())
                rows = self._connection.fetchmany(most + 1)
            except duckdb.Error as error:
                raise _mapped_error(error) from None
        return QueryResult(columns, rows[:most], truncated=len(rows) > most)

    def table(self, sql: str, parameters: Mapping[str, object]) -> pa.Table:
        """Run an analytics template with bound parameters; the gate does not check it, and it has no timeout."""
        try:
            return self._connection.execute(sql, dict(parameters)).to_arrow_table()
        except duckdb.Error as error:
            raise _mapped_error(error) from None

    def close(self) -> None:
        """Close the connection and free its memory."""
        self._connection.close()

    def __enter__(self) -> QuerySession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, relations: Sequence[Relation], access: S3Access, macros: str) -> None:
        connection = self._connection
        connection.execute(f"load {_literal(_httpfs())}")
        connection.execute(
            "create secret lake (type s3, provider config,"
            f" key_id {_literal(access.access_key)}, secret {_literal(access.secret_key)},"
            f" region {_literal(access.region)}, endpoint {_literal(access.host)},"
            f" url_style {_literal('path' if access.endpoint else 'vhost')},"
            f" use_ssl {'true' if access.use_ssl else 'false'}, scope {_literal(access.uri(''))})"
        )
        connection.execute("set httpfs_connection_caching = true")
        for relation in relations:
            self._add(relation)
        connection.execute("set schema = 'main'")
        if macros:
            connection.execute(macros)
        self._lock_down(access)

    def _add(self, relation: Relation) -> None:
        schema, _, name = relation.name.rpartition(".")
        if schema:
            connection_schema = '"' + schema.replace('"', '""') + '"'
            self._connection.execute(f"create schema if not exists {connection_schema}")
        self._connection.execute(f"set schema = {_literal(schema or 'main')}")
        if relation.uris:
            self._connection.read_parquet(list(relation.uris)).create_view(name)
        else:
            empty = relation.schema.empty_table()
            self._empty_tables.append(empty)
            self._connection.from_arrow(empty).create_view(name)

    def _lock_down(self, access: S3Access) -> None:
        """Forbid temporary files, other buckets, local files and HTTP.

        The lock comes last, because DuckDB refuses every setting after it.
        """
        for statement in (
            "set temp_directory = ''",
            "set max_temp_directory_size = '0B'",
            f"set allowed_directories = [{_literal(access.uri(''))}]",
            "set enable_external_access = false",
            "set disabled_filesystems = 'LocalFileSystem,HTTPFileSystem'",
            "set lock_configuration = true",
        ):
            self._connection.execute(statement)

    def _deadline(self) -> _Deadline:
        return _Deadline(self._connection, self._limits.timeout_seconds)


class _Deadline:
    """Interrupts the connection if the ``with`` block takes longer than ``seconds``."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, seconds: float) -> None:
        self._timer = threading.Timer(seconds, connection.interrupt)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


def _httpfs() -> str:
    spec = find_spec("duckdb_extension_httpfs")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        found = Path(folder) / "extensions" / f"v{duckdb.__version__}" / "httpfs.duckdb_extension"
        with suppress(OSError):
            return str(found.resolve(strict=True))
    raise Unavailable("the package duckdb-extension-httpfs does not match duckdb: `make install` brings both")


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _mapped_error(error: duckdb.Error) -> Exception:
    first = (str(error).splitlines() or [type(error).__name__])[0]
    if isinstance(error, duckdb.InterruptException):
        return Unavailable("the query took too long: ask for fewer blocks, or aggregate")
    if isinstance(error, duckdb.OutOfMemoryException):
        return InvalidInput("the query needs more memory than it may use: ask for fewer blocks, or aggregate")
    if isinstance(error, duckdb.IOException | duckdb.HTTPException):
        return Unavailable("the object store did not serve a file: check that the stack is running")
    return InvalidInput(f"the query failed: {first[:300]}")
