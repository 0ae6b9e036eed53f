"""The corpora of SQL statements in ``tests/sql``, and a small lake of devchain blocks to run them over."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.cryo_tables import cryo_table
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.devchain.chain import DevChain
from trace_dagster.devchain.encode import block_json, receipts_json, traces_json
from trace_dagster.query.protocol import Relation
from trace_dagster.query.relations import duckdb_type
from trace_dagster.store.objects import ObjectStore

FOLDER = Path(__file__).parents[1] / "sql"
DATASETS = ("blocks", "transactions", "logs", "geth_calls")
CHAIN_ID = 20143
_ASKED = {"transactions": ("value_string", "value_f64")}
"""Columns that statements of the corpora read and that are stored only if a stream names them."""


@dataclass(frozen=True)
class Sql:
    """One statement of a corpus. ``now`` is its verdict when the corpus was written."""

    id: str
    kind: str
    sql: str
    now: str


def corpus(name: str, **places: str) -> list[Sql]:
    """Return the statements of ``attacks`` or ``honest``, with the names in braces replaced."""
    found = []
    for line in (FOLDER / f"{name}.jsonl").read_text().splitlines():
        entry = json.loads(line)
        for place, text in places.items():
            entry["sql"] = entry["sql"].replace(f"{{{place}}}", text)
        found.append(Sql(**entry))
    return found


def put_lake(store: ObjectStore, blocks: int = 120, files: int = 2) -> list[Relation]:
    """Write devchain blocks as Parquet; return the relations, each by its short name and by its chain's."""
    chain = DevChain(7, blocks)
    found = []
    for name in DATASETS:
        known = dataset(name)
        columns = known.stored_columns([*known.stored_columns(), *_ASKED.get(name, ())])
        tables = [
            cryo_table(name, block_json(block, full=True), receipts_json(block), _traces(block), CHAIN_ID)
            for block in chain.blocks[:blocks]
        ]
        table = pa.concat_tables(tables).select(columns).cast(known.schema(columns))
        uris = tuple(_put(store, name, part, table, files) for part in range(files))
        shape = [(field.name, duckdb_type(str(field.type))) for field in table.schema]
        found += [Relation(name, shape, uris), Relation(f"chain_{CHAIN_ID}.{name}", shape, uris)]
    return found


def _traces(block):
    return [each["result"] for each in traces_json(block)]


def _put(store: ObjectStore, name: str, part: int, table: pa.Table, parts: int) -> str:
    rows = -(-len(table) // parts)
    sink = io.BytesIO()
    pq.write_table(table.slice(part * rows, rows), sink)
    key = f"cryo/{CHAIN_ID}/{name}/part-{part}.parquet"
    store.put_if_absent(key, sink.getvalue())
    return store.access.uri(key)
