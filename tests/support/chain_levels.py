"""The levels that imitated chains reach on the whole ingest path, and the table of them.

A chain has two ranges. In the first, streams commit in the order of a job, so that later ones are proven by rows that
are committed; in the second they commit in the opposite order, so that all evidence comes from the node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.cryo_tables import cryo_table
from tests.support.imitated.chains import IMITATED
from tests.support.imitated.node import ImitatedNode
from trace_dagster.blocks import BlockRange
from trace_dagster.config.chain_sync import parse
from trace_dagster.errors import TraceError
from trace_dagster.ingest.claim import ClaimedRange
from trace_dagster.manifest import decode
from trace_dagster.registry.jobs import Bounds
from trace_dagster.registry.publications import Publication
from trace_dagster.runtime import Runtime

FOUR = ("blocks", "transactions", "logs", "geth_calls")
RANGES = 2
_OPEN_COLUMNS = {"n_rlp_bytes"}
FULL = ("full", "full", "full", "crosschecked")
ANVIL = "anvil"
EXPECTED = {
    **dict.fromkeys((*IMITATED, ANVIL), FULL),
    "polygon_without_raw": (
        "full",
        "full, 1 of 24 blocks structural",
        "full",
        "crosschecked, 1 of 24 blocks structural",
    ),
    "ethereum_made_up": ("full", "crosschecked", "crosschecked", "structural"),
    "unlisted_type": (
        "full",
        "full, 6 of 24 blocks structural",
        "full",
        "crosschecked, 6 of 24 blocks structural",
    ),
    "unlisted_header": ("structural", "crosschecked", "crosschecked", "structural"),
    "zksync": ("structural", "structural", "structural", "structural"),
}
"""Levels of blocks, transactions, logs and geth_calls."""
NAMES = {key: imitated.name for key, imitated in IMITATED.items()} | {ANVIL: "`anvil --network optimism`"}
_JOB = """
kind: chain_sync
name: {name}
chain_id: {chain_id}
mode: {{kind: fixed_target, from_block: {start}, to_block: {end}}}
defaults: {{rpc_pool: {pool}, chunk_size: {chunk}, verify: {verify}, engine: {engine}}}
streams:
{streams}
"""


@dataclass
class Reached:
    """What became of one dataset of a chain."""

    levels: Counter[str] = field(default_factory=Counter)
    """Number of committed blocks by level."""
    lowered: list[dict[str, Any]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Columns that differ from what the node shows."""

    @property
    def shown(self) -> str:
        """The level as the table has it: of most blocks, and of the others; or that ranges failed."""
        (most, _), *others = self.levels.most_common() or [("refused", 0)]
        lower = [f"{blocks} of {self.levels.total()} blocks {level}" for level, blocks in others]
        return ", ".join([most, *lower, *([f"{len(self.errors)} failed"] if self.errors else [])])


@dataclass(frozen=True)
class Subject:
    """A chain that is synced from the pool ``key``."""

    key: str
    chain_id: int
    start: int
    end: int
    chunk: int
    truth: Callable[[str, BlockRange], pa.Table]
    """Returns the rows of a dataset that the node itself shows."""


def imitated_chain(key: str, node: ImitatedNode) -> Subject:
    """Return an imitated chain, in two ranges."""
    recipe = node.recipe
    chunk = recipe.count // RANGES
    return Subject(key, recipe.chain_id, recipe.first, recipe.end, chunk, lambda name, span: truth(name, node, span))


def served_chain(key: str, chain_id: int, end: int, rpc: Callable[..., Any]) -> Subject:
    """Return a chain from block 0 that a node shows, in two ranges. ``rpc(method, *params)`` asks the node."""
    chunk = end // RANGES

    def shown(name: str, span: BlockRange) -> pa.Table:
        tables = []
        for number in map(hex, range(span.start, span.end)):
            block, receipts = rpc("eth_getBlockByNumber", number, True), rpc("eth_getBlockReceipts", number)
            traces = rpc("debug_traceBlockByNumber", number, {"tracer": "callTracer"})
            frames = [trace["result"] for trace in traces]
            tables.append(_timed(cryo_table(name, block, receipts, frames, chain_id), block))
        return pa.concat_tables(tables)

    return Subject(key, chain_id, 0, chunk * RANGES, chunk, shown)


