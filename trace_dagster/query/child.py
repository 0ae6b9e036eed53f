"""The query process: it runs one query of a user and ends.

A process is the only limit that holds: DuckDB's strings and lists are outside its memory limit, some functions cannot
be interrupted, and some crash. The process starts before there is a query. It gets the SQL and the tables' columns,
answers with the tables that the query reads and the conditions on their rows, then gets the files that can hold such
rows, such rows that are in no file yet, and access to the bucket, and sends the rows as JSON or in a format of streams.
All of this goes over one inherited socket; neither argv nor the environment holds a secret.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import duckdb
import pyarrow as pa

from trace_dagster.errors import InvalidInput, TraceError
from trace_dagster.query.arrow_wire import received
from trace_dagster.query.formats import encode
from trace_dagster.query.left_out import keep_filters_from_arrow, leave_pandas_out
from trace_dagster.query.planner import prepared_planner, ready_planner
from trace_dagster.query.protocol import (
    COUNT_BYTES,
    MAX_NAME_BYTES,
    NO_MEMORY,
    READY,
    TOO_LARGE,
    Columns,
    QueryLimits,
    Relation,
    Tips,
)
from trace_dagster.query.render import Convert, converter
from trace_dagster.query.session import QuerySession
from trace_dagster.query.statement import UserStatement
from trace_dagster.query.syntax import first_line
from trace_dagster.store.access import S3Access

_MESSAGE_BYTES = 1 << 20
"""Rows are sent when their JSON has about this size."""
_BASE_MIB = 1536
"""Address space of the process without the query: code, threads' stacks, buffers of the allocator."""
_WATCH_SECONDS = 0.05


class PreparedChild:
    """What takes time to load and is the same for all queries. It is made before there is a query, in the process of
    the query or in the fork server. No thread is started.
    """

    def __init__(self, limits: QueryLimits) -> None:
        keep_filters_from_arrow()
        leave_pandas_out()
        self._limits = limits
        self._session = QuerySession(replace(limits, threads=1))
        self._planner = prepared_planner()

    def serve(self, wire: Connection) -> NoReturn:
        """Serve one query over its socket, and end the process."""
        pa.set_cpu_count(self._limits.threads)
        self._session.go_on(self._limits.threads)
        parsing = ready_planner(self._planner)
        with suppress(EOFError, OSError):  # the parent is gone
            wire.send_bytes(READY)
            _serve(wire, self._session, parsing, self._limits)
        os._exit(0)  # without waiting for DuckDB's threads


