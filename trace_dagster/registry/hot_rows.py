"""Reads hot rows as Arrow tables with the lake's types, in the snapshot of the caller.

Rows of a block never change: another block at the same number has another hash. So whole blocks are kept, by their
hashes, for the next query. A query for an address, a topic or a hash reads only such rows, by Postgres's indexes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from uuid import UUID

import pyarrow as pa
from psycopg import sql
from psycopg.rows import tuple_row

from trace_dagster.datasets.catalogue import dataset
from trace_dagster.errors import InvalidInput, Unavailable
from trace_dagster.registry.conditions import (
    HASHED_COLUMNS,
    Conditions,
    Interval,
    Reads,
    block_ranges,
    time_ranges,
    united,
)
from trace_dagster.registry.connection import Row, Session
from trace_dagster.registry.queries import query

MAX_BYTES = 512 << 20
"""Most bytes of hot rows that one query reads of a dataset."""
CACHE_BYTES = 256 << 20
_BLOCKS_PER_PAGE = 100
"""Blocks that are read by one statement, and leave the cache together."""
_ROWS_PER_FETCH = 10_000
_STATEMENTS = {"blocks": "hot_blocks", "transactions": "hot_transactions", "logs": "hot_logs"}
_INDEXED = (*HASHED_COLUMNS, "address", "topic0")


Key = tuple[UUID, str, tuple[str, ...]]
"""What the rows of a block depend on beside its hash: the dataset, its configuration, and the columns that are read."""


@dataclass(frozen=True, slots=True)
class _HotScan:
    """The hot blocks of a dataset that a query needs, and the columns that it reads of them."""

    dataset_uuid: UUID
    config_hash: str
    source: str
    schema: pa.Schema
    blocks: Sequence[Interval]
    hashes: Mapping[int, bytes] | None
    """Of all these blocks, in ascending order; None if they were not asked for or one is not known."""

    @property
    def key(self) -> Key:
        return self.dataset_uuid, self.config_hash, tuple(self.schema.names)


class HotReader:
    """Reads hot rows and keeps those of recent blocks, by default 256 MiB of them. Thread-safe."""

    def __init__(self, cache_bytes: int = CACHE_BYTES, max_bytes: int = MAX_BYTES) -> None:
        self._cache = BlockCache(cache_bytes)
        self._max_bytes = max_bytes

    def read(self, session: Session, dataset_uuid: UUID, reads: Reads) -> pa.Table | None:
        """Return the hot rows that can be needed, of the columns that are read and ``block_number``.

        Rows are in the lake's order. Return None if rows of the stream's present form and columns are never hot.
        ``session`` is in a transaction that sees one state. Raises Unavailable if the
        stream lacks a column that is read, InvalidInput if the rows are larger than a query may read.
        """
        conditions = united(reads.conditions) if reads.conditions else Conditions()
        window = _window(session, dataset_uuid, conditions, reads)
        if window is None:
            return None
        if window.hashes is None or conditions.values:
            parts = _fetched(session, window, window.blocks, conditions.values)
        else:
            parts = self._whole_blocks(session, window, window.hashes)
        return self._bounded(window.schema, parts)

    def _whole_blocks(self, session: Session, window: _HotScan, hashes: Mapping[int, bytes]) -> Iterator[pa.Table]:
        """Yield the rows of these blocks in order, as few slices of pages as possible."""
        for is_kept, group in groupby(self._cache.find(window.key, hashes), key=lambda each: each[1] is not None):
            if is_kept:
                yield from _joined(place for _, place in group if place is not None)
            else:
                missing = [number for number, _ in group]
                for start in range(0, len(missing), _BLOCKS_PER_PAGE):
                    numbers = missing[start : start + _BLOCKS_PER_PAGE]
                    parts = _fetched(session, window, _intervals(numbers), {})
                    page = pa.concat_tables([window.schema.empty_table(), *parts]).combine_chunks()
                    self._cache.add(window.key, {number: hashes[number] for number in numbers}, page)
                    yield page

    def _bounded(self, schema: pa.Schema, parts: Iterable[pa.Table]) -> pa.Table:
        found, size = [schema.empty_table()], 0
        for part in parts:
            found.append(part)
            size += part.nbytes
            if size > self._max_bytes:
                raise InvalidInput(
                    f"the query reads more than {self._max_bytes >> 20} MiB of rows that are not in files yet:"
                    " name fewer columns or blocks"
                )
        return pa.concat_tables(found)


def _window(session: Session, dataset_uuid: UUID, conditions: Conditions, reads: Reads) -> _HotScan | None:
    row = session.one(
        "hot_window",
        dataset_uuid=dataset_uuid,
        blocks=block_ranges(conditions.blocks),
        times=time_ranges(conditions.times),
        with_hashes=not conditions.values or conditions.times is not None,
    )
    if row is None:
        return None
    is_known = row["known"] == row["block_count"]
    hashes = dict(zip(row["numbers"], _words(row["hashes"]), strict=True)) if is_known else None
    blocks = [(part.lower, part.upper - 1) for part in row["blocks"]] if hashes is None else _intervals(hashes)
    return _HotScan(dataset_uuid, row["config_hash"], row["source"], _schema(row, reads.columns), blocks, hashes)


def _schema(row: Row, wanted: frozenset[str] | None) -> pa.Schema:
    """Return the columns to read, in the lake's order. Raises Unavailable if one of them is not stored any more."""
    stored = row["columns"]
    if wanted is not None and not wanted.issubset(stored):
        raise Unavailable("the columns of a relation have just changed: try the query again")
    columns = [name for name in stored if wanted is None or name in wanted or name == "block_number"]
    return dataset(row["source"]).schema(columns)


