"""The calls for the receipts of a block: one, or one for each transaction if an endpoint lacks eth_getBlockReceipts."""

from __future__ import annotations

from collections.abc import Sequence

from trace_dagster.blocks import BlockRange
from trace_dagster.errors import TraceError
from trace_dagster.estimate.costs import places
from trace_dagster.rpc.block_receipts import receipt_calls
from trace_dagster.rpc.pools import RpcPool

PROBED_BLOCKS = 24


def calls_per_block(pool: RpcPool, todo: Sequence[BlockRange], last: int) -> float:
    """Return the calls for the receipts of one block of ``todo`` up to block ``last``, on average over some blocks.

    It is that of the endpoint that needs most; endpoints that do not answer are left out.
    """
    if not todo or todo[0].start > last:
        return 1.0
    whole = BlockRange(todo[0].start, min(todo[-1].end, last + 1))
    numbers = [number for place in places(whole, PROBED_BLOCKS) for number in range(place.start, place.end)]
    most = 1.0
    for endpoint in pool.endpoints:
        try:
            most = max(most, receipt_calls(endpoint, numbers))
        except TraceError:
            continue
    return most
