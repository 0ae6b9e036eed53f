"""DuckDB sessions over Parquet files in the object store and over hot rows: one view per table, and no access to
anything else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from os.path import commonprefix
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from trace_dagster.errors import InvalidInput, Unavailable
from trace_dagster.query.hash_lookup import looked_up
from trace_dagster.query.protocol import NO_MEMORY, NO_SPACE, Columns, MaskedFiles, QueryLimits, Relation, RowCut, lines
from trace_dagster.query.syntax import HARDENED, first_line, parse, quoted
from trace_dagster.store.access import S3Access
from trace_dagster.store.credentials import current_keys

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb.sqltypes import DuckDBPyType


MAX_PATHS = 10_000
"""With more files in one list, their folder is allowed instead of each of them: 100,000 paths take 0.2 s."""
_SETTINGS = (
    "httpfs_connection_caching",
    "enable_http_metadata_cache",
    "parquet_metadata_cache",
    "s3_url_compatibility_mode",  # no globs and no query strings in names
)
_AS_NUMBER = "a uint256 becomes a number by array_slice(x, 17, 32)::bit::hugeint, exact below 2^127"


class QuerySession:
    """One DuckDB connection over a fixed set of files. Not thread-safe; the caller closes it."""

    def __init__(self, limits: QueryLimits | None = None) -> None:
        """Open a connection that can read S3, without any table. Raises Unavailable if the httpfs extension is missing.

        ``memory_mib`` limits DuckDB's buffers here. Strings and lists are outside that limit: SQL from users runs in a
        process whose memory is limited (``child.py``).
        """
        limits = limits or QueryLimits()
        self._temporary_mib = limits.temporary_mib
        self._files = 0
        self._lists: list[str] = []
        self._folders: list[str] = []
        self._connection = duckdb.connect(
            config={
                **HARDENED,
                "memory_limit": f"{limits.memory_mib}MiB",
                "threads": str(limits.threads),
            }
        )
        self._rows: duckdb.DuckDBPyConnection | duckdb.DuckDBPyRelation = self._connection
        self.kinds: Sequence[DuckDBPyType] = ()
        """The types of the columns of the SELECT that was started last."""
        try:
            self._connection.execute(f"load {_literal(_httpfs())}")
            self._connection.execute("set TimeZone = 'UTC'")
        except duckdb.Error as error:
            self._connection.close()
            raise mapped_error(error) from None

    def go_on(self, threads: int) -> None:
        """Take a new connection and start the threads, in a process that was forked with this session.

        Random numbers are a connection's: without a new one, ``uuid()`` is the same in all such processes.
        """
        self._connection = self._connection.cursor()
        self._connection.execute("set TimeZone = 'UTC'")
        self._connection.execute(f"set threads = {int(threads)}")

    @classmethod
    def over(cls, relations: Sequence[Relation], access: S3Access, *, macros: str = "") -> QuerySession:
        """Return a session whose relations are open. See :meth:`open`."""
        session = cls()
        try:
            session.open(relations, access, macros=macros)
        except BaseException:
            session.close()
            raise
        return session

    def open(
        self, relations: Sequence[Relation], access: S3Access, *, macros: str = "", folder: str | None = None
    ) -> None:
        """Create the views and lock the connection down: it reads the files of ``relations`` and nothing else.

        ``macros`` is trusted SQL that creates the macros of the analytics templates; it runs before the lock.
        ``folder`` is a private folder for what exceeds the memory; without it, such a query fails.
        Raises Unavailable if the object store cannot be read, InvalidInput if DuckDB reports another error.
        """
        try:
            self._connection.execute(_secret(access))
            for setting in _SETTINGS:
                self._connection.execute(f"set {setting} = true")
            relations = [looked_up(relation, self._connection) for relation in relations]
            for relation in relations:
                self._add(relation)
            self._connection.execute("set schema = 'main'")
            if macros:
                self._connection.execute(macros)
            self._lock_down(folder)
        except duckdb.Error as error:
            raise mapped_error(error) from None

    def select(self, text: str) -> Columns:
        """Start one SELECT and return ``(name, DuckDB type)`` of its columns; :meth:`fetch` returns its rows.

        Any other statement raises InvalidInput, because a session could write to the files that it may read.
        """
        statement = parse(text, self._connection)
        try:
            options = "analyze, format json" if statement.explain == "explain analyze" else "format json"
            self._connection.execute(f"explain ({options}) {statement.text}" if statement.explain else text)
        except duckdb.Error as error:
            raise mapped_error(error) from None
        self._rows, description = self._connection, self._connection.description or ()
        self.kinds = [entry[1] for entry in description]
        return tuple((str(entry[0]), str(entry[1])) for entry in description)

    def select_shown(self, text: str, shown: Callable[[str, DuckDBPyType], str]) -> Columns:
        """As :meth:`select`, but :meth:`fetch` returns what an expression makes of each column and its type."""
        relation = self.relation(text)
        expressions = [shown(f"#{number}", kind) for number, kind in enumerate(relation.types, 1)]
        try:
            self._rows = relation.project(", ".join(expressions))  # runs when rows are fetched
        except duckdb.Error as error:
            raise mapped_error(error) from None
        self.kinds = relation.types
        return tuple((name, str(kind)) for name, kind in zip(relation.columns, relation.types, strict=True))

    def fetch(self, most: int) -> list[tuple[Any, ...]]:
        """Return the next rows, at most ``most``; an empty list at the end. Raises as :meth:`select` does."""
        try:
            return self._rows.fetchmany(most)
        except duckdb.Error as error:
            raise mapped_error(error) from None
        except (OverflowError, ValueError) as error:
            raise InvalidInput(f"a value cannot be shown, cast it to VARCHAR: {first_line(error)}") from None

    def relation(self, text: str) -> duckdb.DuckDBPyRelation:
        """Return the rows of one SELECT, which runs when they are read. Raises as :meth:`select` does."""
        statement = parse(text, self._connection)
        if statement.explain:
            raise InvalidInput("a plan is no relation")
        try:
            return self._connection.sql(text)
        except duckdb.Error as error:
            raise mapped_error(error) from None

    def relation_of(self, rows: pa.Table) -> duckdb.DuckDBPyRelation:
        """Return rows as a relation."""
        return self._connection.from_arrow(rows)

    def table(self, sql: str, parameters: Mapping[str, object]) -> pa.Table:
        """Run an analytics template with bound parameters; the gate does not check it, and it has no timeout."""
        try:
            return self._connection.execute(sql, dict(parameters)).to_arrow_table()
        except duckdb.Error as error:
            raise mapped_error(error) from None

    def close(self) -> None:
        """Close the connection and free its memory."""
        self._connection.close()

    def __enter__(self) -> QuerySession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _add(self, relation: Relation) -> None:
        schema, _, name = relation.name.rpartition(".")
        if schema:
            self._connection.execute(f"create schema if not exists {quoted(schema)}")
        self._connection.execute(f"set schema = {_literal(schema or 'main')}")
        cut = _before(relation.cut)
        parts = [(relation.uris, cut)] if relation.uris else []
        parts += [(each.uris, [*_visible(each), *cut]) for each in relation.masked]
        variables = [self._variable(uris) for uris, _ in parts]
        self._create(
            name,
            [
                f"select * from read_parquet(getvariable('{variable}')){_where(conditions)}"  # noqa: S608  (our numbers)
                for variable, (_, conditions) in zip(variables, parts, strict=True)
            ],
            relation,
        )
        for variable, (uris, _) in zip(variables, parts, strict=True):
            self._set_files(variable, text := lines(uris))
            if text.count("\n") < MAX_PATHS:
                self._lists.append(variable)
            else:
                self._folders.append(_folder(text))

    def _create(self, name: str, scans: Sequence[str], relation: Relation) -> None:
        """Create a view of all rows. The hot rows have no name of their own: SQL can reach them by this view only."""
        body = " union all by name ".join(scans)
        if relation.hot is not None:
            columns = [quoted(column) for column, _ in relation.columns]
            rows = self._hot_rows(relation)
            known = self._connection.sql(body).project(", ".join(columns)).union(rows) if body else rows
            known.create_view(name, replace=False)
            return
        if not body:
            columns = [f"null::{kind} as {quoted(column)}" for column, kind in relation.columns]
            body = f"select {', '.join(columns)} limit 0"
        self._connection.execute(f"create view {quoted(name)} as {body}")

    def _hot_rows(self, relation: Relation) -> duckdb.DuckDBPyRelation:
        """Return the hot rows with all columns of the relation. Those that were not sent cannot change the answer: they
        are null.
        """
        assert relation.hot is not None
        has = frozenset(relation.hot.column_names)
        columns = [
            f"{quoted(name) if name in has else 'null'}::{kind} as {quoted(name)}" for name, kind in relation.columns
        ]
        rows = self._connection.from_arrow(relation.hot).project(", ".join(columns))
        cut = _before(relation.cut)
        return rows.filter(" and ".join(cut)) if cut else rows

    def _variable(self, uris: Sequence[str]) -> str:
        """Set a new variable to the first of these files: a view is created sooner over one file. Return its name."""
        self._files += 1
        name = f"files_{self._files}"
        self._set_files(name, lines(uris).partition("\n")[0])
        return name

    def _set_files(self, variable: str, uris: str) -> None:
        """Set a variable to a list of files. A long list takes seconds as a literal, and twice the time of this if the
        optimizer folds it to one.
        """
        self._connection.execute("set disabled_optimizers = 'expression_rewriter'")
        self._connection.execute(f"set variable {variable} = string_split($1, chr(10))", [uris])
        self._connection.execute("reset disabled_optimizers")

    def _lock_down(self, folder: str | None) -> None:
        """Allow exactly the files of the views, or the folder of a very long list of them. Forbid other objects, local
        files and HTTP.

        A name with a glob or a query string (``?s3_endpoint=``) is no allowed path, and within a folder it is taken
        literally. The lock comes last, because DuckDB refuses every setting after it.

        With a folder for temporary files, the local file system cannot be disabled, because DuckDB uses it for them.
        ``enable_external_access`` still forbids every local path but those in this folder, where the query has nothing
        but its own rows.
        """
        lists = ", ".join(f"getvariable('{variable}')" for variable in self._lists)
        folders = ", ".join(_literal(each) for each in self._folders)
        disabled = "LocalFileSystem,HTTPFileSystem" if folder is None else "HTTPFileSystem"
        for statement in (
            f"set temp_directory = {_literal(folder or '')}",
            f"set max_temp_directory_size = '{self._temporary_mib if folder else 0}MiB'",
            f"set allowed_paths = {f'flatten([{lists}])' if lists else '[]'}",
            f"set allowed_directories = [{folders}]",
            "set enable_external_access = false",
            f"set disabled_filesystems = '{disabled}'",
            "set lock_configuration = true",
        ):
            self._connection.execute(statement)


def _folder(uris: str) -> str:
    """Return the deepest folder that the first and the last file of a list have in common."""
    ends = [uris.partition("\n")[0], uris.rpartition("\n")[2]]
    return commonprefix(ends).rpartition("/")[0] + "/"  # noqa: RUF071


def _visible(files: MaskedFiles) -> list[str]:
    """Return the conditions that a row of these files is visible and needed."""
    conditions = [f"block_number not between {int(first)} and {int(last)}" for first, last in files.blocks]
    if files.only is not None:
        conditions.append(f"block_number in ({', '.join(str(int(block)) for block in files.only) or 'null'})")
    return conditions


def _before(cut: RowCut) -> list[str]:
    """Return the conditions that a row is not beyond a cut."""
    blocks = [] if cut.block is None else [f"block_number <= {int(cut.block)}"]
    return blocks if cut.time is None else [*blocks, f"block_timestamp <= make_timestamptz({int(cut.time)}::bigint)"]


def _where(conditions: Sequence[str]) -> str:
    return f" where {' and '.join(conditions)}" if conditions else ""


def _secret(access: S3Access) -> str:
    keys = current_keys(access)
    return (
        "create secret lake (type s3, provider config,"
        f" key_id {_literal(keys.access_key)}, secret {_literal(keys.secret_key)},"
        f" session_token {_literal(keys.token or '')},"
        f" region {_literal(access.region)}, endpoint {_literal(access.host)},"
        f" url_style {_literal('path' if access.endpoint else 'vhost')},"
        f" use_ssl {'true' if access.use_ssl else 'false'}, scope {_literal(access.uri(''))})"
    )


def _httpfs() -> str:
    spec = find_spec("duckdb_extension_httpfs")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        found = Path(folder) / "extensions" / f"v{duckdb.__version__}" / "httpfs.duckdb_extension"
        with suppress(OSError):
            return str(found.resolve(strict=True))
    raise Unavailable("the package duckdb-extension-httpfs does not match duckdb: `make install` brings both")


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def mapped_error(error: duckdb.Error) -> InvalidInput | Unavailable:
    """Return the error to raise for an error of DuckDB: one line, without the object store's address."""
    if isinstance(error, duckdb.OutOfMemoryException):
        return InvalidInput(NO_SPACE if "max_temp_directory_size" in str(error) else NO_MEMORY)
    if isinstance(error, duckdb.IOException | duckdb.HTTPException):
        return _failed_read(str(error))
    text = first_line(error)
    if text.startswith("INTERRUPT Error"):  # a thread had failed, and DuckDB told of another one that it ended
        return InvalidInput("the query failed, and DuckDB lost the reason: run it again to see it")
    if "://" in str(error):  # the name of a file
        return Unavailable("a file of a table cannot be read as it was committed: run `trace-lite verify`")
    return InvalidInput(f"the query failed: {text}{_advice(text, str(error))}")


