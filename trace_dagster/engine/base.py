"""The one interface every extraction engine keeps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from trace_dagster.blocks import BlockRange
from trace_dagster.rpc.pools import RpcPool


@dataclass(frozen=True, slots=True)
class ExtractRequest:
    """What to extract. ``schema`` names the columns and their types, in order; batches match it exactly."""

    dataset: str
    block_range: BlockRange
    chain_id: int
    schema: pa.Schema
    pool: RpcPool = field(repr=False)
    timeout_seconds: float = 3600.0
    subrange_blocks: int = 500
    inner_request_blocks: int = 1
    requests_per_second: int | None = None
    max_concurrent_requests: int | None = None


class Engine(Protocol):
    """Extracts rows of one dataset; implementations are safe to call from several threads at once."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def extract(self, request: ExtractRequest) -> Iterator[pa.Table]:
        """Yield one table per sub-range, in block order, with exactly ``request.schema``.

        Memory is bounded by a few sub-ranges: nothing is extracted further ahead than that.
        Raises ExtractionFailed (not cured by waiting), Unavailable (try again) or InvalidInput;
        no error text carries a URL. Closing the iterator early stops the extraction.
        """
        ...

    def close(self) -> None:
        """End every process the engine started; idempotent."""
        ...
