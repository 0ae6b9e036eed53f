"""The follower of a devchain, running in a thread over a real registry, and what is hot at one moment.

with following(postgres_url, ["blocks", "logs"], node_url) as tip:
    view = tip.view()
    assert not incomplete(view, blocks_by_hash)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations

from tests.support.nodes import running
from tests.support.registry import apply
from trace_dagster.devchain.blocks import DevBlock
from trace_dagster.devchain.chain import DevChain
from trace_dagster.devchain.constants import CHAIN_ID
from trace_dagster.registry.connection import Database
from trace_dagster.registry.hot import HOT_DATASETS
from trace_dagster.runtime import Runtime
from trace_dagster.store.access import S3Access

COMBINATIONS = tuple(each for size in (1, 2, 3) for each in combinations(HOT_DATASETS, size))
"""Every choice of streams that have hot rows."""

NO_STORE = S3Access("none", "none", "none-secret", "http://127.0.0.1:1")
"""The follower uses no object store."""

_JOB = """
kind: chain_sync
name: tip
chain_id: {chain_id}
mode: {{kind: follow_head, from_block: {from_block}, hot_max_blocks: {hot_max_blocks}}}
defaults: {{rpc_pool: tip, chunk_size: {chunk_size}}}
streams: {{{streams}}}
"""

_CHAIN = "select block_number, block_hash from hot.chain"
_COVERED = (
    "select d.dataset_key, lower(r) as first, upper(r) as ends from hot.streams h"
    " join trace.datasets d using (dataset_uuid), unnest(h.blocks) r"
)
_ROWS = " union all ".join(
    f"select '{name}' as dataset_key, block_number, block_hash, count(*) as n from hot.{name} group by 2, 3"
    for name in HOT_DATASETS
)

EXPECTED: Mapping[str, Callable[[DevBlock], int]] = {
    "blocks": lambda block: 1,
    "transactions": lambda block: len(block.transactions),
    "logs": lambda block: block.log_count,
}
"""The number of a block's rows by dataset."""


@dataclass(frozen=True)
class HotView:
    """What is hot, as of one moment."""

    chain: Mapping[int, bytes]
    """Hash by block."""
    covered: Mapping[str, frozenset[int]]
    """Blocks with hot rows by dataset key."""
    rows: Mapping[tuple[str, int, bytes], int]
    """Number of rows by dataset, block and block hash."""
    reorgs: int

    @property
    def head(self) -> int:
        """The newest stored block; -1 if there is none."""
        return max(self.chain, default=-1)


def hot_view(database: Database) -> HotView:
    """Read what is hot."""
    with database.connection() as connection:
        connection.execute("set transaction isolation level repeatable read, read only")
        chain = {row["block_number"]: bytes(row["block_hash"]) for row in connection.execute(_CHAIN)}
        covered: dict[str, frozenset[int]] = {}
        for row in connection.execute(_COVERED):
            covered[row["dataset_key"]] = covered.get(row["dataset_key"], frozenset()) | set(
                range(row["first"], row["ends"])
            )
        rows = {
            (row["dataset_key"], row["block_number"], bytes(row["block_hash"])): row["n"]
            for row in connection.execute(_ROWS)
        }
        reorgs = connection.execute("select count(*) as n from hot.reorgs").fetchone()
    return HotView(chain, covered, rows, reorgs["n"] if reorgs else 0)


def incomplete(view: HotView, blocks: Mapping[bytes, DevBlock]) -> list[str]:
    """Return what is wrong: rows that a hot block lacks or has too many of, rows of another block, broken links.

    ``blocks`` has every block that any of the chain's nodes ever had, by hash.
    """
    wrong = [f"block {number} is no block of the chain" for number, found in view.chain.items() if found not in blocks]
    if wrong:
        return wrong
    for number, found in view.chain.items():
        if number - 1 in view.chain and blocks[found].parent_hash != view.chain[number - 1]:
            wrong.append(f"block {number} is not the child of block {number - 1}")
    expected = {
        (key, number, view.chain[number]): EXPECTED[key](blocks[view.chain[number]])
        for key, numbers in view.covered.items()
        for number in numbers
    }
    for place in expected.keys() | view.rows.keys():
        if view.rows.get(place, 0) != expected.get(place, 0):
            wrong.append(f"{place[0]} of block {place[1]}: {view.rows.get(place, 0)} of {expected.get(place, 0)} rows")
    return wrong


def every_block(chain: DevChain) -> dict[bytes, DevBlock]:
    """Return the chain's blocks by hash, including all that it mines from now on; orphans stay."""
    found = {block.hash: block for block in chain.blocks}
    chain.listeners.append(lambda block: found.setdefault(block.hash, block))
    return found


@dataclass
class Tip:
    """A running follower."""

    runtime: Runtime
    keys: Sequence[str]

    @property
    def database(self) -> Database:
        return self.runtime.database

    def view(self) -> HotView:
        """Read what is hot."""
        return hot_view(self.database)

    def wait_for(self, block_hash: bytes, seconds: float = 10.0) -> HotView:
        """Wait until a block and all rows below it are hot."""
        deadline = time.monotonic() + seconds
        while True:
            view = self.view()
            number = next((number for number, found in view.chain.items() if found == block_hash), None)
            if number is not None and all(number in view.covered.get(key, ()) for key in self.keys):
                return view
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.keys}: 0x{block_hash.hex()} is not hot, the head is {view.head}")
            time.sleep(0.02)


def tip_job(
    keys: Sequence[str],
    *,
    chain_id: int = CHAIN_ID,
    from_block: int = 0,
    chunk_size: int = 1000,
    hot_max_blocks: int = 50_000,
    columns: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """Return the YAML of a job that follows these datasets of the pool ``tip``; cold ranges need no Cryo.

    ``columns`` are those that a dataset stores, if they are not the usual ones.
    """
    streams = {key: f"cryo_dataset_name: {key}, engine: native" for key in keys}
    for key in set(columns or {}) & set(keys):
        streams[key] += f", columns: [{', '.join((columns or {})[key])}]"
    return _JOB.format(
        chain_id=chain_id,
        from_block=from_block,
        chunk_size=chunk_size,
        hot_max_blocks=hot_max_blocks,
        streams=", ".join(f"{key}: {{{stream}}}" for key, stream in streams.items()),
    )


@contextmanager
def following(
    postgres_url: str,
    keys: Sequence[str],
    url: str,
    *,
    gateway_url: str | None = None,
    s3: S3Access = NO_STORE,
    job: str | None = None,
    stop: threading.Event | None = None,
) -> Iterator[Tip]:
    """Apply a job and follow it until the end of the block, or until ``stop`` is set. Without a gateway, poll heads."""
    more = {"TRACE_RPC_GATEWAY_URL": gateway_url} if gateway_url else {}
    with running(postgres_url, s3, more=more, tip=url) as runtime:
        apply(runtime.database, job or tip_job(keys))
        stop = stop or threading.Event()
        thread = threading.Thread(target=runtime.followers.run, args=(stop,), name="followers", daemon=True)
        thread.start()
        try:
            yield Tip(runtime, keys)
        finally:
            stop.set()
            thread.join(20)