def _failed_read(text: str) -> InvalidInput | Unavailable:
    if "duckdb_temp_" in text:  # a file of what exceeds the memory; RLIMIT_FSIZE makes it too large
        is_large = "File too large" in text
        return InvalidInput(NO_SPACE) if is_large else Unavailable("the disk for sorts and joins cannot be written")
    status = re.search(r"HTTP (\d{3})", text)
    reason = {"status": status[1]} if status else {}
    return Unavailable("the object store did not serve a file that was committed", **reason)


def _advice(text: str, whole: str) -> str:
    """Return the way out of some errors of DuckDB, to be added to their first line ``text``."""
    kinds = whole if "deduce template type" in text else text  # then further lines have the types
    if re.search(r"'(!?~~\*?|starts_with|prefix|contains|regexp_matches)\(BLOB", text):
        return ": bytes have no pattern, write lower(hex(x)) like 'ab12%'"
    if "BLOB" in kinds and ("VARCHAR" in kinds or "STRING_LITERAL" in kinds):
        return ": write the bytes as 0xab12, without quotes"
    if re.search(r"\((\w*INT\w*|DECIMAL\S*|DOUBLE|FLOAT) -> BLOB\)", text):
        return ": a number is compared with bytes, write it without 0x"
    if re.search(r"'(sum|avg|[-+*/]+)\([^']*BLOB", text):
        return f": {_AS_NUMBER}"
    if "to DECIMAL(38,0) when casting" in text:
        return ": Arrow and Parquet have no number of 39 digits, cast it to VARCHAR"
    if column := re.search(r'"(\w+)_(?:string|f64)" not found|column named "(\w+)_(?:string|f64)"', text):
        name = column[1] or column[2]
        return f": it is stored only if `columns` of the stream names it. From {name}_binary, {_AS_NUMBER}"
    return ""
