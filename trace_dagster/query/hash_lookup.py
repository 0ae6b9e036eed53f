"""Looks up the blocks of hashes in the indexes of layouts, which ``compaction/hash_index.py`` writes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import duckdb

HASHED_COLUMNS = ("transaction_hash", "block_hash")
"""An index has the hashes of these columns, of those that the layout's rows have."""

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
    return [block for (block,) in connection.execute(_BLOCKS, values).fetchall()]