def reached(runtime: Runtime, subject: Subject, verify: str = "full", engine: str = "cryo") -> dict[str, Reached]:
    """Sync a chain and return what became of its four datasets."""
    streams = "\n".join(f"  {name}_{subject.key}: {{cryo_dataset_name: {name}}}" for name in FOUR)
    text = _JOB.format(
        **vars(subject), name=subject.key, pool=subject.key, verify=verify, engine=engine, streams=streams
    )
    runtime.jobs.apply(parse(text), Bounds(subject.start, subject.end))
    rows = {stream.dataset.name: stream for stream in runtime.jobs.streams() if stream.job_name == subject.key}
    found = {name: Reached() for name in FOUR}
    for name, block_range in _turns(subject):
        _commit(runtime, rows[name], block_range, found[name], subject)
    return found


def _turns(subject: Subject) -> Iterator[tuple[str, BlockRange]]:
    for index, first in enumerate(range(subject.start, subject.end, subject.chunk)):
        for name in FOUR if index % 2 == 0 else reversed(FOUR):
            yield name, BlockRange(first, first + subject.chunk)


def _commit(runtime: Runtime, stream: Any, block_range: BlockRange, into: Reached, subject: Subject) -> None:
    try:
        work = runtime.ingester.claim(stream, block_range, "run", wait_seconds=0)
        if not isinstance(work, ClaimedRange):
            raise AssertionError(work)
        published = runtime.ingester.commit(runtime.ingester.start(work))
    except TraceError as error:
        into.errors.append(f"{type(error).__name__}: {error}")
        return
    into.levels.update(published.verification["levels"])
    into.lowered += published.verification.get("lowered", [])
    into.wrong += wrong_columns(rows_of(runtime, published), subject.truth(stream.dataset.name, block_range))


def rows_of(runtime: Runtime, published: Publication) -> pa.Table:
    """Return the rows of a committed range."""
    data, _ = runtime.store.get(published.manifest_key)
    tables = [pq.read_table(BytesIO(runtime.store.get(key)[0])) for key in decode(data).parquet_keys]
    return pa.concat_tables(tables)


def truth(name: str, node: ImitatedNode, block_range: BlockRange) -> pa.Table:
    """Return the rows that an imitated node's own data gives."""
    tables = []
    for number in range(block_range.start, block_range.end):
        held = node.blocks[number]
        traced = [pair for pair in zip(held.receipts, held.frames, strict=True) if pair[1] is not None]
        receipts = [receipt for receipt, _ in traced] if name == "geth_calls" else held.receipts
        frames = [frame for _, frame in traced]
        block = node.call("eth_getBlockByNumber", [hex(number), True])
        tables.append(_timed(cryo_table(name, block, receipts, frames, node.recipe.chain_id), block))
    return pa.concat_tables(tables)


def _timed(table: pa.Table, block: dict[str, Any]) -> pa.Table:
    """Return the rows of a block with its time."""
    times = [int(block["timestamp"], 16) * 1_000_000] * table.num_rows
    return table.append_column("block_timestamp", pa.array(times, pa.timestamp("us", "UTC")))


def wrong_columns(rows: pa.Table, true: pa.Table) -> list[str]:
    """Return the columns of committed rows that differ from the true ones."""
    if rows.num_rows != true.num_rows:
        return [f"{rows.num_rows} rows of {true.num_rows}"]
    kept = [column for column in rows.column_names if column in true.column_names and column not in _OPEN_COLUMNS]
    stored = {column: true[column].cast(rows[column].type).combine_chunks() for column in kept}
    return [column for column in kept if not rows[column].combine_chunks().equals(stored[column])]


def markdown(levels: Mapping[str, Sequence[str]]) -> str:
    """Return the table chain x dataset x level."""
    lines = [f"| chain | {' | '.join(f'`{name}`' for name in FOUR)} |", f"|---|{'---|' * len(FOUR)}"]
    lines += [f"| {NAMES[key]} | {' | '.join(shown)} |" for key, shown in levels.items()]
    return "\n".join(lines)


def levels_of(found: Mapping[str, Reached]) -> tuple[str, ...]:
    """Return the levels of a chain's datasets, as in EXPECTED."""
    return tuple(found[name].shown for name in FOUR)
