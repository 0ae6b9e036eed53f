"""The timestamps that a node claims of blocks, for rows that are not compared with its headers.

They are fetched in one batch of headers per group of blocks, and kept for the other streams of the chain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.chain import Chain
from trace_dagster.errors import NoAnswer, VerificationFailed
from trace_dagster.evidence.cache import WAIT_SECONDS, EvidenceBatch, batches_of
from trace_dagster.evidence.needs import ONLY_HEADERS
from trace_dagster.evidence.node_source import NULL, lacks, require_chain
from trace_dagster.evidence.single_flight import SingleFlight
from trace_dagster.rpc.client import Call, call_all
from trace_dagster.rpc.pools import Endpoint
from trace_dagster.verify.commitments.hex import number
from trace_dagster.verify.commitments.rpc_json import Json, Member
from trace_dagster.verify.mismatch import mismatch
from trace_dagster.verify.rows.block_times import claimed_microseconds

CACHE_BYTES = 8 * 1024 * 1024
_BLOCK_BYTES = 40
"""Memory for one time."""

CountCalls = Callable[[int], None]


class _Times(msgspec.Struct, gc=False):
    number: Member = None
    timestamp: Member = None


_TIMES = msgspec.json.Decoder(_Times)


class ClaimedTimes:
    """Fetches block times from nodes, once per process and endpoint. Thread-safe."""

    def __init__(self, most_bytes: int = CACHE_BYTES) -> None:
        self._kept: SingleFlight[EvidenceBatch, list[int]] = SingleFlight(most_bytes)

    def of(self, endpoint: Endpoint, chain: Chain, piece: BlockRange, count: CountCalls) -> list[int]:
        """Return the time of each block of ``piece`` in microseconds since 1970; ``count`` gets the number of calls.

        No block beyond the piece is fetched, so that one wrong header fails no other piece. Raises Unavailable if the
        endpoint lacks a block, NoAnswer, WrongChain, or VerificationFailed if an answer is for another block or has no
        valid timestamp.
        """

        def fetch(missing: list[EvidenceBatch]) -> Iterator[tuple[list[int], int]]:
            spans = [BlockRange(each.start, each.end) for each in missing]
            for times in _fetched(endpoint, chain, spans, count):
                yield times, _BLOCK_BYTES * len(times)

        try:
            found = self._kept.get(_batches(endpoint, chain, piece), fetch, WAIT_SECONDS)
        except TimeoutError:
            raise NoAnswer(f"rpc endpoint {endpoint.name} timed out while fetching headers", range=piece) from None
        return [time for each in found for time in each]

    def forget(self, endpoint: Endpoint, chain: Chain, piece: BlockRange) -> None:
        """Fetch the times of a piece again for the next caller."""
        self._kept.forget(_batches(endpoint, chain, piece))


def _batches(endpoint: Endpoint, chain: Chain, piece: BlockRange) -> list[EvidenceBatch]:
    return batches_of(piece, piece, endpoint.fingerprint, chain.chain_id, ONLY_HEADERS)


def _fetched(endpoint: Endpoint, chain: Chain, spans: Sequence[BlockRange], count: CountCalls) -> Iterator[list[int]]:
    """Yield the times of each span's blocks."""
    numbers = [block for span in spans for block in range(span.start, span.end)]
    calls: list[Call] = [("eth_chainId", []), *(("eth_getBlockByNumber", [hex(block), False]) for block in numbers)]
    count(len(calls))
    chain_id, *answers = call_all(endpoint, calls)
    require_chain(endpoint, chain, chain_id)
    claimed = iter([_claimed(endpoint, answer, block) for answer, block in zip(answers, numbers, strict=True)])
    for span in spans:
        yield claimed_microseconds([next(claimed) for _ in range(len(span))], span.start, chain)


def _claimed(endpoint: Endpoint, answer: Json, block: int) -> int:
    if memoryview(answer) == NULL:
        raise lacks(endpoint, BlockRange(block, block + 1))
    try:
        found = _TIMES.decode(answer)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise VerificationFailed("the node's answer is not a block", block=block) from None
    if (shown := number(found.number, block)) != block:
        raise mismatch("the node answered with another block", block, block, shown)
    return number(found.timestamp, block)
