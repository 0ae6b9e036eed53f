"""A registry with hot and committed blocks of one made-up chain, and many questions to it by one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pyarrow as pa

from tests.support.committed import FULL, commit_rows
from tests.support.hot_chain import MadeUpChain, apply_followed, followed, hashes_of
from tests.support.session_process import session_process
from trace_dagster.blocks import BlockRange
from trace_dagster.query.planner import planner
from trace_dagster.query.relations import Lake
from trace_dagster.query.statement import UserStatement
from trace_dagster.registry.as_of import NO_CUT, AsOf
from trace_dagster.registry.catalog import Catalog, Opened
from trace_dagster.registry.conditions import Reads
from trace_dagster.registry.connection import Database
from trace_dagster.registry.hot import HotBlock, HotStore
from trace_dagster.registry.streams import StreamRow
from trace_dagster.store.objects import ObjectStore

CHUNK = 10
Ask = Callable[..., list[tuple]]


class HotLake:
    """Streams of a followed chain. Blocks become hot, and whole chunks of them are committed later."""

    def __init__(self, database: Database, store: ObjectStore, streams: str) -> None:
        self.database, self.store = database, store
        self.streams: dict[str, StreamRow] = apply_followed(database, streams, chunk=CHUNK)
        self.chain = MadeUpChain()
        self.catalog = Catalog(database)
        self.hot = HotStore(database)
        self.lease = followed(database)

    def blocks(self, first: int, end: int) -> list[HotBlock]:
        """Return the blocks ``[first, end)`` of the present fork."""
        return self.chain.blocks(first, end, self.streams)

    def grow(self, first: int, end: int) -> None:
        """Store blocks with their rows as hot."""
        self.hot.store(self.lease, hashes_of(self.streams), self.blocks(first, end))

    def fork(self, fork_block: int, end: int, name: str) -> None:
        """Replace the blocks from ``fork_block`` on by those of another fork."""
        self.chain = self.chain.fork(fork_block, name)
        self.hot.replace(self.lease, hashes_of(self.streams), fork_block, self.blocks(fork_block, end))

    def commit(self, key: str, number: int) -> None:
        """Commit one chunk of a stream."""
        stream, span = self.streams[key], BlockRange(number * CHUNK, (number + 1) * CHUNK)
        first, last = self.chain.hash(span.start - 1), self.chain.hash(span.end - 1)
        boundary = {"first_parent_hash": f"0x{first.hex()}", "last_block_hash": f"0x{last.hex()}"}
        rows = rows_of(stream, self.blocks(span.start, span.end))
        commit_rows(self.database, self.store, stream, span, {**FULL, "blocks": len(span), "boundary": boundary}, rows)

    def opened(self, sql: str, as_of: AsOf = NO_CUT) -> Opened:
        """Return what a query needs."""
        lake, reads = self._reads(sql)
        return self.catalog.open(lake.reads(reads), as_of)

    @contextmanager
    def asking(self) -> Iterator[Ask]:
        """Run a process that answers queries one after the other; yield a function of SQL and a cut."""
        with session_process(self.store.access) as run:

            def ask(sql: str, as_of: AsOf = NO_CUT) -> list[tuple]:
                lake, reads = self._reads(sql)
                (rows,) = run([sql], lake.relations(reads, self.catalog.open(lake.reads(reads), as_of)))
                return rows

            yield ask

    def _reads(self, sql: str) -> tuple[Lake, dict[str, Reads]]:
        lake = Lake(self.catalog.datasets(), self.store.access)
        with planner() as parsing:
            return lake, UserStatement(sql, {each.name: each.columns for each in lake.shapes()}, parsing).reads()


def rows_of(stream: StreamRow, blocks: list[HotBlock]) -> pa.Table:
    """Return the rows of a stream in these blocks as files have them."""
    schema = stream.dataset.schema(stream.columns)
    found = [row for block in blocks for row in block.rows[stream.dataset_uuid].rows]
    columns: Mapping[str, list] = {name: [row[at] for row in found] for at, name in enumerate(schema.names)}
    return pa.table(columns, schema=schema)
