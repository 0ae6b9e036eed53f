"""Reads the head of a chain from a stream's rpc pool."""

from __future__ import annotations

from collections.abc import Callable

from trace_dagster.datasets.chains import chain_of
from trace_dagster.registry.streams import StreamRow
from trace_dagster.rpc.pools import RpcPool

MADE_UP_END = 1_000_000
"""Head of the chain that the fake engine makes up, if the job has no end."""


class HeadReader:
    """Asks a stream's pool for its head; ``pool`` returns the pool of a name and chain id."""

    def __init__(self, pool: Callable[[str, int], RpcPool]) -> None:
        self._pool = pool

    def read(self, stream: StreamRow) -> tuple[int, int]:
        """Return (latest, finalized) block numbers. Raises Unavailable if the pool does not answer."""
        from trace_dagster.rpc.finality import chain_head  # planning alone asks no node

        pool = self._pool(stream.rpc_pool, stream.chain_id)
        head = chain_head(pool, chain_of(stream.chain_id), stream.job.finality_blocks)
        return head.latest, head.finalized


def made_up_head(stream: StreamRow) -> tuple[int, int]:
    """Return the head of the chain that the fake engine makes up."""
    end = stream.to_block or MADE_UP_END
    return end, end
