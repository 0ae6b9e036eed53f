"""The corpora of SQL statements in ``tests/sql``, and a small lake of devchain blocks to run them over."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.cryo_tables import cryo_table
from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.devchain.chain import DevChain
from trace_dagster.devchain.encode import block_json, receipts_json, traces_json
from trace_dagster.extraction.lake_rows import lake_rows
from trace_dagster.query.protocol import Relation
from trace_dagster.query.relations import duckdb_type
from trace_dagster.store.objects import ObjectStore

FOLDER = Path(__file__).parents[1] / "sql"
DATASETS = ("blocks", "transactions", "logs", "geth_calls")
CHAIN_ID = 20143
_ASKED = {"transactions": ("value_string", "value_f64")}
"""Columns that statements of the corpora read and that are stored only if a stream names them."""
COSTLY = {"time", "string", "deep json", "deep sql", "value"}
"""Kinds of attacks on memory, time and the process. They read nothing that they may not."""
HARMLESS = """a039 a046 a090 a316 a317 a333 a346 a438 a443 a444 a446 a456 a457 a475 a476 a479 a480 a482 a484 a485 a491
a502 a510 a549 a596 a599 a600 a601 a602 a603 a647 a661 a663 a681 a682"""
"""Attacks that the gate accepts: plans, descriptions, constants, values too large for the process, unused clauses."""


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


def lake_tables(blocks: int = 120) -> dict[str, pa.Table]:
    """Return devchain blocks as tables with the lake's types, by dataset."""
    chain = DevChain(7, blocks).blocks[:blocks]
    return {name: pa.concat_tables([_rows(name, block) for block in chain]) for name in DATASETS}


def _rows(name: str, block) -> pa.Table:
    known, header = dataset(name), block_json(block, full=True)
    number, seconds = int(header["number"], 16), int(header["timestamp"], 16)
    table = cryo_table(name, header, receipts_json(block), _traces(block), CHAIN_ID)
    columns = known.stored_columns([*known.stored_columns(), *_ASKED.get(name, ())])
    times = pa.array([seconds * 1_000_000], pa.int64())
    return lake_rows(known, table, columns, BlockRange(number, number + 1), None, times)


def put_lake(store: ObjectStore, blocks: int = 120, parts: int = 3) -> list[Relation]:
    """Write devchain blocks as Parquet, except for the last part, which is hot; return the relations, each by its short
    name and by its chain's. Call traces are never hot.
    """
    found = []
    for name, table in lake_tables(blocks).items():
        files = parts if name == "geth_calls" else parts - 1
        uris = tuple(_put(store, name, part, table, parts) for part in range(files))
        hot = None if files == parts else table.slice(files * -(-len(table) // parts))
        shape = shape_of(table)
        found += [Relation(each, shape, uris, hot=hot) for each in (name, f"chain_{CHAIN_ID}.{name}")]
    return found


def shape_of(table: pa.Table) -> list[tuple[str, str]]:
    """Return the columns of a relation over files with such rows."""
    return [(field.name, duckdb_type(str(field.type))) for field in table.schema]


def _traces(block):
    return [each["result"] for each in traces_json(block)]


def _put(store: ObjectStore, name: str, part: int, table: pa.Table, parts: int) -> str:
    rows = -(-len(table) // parts)
    sink = io.BytesIO()
    pq.write_table(table.slice(part * rows, rows), sink)
    key = f"cryo/{CHAIN_ID}/{name}/part-{part}.parquet"
    store.put_if_absent(key, sink.getvalue())
    return store.access.uri(key)