def main() -> None:
    """Serve one query. Arguments: the socket's descriptor, the limits as JSON."""
    wire, limits = Connection(int(sys.argv[1])), QueryLimits(**json.loads(sys.argv[2]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    PreparedChild(limits).serve(wire)


def _serve(wire: Connection, session: QuerySession, parsing: duckdb.DuckDBPyConnection, limits: QueryLimits) -> None:
    request = json.loads(wire.recv_bytes())
    _limit(limits, request["timeout_seconds"])
    try:
        shapes = dict(request["shapes"])
        statement = UserStatement(request["sql"], shapes, parsing, request["literals"])
        wanted = statement.tips_wanted()
        _send(wire, relations=sorted(statement.relations), tips=wanted)
        tips = Tips(**json.loads(wire.recv_bytes())["tips"]) if wanted else Tips()
        _send(wire, reads={name: found.to_json() for name, found in statement.reads(tips).items()})
        opening = json.loads(wire.recv_bytes())
        named = [_relation(wire, given, count) for given, count in opening["relations"]]
        threading.Thread(target=_end_with_parent, args=(wire,), daemon=True).start()
        others = [Relation(name, shapes[name], ()) for name in shapes.keys() - statement.relations]  # SHOW lists them
        session.open([*named, *others], S3Access(**opening["access"]), folder=opening["folder"])
        _send(wire, opened=True)
        if request["format"] == "json":
            _send_rows(wire, session, statement, request["rows"], limits.result_mib << 20)
        else:
            _send_stream(wire, session, statement, request, opening["snapshot"])
    except TraceError as error:
        _send(wire, error=[type(error).__name__, str(error)])
    except MemoryError:
        _send(wire, error=[InvalidInput.__name__, NO_MEMORY])
    except Exception as error:
        _send(wire, error=[InvalidInput.__name__, f"the query failed unexpectedly: {first_line(error)}"])


def _relation(wire: Connection, given: list[Any], pieces: int) -> Relation:
    """Receive the files and the pieces of rows of a relation."""
    uris = wire.recv_bytes().decode()
    return Relation.from_json(given, uris, received(pieces, wire.recv_bytes))


def _send_rows(
    wire: Connection, session: QuerySession, statement: UserStatement, most_rows: int, most_bytes: int
) -> None:
    columns, batches = statement.run(session)
    _send_columns(wire, columns)
    converters = [converter(kind) for kind in session.kinds[: len(columns)]]  # a plan is the first of two texts
    waiting: list[str] = []
    sent = size = rows = 0
    truncated = False
    for row in chain.from_iterable(batches):
        encoded = _encoded(row, converters)
        truncated = rows == most_rows or sent + size + len(encoded) > most_bytes
        if truncated:
            break
        waiting.append(encoded)
        size += len(encoded)
        rows += 1
        if size >= _MESSAGE_BYTES:
            _send_text(wire, waiting)
            waiting, sent, size = [], sent + size, 0
    if truncated and not rows:
        raise InvalidInput(f"one row of the result is larger than {most_bytes >> 20} MiB: select fewer columns")
    _send_text(wire, waiting)
    _send(wire, end={"truncated": truncated})


def _send_columns(wire: Connection, columns: Columns) -> None:
    if sum(len(name) + len(kind) for name, kind in columns) > MAX_NAME_BYTES:
        raise InvalidInput(
            f"the names of the {len(columns)} columns are too long: name them by AS, or select fewer columns"
        )
    _send(wire, columns=columns)


def _send_stream(
    wire: Connection, session: QuerySession, statement: UserStatement, request: Mapping[str, Any], snapshot: Any
) -> None:
    """Send encoded bytes, an empty message, and the number of rows. The parent passes the bytes on as they are.

    Each message of bytes begins with the number of rows so far. After an error, too, an empty message ends the bytes.
    """
    columns, rows = statement.rows(session, request["rows"])
    _send_columns(wire, columns)

    def send(data: memoryview, count: int) -> None:
        wire.send_bytes(b"".join((count.to_bytes(COUNT_BYTES, "big"), data)))

    try:
        count = encode(request["format"], rows, [name for name, _ in columns], snapshot, send)
    finally:
        wire.send_bytes(b"")
    _send(wire, end={"rows": count})


def _encoded(row: tuple[Any, ...], converters: Sequence[Convert]) -> str:
    try:
        return json.dumps([convert(item) for item, convert in zip(row, converters, strict=True)])
    except (OverflowError, ValueError) as error:
        raise InvalidInput(f"a value cannot be shown, cast it to VARCHAR: {first_line(error)}") from None


def _send_text(wire: Connection, rows: list[str]) -> None:
    """Send rows that are JSON texts already."""
    wire.send_bytes(f'{{"rows": [{",".join(rows)}]}}'.encode())


def _send(wire: Connection, **message: Any) -> None:
    wire.send_bytes(json.dumps(message).encode())


def _limit(limits: QueryLimits, timeout_seconds: float) -> None:
    """Limit memory and CPU time. Where the address space cannot be limited, a thread watches the resident memory."""
    cpu_seconds = int(time.process_time() + timeout_seconds * limits.threads) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))  # SIGXCPU first: it says what happened
    if limits.temporary_mib:  # of each file; DuckDB limits their sum
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits.temporary_mib << 20,) * 2)
    if sys.platform == "linux":
        most = (limits.memory_mib + _BASE_MIB) << 20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    else:
        threading.Thread(target=_watch_memory, args=(limits.memory_mib << 20,), daemon=True).start()


def _watch_memory(most_bytes: int) -> None:
    """End the process when it was ever larger. macOS counts ``ru_maxrss`` in bytes."""
    while resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < most_bytes:
        time.sleep(_WATCH_SECONDS)
    os._exit(TOO_LARGE)


def _end_with_parent(wire: Connection) -> None:
    """End the process when the parent closes the socket, also in the middle of a query."""
    try:
        wire.poll(None)
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
