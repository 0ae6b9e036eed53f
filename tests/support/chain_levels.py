"""The levels that imitated chains reach on the whole ingest path, and the table of them.

A chain has two ranges. In the first, streams commit in the order of a job, so that later ones are proven by rows that
are committed; in the second they commit in the opposite order, so that all evidence comes from the node.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.cryo_tables import cryo_table
from tests.support.imitated.chains import Imitated
from tests.support.imitated.node import ImitatedNode
from trace_dagster.blocks import BlockRange
from trace_dagster.config.chain_sync import parse
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.errors import TraceError
from trace_dagster.ingest.claim import ClaimedRange
from trace_dagster.registry.jobs import Bounds
from trace_dagster.registry.publications import Publication
from trace_dagster.runtime import Runtime

FOUR = ("blocks", "transactions", "logs", "geth_calls")
RANGES = 2
_OPEN_COLUMNS = {"n_rlp_bytes"}
_JOB = """
kind: chain_sync
name: {name}
chain_id: {chain_id}
mode: {{kind: fixed_target, from_block: {start}, to_block: {end}}}
defaults: {{rpc_pool: {pool}, chunk_size: {chunk}, verify: {verify}}}
streams:
{streams}
"""


@dataclass
class Reached:
    """What became of one dataset of a chain."""

    levels: list[str] = field(default_factory=list)
    """The level of each committed range."""
    lowered: list[dict[str, Any]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Columns that differ from what the node shows."""

    @property
    def shown(self) -> str:
        """The level in the table, or that ranges failed."""
        levels = " and ".join(dict.fromkeys(self.levels))
        return f"{levels}, {len(self.errors)} failed" if self.errors and levels else levels or "refused"


def reached(
    runtime: Runtime, key: str, imitated: Imitated, node: ImitatedNode, verify: str = "full"
) -> dict[str, Reached]:
    """Sync a chain from the pool ``key`` and return what became of its four datasets."""
    recipe = imitated.recipe
    chunk = recipe.count // RANGES
    text = _JOB.format(
        name=key,
        chain_id=recipe.chain_id,
        start=recipe.first,
        end=recipe.end,
        pool=key,
        chunk=chunk,
        verify=verify,
        streams="\n".join(f"  {name}_{key}: {{cryo_dataset_name: {name}}}" for name in FOUR),
    )
    runtime.jobs.apply(parse(text), Bounds(recipe.first, recipe.end))
    streams = {stream.dataset.name: stream for stream in runtime.jobs.streams() if stream.job_name == key}
    found = {name: Reached() for name in FOUR}
    for name, block_range in _turns(recipe.first, recipe.end, chunk):
        _commit(runtime, streams[name], block_range, found[name], node)
    return found


def _turns(start: int, end: int, chunk: int) -> Iterator[tuple[str, BlockRange]]:
    for index, first in enumerate(range(start, end, chunk)):
        for name in FOUR if index % 2 == 0 else reversed(FOUR):
            yield name, BlockRange(first, min(first + chunk, end))


def _commit(runtime: Runtime, stream: Any, block_range: BlockRange, into: Reached, node: ImitatedNode) -> None:
    try:
        work = runtime.ingester.claim(stream, block_range, "run", wait_seconds=0)
        if not isinstance(work, ClaimedRange):
            raise AssertionError(work)
        published = runtime.ingester.commit(runtime.ingester.start(work))
    except TraceError as error:
        into.errors.append(f"{type(error).__name__}: {error}")
        return
    into.levels.append(published.verification["level"])
    into.lowered += published.verification.get("lowered", [])
    into.wrong += wrong_columns(rows_of(runtime, published), truth(stream.dataset.name, node, block_range))


def rows_of(runtime: Runtime, published: Publication) -> pa.Table:
    """Return the rows of a committed range."""
    data, _ = runtime.store.get(published.manifest_key)
    import json

    tables = [pq.read_table(BytesIO(runtime.store.get(key)[0])) for key in json.loads(data)["parquet_keys"]]
    return pa.concat_tables(tables)


def truth(name: str, node: ImitatedNode, block_range: BlockRange) -> pa.Table:
    """Return the rows that an imitated node's own data gives."""
    tables = []
    for number in range(block_range.start, block_range.end):
        held = node.blocks[number]
        traced = [pair for pair in zip(held.receipts, held.frames, strict=True) if pair[1] is not None]
        receipts = [receipt for receipt, _ in traced] if name == "geth_calls" else held.receipts
        frames = [frame for _, frame in traced]
        tables.append(cryo_table(name, held.block, receipts, frames, node.recipe.chain_id))
    return pa.concat_tables(tables).select([*dataset(name).stored_columns()])


def wrong_columns(rows: pa.Table, true: pa.Table) -> list[str]:
    """Return the columns of committed rows that differ from the true ones."""
    if rows.num_rows != true.num_rows:
        return [f"{rows.num_rows} rows of {true.num_rows}"]
    kept = [column for column in rows.column_names if column in true.column_names and column not in _OPEN_COLUMNS]
    return [column for column in kept if not rows[column].combine_chunks().equals(true[column].combine_chunks())]


def markdown(table: Mapping[str, Mapping[str, Reached]], names: Mapping[str, str]) -> str:
    """Return the table chain x dataset x level."""
    lines = [f"| chain | {' | '.join(f'`{name}`' for name in FOUR)} |", f"|---|{'---|' * len(FOUR)}"]
    for key, found in table.items():
        lines.append(f"| {names[key]} | {' | '.join(_cells(found.values()))} |")
    return "\n".join(lines)


def _cells(found: Sequence[Reached] | Any) -> list[str]:
    return [each.shown for each in found]
