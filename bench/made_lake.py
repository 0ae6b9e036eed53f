"""A lake of made-up logs and transactions of a real shape, committed range by range through the real commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tests.support.committed import commit_rows
from tests.support.registry import apply
from trace_dagster.blocks import BlockRange
from trace_dagster.registry.connection import Database
from trace_dagster.registry.jobs import Jobs
from trace_dagster.registry.streams import StreamRow
from trace_dagster.store.objects import ObjectStore

RARE = bytes.fromhex("5a" * 20)
"""An address that a single log has, in the range of this block."""
RARE_BLOCK = 777

OFF = {"asked": "off", "level": "off", "checks": [], "unproven": ["everything"]}
_ADDRESSES, _EVENTS, _PARTIES = 20_000, 300, 200_000
_LOGS_OF_A_TRANSACTION = 3
_GENESIS_MICROSECONDS = 1_700_000_000_000_000
_JOB = """
kind: chain_sync
name: {name}
chain_id: {chain_id}
mode: {{kind: fixed_target, from_block: 0, to_block: {blocks}}}
defaults: {{rpc_pool: none, chunk_size: {chunk}, verify: "off"}}
streams:
  {dataset}: {{cryo_dataset_name: {dataset}}}
"""


def made(database: Database, store: ObjectStore, dataset: str, ranges: int, chunk: int, rows: int) -> StreamRow:
    """Apply a job with one stream and commit ``ranges`` ranges of ``rows`` rows each; return the stream."""
    jobs = Jobs(database)
    name = f"lake_{dataset}_{len(jobs.streams())}"
    chain_id = 20_000 + len(jobs.streams())
    apply(database, _JOB.format(name=name, chain_id=chain_id, blocks=ranges * chunk, chunk=chunk, dataset=dataset))
    (stream,) = (each for each in jobs.streams() if each.job_name == name)
    commit = partial(_commit, database, store, stream, rows)
    with ThreadPoolExecutor(4) as threads:
        for _ in threads.map(commit, BlockRange(0, ranges * chunk).split(chunk)):
            pass
    return stream


def _commit(database: Database, store: ObjectStore, stream: StreamRow, rows: int, block_range: BlockRange) -> None:
    commit_rows(database, store, stream, block_range, OFF, rows_of(stream, block_range, rows))


def rows_of(stream: StreamRow, block_range: BlockRange, rows: int) -> pa.Table:
    """Return made-up rows of a range: the same ones each time."""
    schema = stream.dataset.schema(stream.columns)
    random = np.random.default_rng([stream.chain_id, block_range.start])
    blocks = np.sort(random.integers(block_range.start, block_range.end, rows))
    columns = [_column(field, blocks, stream, random) for field in schema]
    table = pa.table(columns, schema=schema)
    if "address" in schema.names and RARE_BLOCK in block_range:
        rare = pa.array([RARE] + [None] * (rows - 1), pa.binary(20))
        at = schema.get_field_index("address")
        table = table.set_column(at, schema.field(at), pc.coalesce(rare, table["address"]))
    return table


def transaction_hash(block: int, index: int) -> bytes:
    """Return the hash of the transaction ``index`` of a block."""
    return bytes(_hashes(np.array([block]), np.array([index]))[0].tobytes())


def _column(field: pa.Field, blocks: np.ndarray, stream: StreamRow, random: np.random.Generator) -> pa.Array:
    make = _COLUMNS.get(field.name)
    if field.name == "transaction_hash" and stream.dataset.name == "logs":
        make = _hash_of_logs
    if make is not None:
        return make(blocks, random).cast(field.type)
    if field.name == "chain_id":
        return pa.array(np.full(len(blocks), stream.chain_id), field.type)
    if pa.types.is_fixed_size_binary(field.type):
        return _fixed(random.integers(0, 256, (len(blocks), field.type.byte_width), np.uint8))
    if pa.types.is_boolean(field.type):
        return pa.array(random.random(len(blocks)) < 0.95)
    if pa.types.is_large_binary(field.type):
        return _words(random, len(blocks)).cast(pa.large_binary())
    if pa.types.is_large_string(field.type):
        return pa.array(["CALL"] * len(blocks), field.type)
    return pa.array(random.integers(0, 1_000_000, len(blocks))).cast(field.type)


def _index(blocks: np.ndarray, random: np.random.Generator) -> pa.Array:
    """Return 0, 1, 2, ... in each block."""
    firsts = np.searchsorted(blocks, blocks)
    return pa.array(np.arange(len(blocks)) - firsts)


def _hashes(blocks: np.ndarray, indexes: np.ndarray) -> np.ndarray:
    """Return 32 bytes that look random, from block and index alone (splitmix64)."""
    words = []
    for word in range(4):
        mixed = (blocks.astype(np.uint64) << np.uint64(20)) + indexes.astype(np.uint64) * np.uint64(4) + np.uint64(word)
        mixed = (mixed + np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        words.append(mixed ^ (mixed >> np.uint64(31)))
    return np.stack(words, axis=1).view(np.uint8)


def _own_hash(blocks: np.ndarray, random: np.random.Generator) -> pa.Array:
    return _fixed(_hashes(blocks, np.arange(len(blocks)) - np.searchsorted(blocks, blocks)))


def _block_hash(blocks: np.ndarray, random: np.random.Generator) -> pa.Array:
    return _fixed(_hashes(blocks, np.full(len(blocks), 999_999)))


def _from_pool(width: int, size: int, blocks: np.ndarray, random: np.random.Generator) -> pa.Array:
    """Return values of a pool, few of them in most rows, as contracts and events are."""
    chosen = np.minimum(random.zipf(1.3, len(blocks)) - 1, size - 1)
    return _fixed(_pool(width, size)[chosen])


@cache
def _pool(width: int, size: int) -> np.ndarray:
    return np.random.default_rng([width, size]).integers(0, 256, (size, width), np.uint8)


def _padded_address(blocks: np.ndarray, random: np.random.Generator) -> pa.Array:
    """Return parties of transfers as topics: some are in many logs, half of them are in this one only."""
    values = np.zeros((len(blocks), 32), np.uint8)
    values[:, 12:] = random.integers(0, 256, (len(blocks), 20), np.uint8)
    known = random.random(len(blocks)) < 0.5
    chosen = np.minimum(random.zipf(1.2, len(blocks)) - 1, _PARTIES - 1)
    values[known, 12:] = _pool(20, _PARTIES)[chosen[known]]
    return _fixed(values)


def _hash_of_logs(blocks: np.ndarray, random: np.random.Generator) -> pa.Array:
    indexes = np.arange(len(blocks)) - np.searchsorted(blocks, blocks)
    return _fixed(_hashes(blocks, indexes // _LOGS_OF_A_TRANSACTION))


def _words(random: np.random.Generator, rows: int) -> pa.Array:
    """Return amounts as 32 bytes: the last 9 are random."""
    values = np.zeros((rows, 32), np.uint8)
    values[:, 23:] = random.integers(0, 256, (rows, 9), np.uint8)
    return _fixed(values)


def _fixed(values: np.ndarray) -> pa.Array:
    width = values.shape[1]
    buffer = pa.py_buffer(np.ascontiguousarray(values).tobytes())
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(values), [None, buffer])


def _times(blocks: np.ndarray, random: np.random.Generator) -> pa.Array:
    return pa.array(_GENESIS_MICROSECONDS + blocks * 400_000, pa.timestamp("us", "UTC"))


_COLUMNS: dict[str, Callable[[np.ndarray, np.random.Generator], pa.Array]] = {
    "block_number": lambda blocks, random: pa.array(blocks),
    "block_timestamp": _times,
    "timestamp": lambda blocks, random: pa.array(_GENESIS_MICROSECONDS // 1_000_000 + blocks * 2 // 5),
    "log_index": _index,
    "transaction_index": _index,
    "transaction_hash": _own_hash,
    "block_hash": _block_hash,
    "address": partial(_from_pool, 20, _ADDRESSES),
    "topic0": partial(_from_pool, 32, _EVENTS),
    "topic1": _padded_address,
    "topic2": _padded_address,
    "topic3": lambda blocks, random: pa.nulls(len(blocks), pa.binary(32)),
    "value_binary": lambda blocks, random: _words(random, len(blocks)),
}


def spread(count: int, of: int) -> Iterator[int]:
    """Yield ``count`` numbers below ``of``, evenly spread."""
    return (number * of // count for number in range(count))
