"""The relation ``heads``: the newest, safe and final block of each followed chain, of the query's snapshot."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import pyarrow as pa

from trace_dagster.query.protocol import Columns
from trace_dagster.registry.snapshot_header import LabelledHead

HEADS = "heads"
HEADS_COLUMNS: Columns = (
    ("chain_id", "BIGINT"),
    ("tag", "VARCHAR"),
    ("label", "VARCHAR"),
    ("number", "BIGINT"),
    ("hash", "BLOB"),
    ("block_timestamp", "TIMESTAMP WITH TIME ZONE"),
)
"""One row per head: the tag of JSON-RPC, the chain's own word for it, and the block. Hash and time may be null."""

_SCHEMA = pa.schema(
    {
        "chain_id": pa.int64(),
        "tag": pa.string(),
        "label": pa.string(),
        "number": pa.int64(),
        "hash": pa.binary(32),
        "block_timestamp": pa.timestamp("us", tz="UTC"),
    }
)


def heads_names(chains: Collection[int], taken: Collection[str]) -> dict[str, int]:
    """Return the names of the relation with the chain of each: ``chain_<id>.heads``, and ``heads`` if there is one
    chain. A dataset that has one of these names keeps it, and then the short name means nothing else.
    """
    names = {f"chain_{chain_id}.{HEADS}": chain_id for chain_id in chains}
    if len(chains) == 1 and not any(name.rpartition(".")[2] == HEADS for name in taken):
        names |= dict.fromkeys([HEADS], *chains)
    return {name: chain_id for name, chain_id in names.items() if name not in taken}


def heads_values(heads: Iterable[LabelledHead]) -> list[list[int | str | None]]:
    """Return the relation's rows as JSON values, with HEADS_COLUMNS: the hash in hex, the time as ISO 8601."""
    return [
        [
            head.chain_id,
            head.tag,
            head.label,
            head.number,
            None if head.hash is None else head.hash.hex(),
            None if head.block_timestamp is None else head.block_timestamp.isoformat(),
        ]
        for head in heads
    ]


def heads_rows(heads: Iterable[LabelledHead]) -> pa.Table:
    """Return the relation's rows, with HEADS_COLUMNS."""
    rows = [
        {
            "chain_id": head.chain_id,
            "tag": head.tag,
            "label": head.label,
            "number": head.number,
            "hash": head.hash,
            "block_timestamp": head.block_timestamp,
        }
        for head in heads
    ]
    return pa.Table.from_pylist(rows, schema=_SCHEMA)
