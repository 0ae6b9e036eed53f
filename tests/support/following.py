"""Followers of test chains over a real registry, and what they stored."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from tests.support.nodes import environment
from trace_dagster.config.chain_sync import parse
from trace_dagster.config.settings import settings_from
from trace_dagster.devchain.constants import CHAIN_ID
from trace_dagster.registry.connection import Database
from trace_dagster.registry.hot import HOT_DATASETS
from trace_dagster.registry.jobs import Bounds, Jobs
from trace_dagster.registry.streams import StreamRow
from trace_dagster.runtime import Runtime
from trace_dagster.store.access import S3Access

NO_S3 = S3Access("none", "key", "secret", "http://127.0.0.1:9")
"""A follower needs no object store."""

NO_GATEWAY = {"TRACE_RPC_GATEWAY": "never"}

JOB = """
kind: chain_sync
name: {name}
chain_id: {chain_id}
mode: {{kind: follow_head, from_block: {from_block}, hot_max_blocks: {hot_max_blocks}}}
defaults: {{rpc_pool: {pool}, chunk_size: {chunk}, max_inflight: 4}}
streams:
{streams}
"""
_NUMERIC_KEYS = {"blocks": "block_number", "transactions": "transaction_index", "logs": "log_index"}


def follow_job(
    database: Database,
    *,
    datasets: tuple[str, ...] = HOT_DATASETS,
    name: str = "tip",
    chain_id: int = CHAIN_ID,
    from_block: int = 0,
    chunk: int = 1000,
    hot_max_blocks: int = 50_000,
    pool: str = "node",
    verify: str = "full",
) -> dict[str, StreamRow]:
    """Apply a job that follows the head; return its streams by dataset key."""
    streams = "\n".join(f"  {each}: {{cryo_dataset_name: {each}, verify: {verify}}}" for each in datasets)
    text = JOB.format(
        name=name,
        chain_id=chain_id,
        from_block=from_block,
        chunk=chunk,
        hot_max_blocks=hot_max_blocks,
        pool=pool,
        streams=streams,
    )
    Jobs(database).apply(parse(text), Bounds(from_block, None))
    return {each.dataset_key: each for each in Jobs(database).streams() if each.job_name == name}


@contextmanager
def follower_process(postgres_url: str, more: Mapping[str, str] | None = None, **pools: str) -> Iterator[Runtime]:
    """Yield the parts of a process that follows chains over these pools, without starting it."""
    runtime = Runtime(settings_from(environment(postgres_url, NO_S3, **pools) | dict(more or NO_GATEWAY)))
    try:
        yield runtime
    finally:
        runtime.close()


@contextmanager
def following(postgres_url: str, more: Mapping[str, str] | None = None, **pools: str) -> Iterator[Runtime]:
    """Follow every chain with the service, in a thread of this process, until the end of the block."""
    with follower_process(postgres_url, more, **pools) as runtime:
        stop = threading.Event()
        thread = threading.Thread(target=runtime.followers.run, args=(stop,), daemon=True)
        thread.start()
        try:
            yield runtime
        finally:
            stop.set()
            thread.join(15)
        assert not thread.is_alive()


def eventually(is_so: Callable[[], Any], seconds: float = 15.0) -> Any:
    """Return the first true result of a call that is repeated. Fails if there is none within the time."""
    until = time.monotonic() + seconds
    while not (found := is_so()):
        assert time.monotonic() < until, "it did not become so in time"
        time.sleep(0.02)
    return found


def stored_chain(database: Database) -> dict[int, bytes]:
    """Return the hash of each block of the stored chain."""
    with database.connection() as connection:
        rows = connection.execute("select block_number, block_hash from hot.chain order by 1").fetchall()
    return {row["block_number"]: bytes(row["block_hash"]) for row in rows}


def hot_blocks(database: Database, dataset_uuid: UUID) -> list[int]:
    """Return the blocks of a dataset whose rows are hot."""
    with database.connection() as connection:
        rows = connection.execute(
            "select generate_series(lower(r), upper(r) - 1) as block from hot.streams, unnest(blocks) r"
            " where dataset_uuid = %s order by 1",
            [dataset_uuid],
        ).fetchall()
    return [row["block"] for row in rows]


def hot_rows(database: Database, stream: StreamRow) -> list[dict[str, Any]]:
    """Return the hot rows of a stream with the columns that it stores, in the lake's order."""
    key = _NUMERIC_KEYS[stream.dataset.name]
    columns = ", ".join(f'"{each}"' for each in stream.columns)
    with database.connection() as connection:
        return connection.execute(
            f"select {columns} from hot.{stream.dataset.name} where dataset_uuid = %s order by block_number, {key}",
            [stream.dataset_uuid],
        ).fetchall()


def reason(database: Database) -> str | None:
    """Return why the follower does not go on."""
    with database.connection() as connection:
        row = connection.execute("select reason from hot.followers").fetchone()
    return row["reason"] if row else None


def reorgs(database: Database) -> list[dict[str, Any]]:
    """Return the forks that were resolved, in order."""
    with database.connection() as connection:
        return connection.execute("select * from hot.reorgs order by reorg_id").fetchall()
