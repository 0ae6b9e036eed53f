"""Fetches the call traces of blocks from a node, in batches, and decodes them into rows of geth_calls."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import pyarrow as pa

from trace_dagster.datasets.catalogue import Dataset
from trace_dagster.decoder.frames import Frames
from trace_dagster.errors import EndpointLacks, NoAnswer
from trace_dagster.rpc.client import Call, call_all
from trace_dagster.rpc.pools import Endpoint
from trace_dagster.verify.model import Evidence

METHOD = "debug_traceBlockByNumber"
BATCH_BLOCKS = 25
"""Blocks per HTTP request. A node runs every transaction again, so a batch of traces takes far longer than of blocks.

An endpoint that does not answer a batch in time gets one block per request from then on.
"""
_TRACER = {"tracer": "callTracer"}


class TraceSource:
    """Fetches traces. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._slow: set[str] = set()

    def table(
        self, endpoint: Endpoint, dataset: Dataset, columns: Sequence[str], chain_id: int, evidence: Evidence
    ) -> pa.Table:
        """Return the frames of all blocks of the evidence. Blocks without transactions are not traced.

        Raises VerificationFailed, Unavailable, or EndpointLacks if the endpoint does not trace.
        """
        hashes = hashes_by_block(evidence)
        traced = [block for block, inside in hashes.items() if inside]
        found = Frames()
        for block, answer in zip(traced, self._fetch(endpoint, traced), strict=True):
            found.add_block(block, answer, hashes[block])
        return found.table(dataset, columns, chain_id)

    def _fetch(self, endpoint: Endpoint, blocks: Sequence[int]) -> Sequence[msgspec.Raw]:
        calls: list[Call] = [(METHOD, [hex(block), _TRACER]) for block in blocks]
        if not calls:
            return []
        try:
            return self._in_batches(endpoint, calls)
        except EndpointLacks as error:
            raise EndpointLacks(
                f"rpc endpoint {endpoint.name} does not support {METHOD}: use a node that does, or drop geth_calls",
                **error.facts,
            ) from None

    def _in_batches(self, endpoint: Endpoint, calls: Sequence[Call]) -> Sequence[msgspec.Raw]:
        most = 1 if endpoint.fingerprint in self._slow else BATCH_BLOCKS
        batch = min(most, endpoint.batch)
        try:
            return call_all(replace(endpoint, batch=batch), calls)
        except NoAnswer:
            if batch == 1:
                raise
        with self._lock:
            self._slow.add(endpoint.fingerprint)
        return call_all(replace(endpoint, batch=1), calls)


def hashes_by_block(evidence: Evidence) -> dict[int, list[bytes]]:
    """Return the hashes of each block's transactions, in order, by block number."""
    numbers = [header.number for header in evidence.headers]
    if evidence.rows is not None:
        hashes = evidence.rows.transactions["transaction_hash"].to_pylist()
        ends = evidence.rows.transaction_ends
        return {block: hashes[start:end] for block, start, end in zip(numbers, [0, *ends], ends, strict=False)}
    assert evidence.transactions is not None
    return {block: [each.hash for each in inside] for block, inside in zip(numbers, evidence.transactions, strict=True)}
