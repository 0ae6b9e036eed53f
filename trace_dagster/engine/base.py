"""The one interface every extraction engine keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from trace_dagster.blocks import BlockRange
from trace_dagster.rpc.pools import Endpoint

_MOST_REQUESTS_PER_BLOCK = 3
"""Two for the hungriest datasets, and room for Cryo's own retries."""


@dataclass(frozen=True, slots=True)
class ExtractRequest:
    """One call of an engine. ``schema`` names the columns and their types, in order; the table matches it exactly."""

    dataset: str
    block_range: BlockRange
    chain_id: int
    schema: pa.Schema
    endpoint: Endpoint
    timeout_seconds: float = 3600.0
    inner_request_blocks: int = 1
    requests_per_second: int | None = None
    max_concurrent_requests: int | None = None

    def patience(self, stall_seconds: float) -> float:
        """Seconds to wait for the call: ``stall_seconds``, and longer where the stream slows its requests down.

        A gateway lets no request hang, but some wait for the endpoint's budget: through it the range's time counts.
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
    """Extracts rows of one dataset; implementations are safe to call from several threads at once."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def extract(self, request: ExtractRequest) -> pa.Table:
        """All rows of a few hundred blocks from one endpoint, in the stored order, with exactly ``request.schema``.

        Raises Unavailable (ask again or elsewhere; NoAnswer when the endpoint is silent), ExtractionFailed (not
        cured by asking the same endpoint again), UnknownFormat or InvalidInput; no error text carries a URL.
        """
        ...

    def close(self) -> None:
        """End every process the engine started; idempotent."""
        ...
