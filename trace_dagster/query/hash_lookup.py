"""Looks up the blocks of hashes in the indexes of layouts, which ``compaction/hash_index.py`` writes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import duckdb

from trace_dagster.query.protocol import Blocks, HashLookup, MaskedFiles, Relation

_MOST_THREADS = 8
"""Each takes 40 MiB of the address space, which is limited."""

_BLOCKS = """
select distinct block_number from read_parquet($uris)
where hash_prefix in (select unnest($prefixes::bigint[])) order by block_number
"""


def hash_prefix(value: bytes) -> int:
    """Return the first 8 bytes of a hash as an index has them: as a signed little-endian number."""
    return int.from_bytes(value[:8], "little", signed=True)


def blocks_of(connection: duckdb.DuckDBPyConnection, uris: Sequence[str], hashes: Collection[bytes]) -> list[int]:
    """Return the blocks that may have rows with one of the hashes, of the layouts whose indexes are ``uris``.

    No other block of these layouts has such a row. A returned block may have none: only prefixes are compared, and an
    index keeps the hashes of blocks that are masked later. Of each index, up to 50 hashes read the footer and one row
    group per hash; more read all of it. Raises duckdb.Error.
    """
    if not uris or not hashes:
        return []
    values = {"uris": [*uris], "prefixes": [hash_prefix(value) for value in hashes]}
    with _threads(connection, len(uris)):
        return [block for (block,) in connection.execute(_BLOCKS, values).fetchall()]


@contextmanager
def _threads(connection: duckdb.DuckDBPyConnection, wanted: int) -> Iterator[None]:
    """Let DuckDB read this many files at once, up to 8. It waits for the object store: three requests per index."""
    (before,) = connection.execute("select current_setting('threads')").fetchone() or (1,)
    connection.execute(f"set threads = {max(before, min(wanted, _MOST_THREADS))}")
    try:
        yield
    finally:
        connection.execute(f"set threads = {before}")


def looked_up(relation: Relation, connection: duckdb.DuckDBPyConnection) -> Relation:
    """Return the relation without a lookup: of the indexed files only those with the blocks of the hashes, and of
    these only the blocks. Raises duckdb.Error.
    """
    if relation.lookup is None:
        return relation
    hashes = [bytes.fromhex(each) for each in relation.lookup.hashes]
    blocks = blocks_of(connection, relation.lookup.indexes, hashes)
    found = tuple(_files_with(blocks, relation.lookup))
    return replace(relation, masked=(*relation.masked, *found), lookup=None)


def _files_with(blocks: Sequence[int], lookup: HashLookup) -> Iterator[MaskedFiles]:
    """Yield the files that have visible rows of these blocks, by these blocks: files of one list are one scan."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for file in lookup.files:
        mine = [block for block in blocks if file.first <= block <= file.last and not _is_in(block, file.masked)]
        if mine:
            groups.setdefault(tuple(mine), []).append(file.uri)
    for only, uris in groups.items():
        yield MaskedFiles(tuple(uris), (), only)


def _is_in(block: int, intervals: Blocks) -> bool:
    return any(first <= block <= last for first, last in intervals)
