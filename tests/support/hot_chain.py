"""Made-up chains for tests of hot data: linked blocks with rows, and forks of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from uuid import UUID

import pyarrow as pa

from tests.support.registry import apply
from trace_dagster.blocks import BlockRange
from trace_dagster.errors import TraceError
from trace_dagster.ingest.commit import CommitTarget
from trace_dagster.manifest import Manifest, ManifestFile
from trace_dagster.registry.connection import Database
from trace_dagster.registry.hot import FollowerLease, HotBlock, HotRows, HotStore
from trace_dagster.registry.publications import Publications
from trace_dagster.registry.streams import StreamRow
from trace_dagster.registry.tasks import Lease, Tasks

CHAIN = 99
THREE = (
    "blocks: {cryo_dataset_name: blocks}\n  transactions: {cryo_dataset_name: transactions}\n"
    "  logs: {cryo_dataset_name: logs}"
)
JOB = """
kind: chain_sync
name: {name}
chain_id: 99
mode: {{kind: follow_head, from_block: 0}}
defaults: {{rpc_pool: none, chunk_size: {chunk}, max_inflight: 4}}
streams:
  {streams}
"""
_GENESIS = datetime(2026, 1, 1, tzinfo=UTC)


def apply_followed(database: Database, streams: str = THREE, *, chunk: int = 10, name: str = "tip"):
    """Apply a follow_head job; return its streams by dataset key."""
    return apply(database, JOB.format(name=name, chunk=chunk, streams=streams))


def hashes_of(streams) -> dict[UUID, str]:
    """Return the config_hash of streams by dataset."""
    return {stream.dataset_uuid: stream.config_hash for stream in streams.values()}


class MadeUpChain:
    """A chain whose blocks are named by the fork that made them: a fork shares the blocks below its first one."""

    def __init__(self, name: str = "a", parent: MadeUpChain | None = None, fork_block: int = 0) -> None:
        self.name = name
        self._parent = parent
        self.fork_block = fork_block

    def fork(self, fork_block: int, name: str) -> MadeUpChain:
        """Return a chain that has this one's blocks below ``fork_block``, and others from there on."""
        return MadeUpChain(name, self, fork_block)

    def hash(self, number: int) -> bytes:
        """Return the hash of a block."""
        if self._parent is not None and number < self.fork_block:
            return self._parent.hash(number)
        return sha256(f"{self.name}:{number}".encode()).digest()

    def block(self, number: int, streams: Sequence[StreamRow], logs: int = 2) -> HotBlock:
        """Return a block with one row of dataset blocks, ``logs`` transactions, and as many logs."""
        moment = _GENESIS + timedelta(seconds=number)
        counts = {"blocks": 1, "transactions": logs, "logs": logs}
        rows = {
            stream.dataset_uuid: _rows(stream, number, self.hash(number), moment, counts[stream.dataset.name])
            for stream in streams
        }
        return HotBlock(number, self.hash(number), self.hash(number - 1), moment, "full", rows, moment)

    def blocks(self, first: int, end: int, streams, logs: int = 2) -> list[HotBlock]:
        """Return the blocks ``[first, end)`` with rows of streams, given by dataset key."""
        return [self.block(number, [*streams.values()], logs) for number in range(first, end)]


def _rows(stream: StreamRow, number: int, block_hash: bytes, moment: datetime, count: int) -> HotRows:
    schema = stream.dataset.schema(stream.columns)
    known = {"block_number": number, "block_hash": block_hash, "block_timestamp": moment}
    rows = [
        tuple(known[field.name] if field.name in known else _value(field, number, index) for field in schema)
        for index in range(count)
    ]
    return HotRows(tuple(schema.names), rows)


def _value(field: pa.Field, number: int, index: int) -> object:
    if field.name in ("transaction_index", "log_index"):
        return index
    kind, digest = field.type, sha256(f"{field.name}:{number}:{index}".encode()).digest()
    if pa.types.is_fixed_size_binary(kind):
        return digest[: kind.byte_width]
    if pa.types.is_decimal(kind):
        return Decimal(number)
    if pa.types.is_boolean(kind):
        return True
    if pa.types.is_integer(kind):
        return number
    if pa.types.is_floating(kind):
        return float(number)
    return str(number) if pa.types.is_large_string(kind) else digest


def followed(database: Database) -> FollowerLease:
    """Return the lease of the chain for a minute."""
    lease = HotStore(database).hold(CHAIN, "test", 60)
    assert lease is not None
    return lease


def claim(database: Database, stream: StreamRow, block_range: BlockRange) -> Lease | None:
    """Plan a range and claim it, also if it is committed; None if another attempt has it."""
    tasks = Tasks(database)
    tasks.ensure(stream.task_id(block_range), stream.dataset_uuid, block_range, stream.config_hash)
    lease = tasks.claim(stream.task_id(block_range), stream.dataset_uuid, block_range, "run", refresh=True)
    return lease if isinstance(lease, Lease) else None


def commit_cold(
    database: Database, stream: StreamRow, block_range: BlockRange, chain: MadeUpChain, lease: Lease | None = None
) -> UUID:
    """Commit a range of a chain to the registry, without objects; return its version.

    If the commit raises, the range is queued again.
    """
    held = lease or claim(database, stream, block_range)
    assert held is not None
    manifest = _manifest(stream, block_range, chain, held)
    try:
        Publications(database).commit(
            held,
            manifest,
            storage_ref="s3://none/",
            manifest_key=f"{manifest.dataset_version}-{held.attempt}/_manifest.json",
            manifest_sha256=sha256(manifest.encode()).hexdigest(),
            schema=[],
            metrics={},
        )
    except TraceError:
        Tasks(database).release(held)
        raise
    return manifest.dataset_version


def _manifest(stream: StreamRow, block_range: BlockRange, chain: MadeUpChain, lease: Lease) -> Manifest:
    target = CommitTarget.of_stream(stream, block_range)
    first, last = chain.hash(block_range.start - 1), chain.hash(block_range.end - 1)
    key, digest = target.parquet_key(lease, 0), sha256(last).hexdigest()
    return Manifest(
        dataset_uuid=target.dataset_uuid,
        dataset_version=target.version(lease.generation),
        chain_id=stream.chain_id,
        dataset_key=stream.dataset_key,
        cryo_dataset_name=stream.dataset.name,
        range_start=block_range.start,
        range_end=block_range.end,
        config_hash=stream.config_hash,
        generation=lease.generation,
        attempt=lease.attempt,
        schema_fingerprint="0" * 64,
        parquet_keys=[key],
        files=[ManifestFile(key=key, bytes=1, sha256=digest, rows=1, min_block=0, max_block=0)],
        rows=1,
        content_digest=digest,
        verification={
            "level": "full",
            "boundary": {"first_parent_hash": f"0x{first.hex()}", "last_block_hash": f"0x{last.hex()}"},
        },
        engine={"name": "fake", "version": "1"},
    )