def _words(joined: bytes) -> list[bytes]:
    return [joined[at : at + 32] for at in range(0, len(joined), 32)]


def _intervals(numbers: Iterable[int]) -> list[Interval]:
    """Return ascending numbers as intervals."""
    found: list[Interval] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def _fetched(
    session: Session, window: _HotScan, blocks: Sequence[Interval], values: Mapping[str, frozenset[bytes]]
) -> Iterator[pa.Table]:
    """Yield the rows of these blocks with one of the values of each column, read from Postgres."""
    if not blocks:
        return
    columns = sql.SQL(", ").join(map(sql.Identifier, window.schema.names))
    statement = sql.SQL(query(_STATEMENTS[window.source])).format(columns=columns)
    bound: dict[str, Any] = {
        "dataset_uuid": window.dataset_uuid,
        "blocks": block_ranges(tuple(blocks)),
        "first": blocks[0][0],
        "last": blocks[-1][1],
        **{name: sorted(values[name]) if name in values else None for name in _INDEXED},
    }
    with session.connection.cursor("hot_rows", row_factory=tuple_row) as cursor:
        cursor.execute(statement, bound, binary=True)
        while rows := cursor.fetchmany(_ROWS_PER_FETCH):
            arrays = [
                pa.array(found, field.type) for found, field in zip(zip(*rows, strict=True), window.schema, strict=True)
            ]
            yield pa.Table.from_arrays(arrays, schema=window.schema)


@dataclass(frozen=True, slots=True)
class _RowsInPage:
    """The rows of a block within a page."""

    page: _Page
    start: int
    end: int


@dataclass(eq=False, frozen=True, slots=True)
class _Page:
    """The rows of blocks that were read together."""

    key: Key
    rows: pa.Table
    hashes: tuple[bytes, ...]
    bytes: int


class BlockCache:
    """The rows of blocks by their hashes, in pages; pages that were not used for long are removed. Thread-safe."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._places: dict[Key, dict[bytes, _RowsInPage]] = {}
        self._pages: OrderedDict[_Page, None] = OrderedDict()
        self._bytes = 0

    def find(self, key: Key, hashes: Mapping[int, bytes]) -> list[tuple[int, _RowsInPage | None]]:
        """Return where the rows of each of these blocks are; None for a block that is not here."""
        with self._lock:
            places = self._places.get(key, {})
            found = [(number, places.get(value)) for number, value in hashes.items()]
            for page in dict.fromkeys(place.page for _, place in found if place is not None):
                self._pages.move_to_end(page)
        return found

    def add(self, key: Key, hashes: Mapping[int, bytes], rows: pa.Table) -> None:
        """Keep the rows of these blocks. ``rows`` are in block order and have no row of another block."""
        page = _Page(key, rows, tuple(hashes.values()), rows.nbytes + 500 * len(hashes))
        if page.bytes > self._max_bytes:
            return
        counts = _counts(rows)
        with self._lock:
            places = self._places.setdefault(key, {})
            start = 0
            for number, value in hashes.items():
                end = start + counts.get(number, 0)
                places[value] = _RowsInPage(page, start, end)
                start = end
            self._pages[page] = None
            self._bytes += page.bytes
            while self._bytes > self._max_bytes:
                self._remove(self._pages.popitem(last=False)[0])

    def _remove(self, page: _Page) -> None:
        places = self._places[page.key]
        for value in page.hashes:
            if value in places and places[value].page is page:
                del places[value]
        if not places:
            del self._places[page.key]
        self._bytes -= page.bytes


def _counts(rows: pa.Table) -> dict[int, int]:
    """Return the number of rows of each block."""
    counted = rows["block_number"].value_counts()
    return {each["values"].as_py(): each["counts"].as_py() for each in counted}


def _joined(places: Iterable[_RowsInPage]) -> Iterator[pa.Table]:
    """Yield the rows of these places, of neighbours in one page as one slice."""
    last: _RowsInPage | None = None
    for place in places:
        if last is not None and last.page is place.page and last.end == place.start:
            last = _RowsInPage(last.page, last.start, place.end)
            continue
        if last is not None:
            yield last.page.rows.slice(last.start, last.end - last.start)
        last = place
    if last is not None:
        yield last.page.rows.slice(last.start, last.end - last.start)
