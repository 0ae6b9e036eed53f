"""The interface of an extraction engine, and the request it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import Dataset
from trace_dagster.rpc.pools import Endpoint

_MOST_REQUESTS_PER_BLOCK = 3
"""Upper bound for slow streams: the most expensive datasets make two requests, the third allows for Cryo's retries."""


@dataclass(frozen=True, slots=True)
class ExtractRequest:
    """One call of an engine. ``schema`` gives the names, types and order of the columns of the returned table.

    ``inner_request_blocks`` is the number of blocks per ``eth_getLogs`` request.
    """

    dataset: Dataset
    block_range: BlockRange
    chain_id: int
    schema: pa.Schema
    endpoint: Endpoint
    timeout_seconds: float = 3600.0
    inner_request_blocks: int = 1
    requests_per_second: int | None = None
    max_concurrent_requests: int | None = None

    def wait_seconds(self, stall_seconds: float) -> float:
        """Return the seconds to wait for the call: ``stall_seconds``, plus the time a rate limit of the stream adds.

        Through a gateway the limit is ``timeout_seconds`` instead. The gateway ends requests that hang, but a request
        may wait a long time for the endpoint's rate limit.
        """
        if self.endpoint.gateway_url:
            return self.timeout_seconds
        slow = (
            _MOST_REQUESTS_PER_BLOCK * len(self.block_range) / self.requests_per_second
            if self.requests_per_second
            else 0
        )
        return min(stall_seconds + slow, self.timeout_seconds)


class Engine(Protocol):
    """Extracts the rows of one dataset. Implementations are thread-safe."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def extract(self, request: ExtractRequest) -> pa.Table:
        """Return all rows of the request's blocks from one endpoint, in the stored order, with ``request.schema``.

        Raises Unavailable if another try may succeed (NoAnswer if the endpoint does not answer at all),
        ExtractionFailed if another try at the same endpoint would fail too, UnknownFormat if the engine's columns are
        not the expected ones, or InvalidInput. No error text contains a URL.
        """
        ...

    def made_up_times(self, piece: BlockRange) -> list[int] | None:
        """Return the timestamps of the blocks in seconds if this engine makes up its chain; None if a node has them."""
        ...

    def close(self) -> None:
        """End every process that the engine started. May be called more than once."""
        ...
