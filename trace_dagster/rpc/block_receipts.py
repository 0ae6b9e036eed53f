"""The receipts of whole blocks: with eth_getBlockReceipts, or a receipt at a time where an endpoint does not offer that
or a block's receipts are too large for one answer. The receipts root proves both alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from trace_dagster.errors import EndpointLacks, TraceError, Unavailable, VerificationFailed
from trace_dagster.rpc.client import Call, CallOutcome, call_all, call_each
from trace_dagster.rpc.endpoint_memory import memory
from trace_dagster.rpc.pools import Endpoint
from trace_dagster.rpc.provider_errors import AnswerTooLarge, MethodLacked
from trace_dagster.rpc.transaction_hashes import transaction_hashes

BLOCK = "eth_getBlockByNumber"
RECEIPTS = "eth_getBlockReceipts"
RECEIPT = "eth_getTransactionReceipt"

_AT_ONCE = 5000
"""Receipts that are fetched by transaction before they are joined."""


def call_with_receipts(endpoint: Endpoint, calls: Sequence[Call], numbers: Sequence[int]) -> list[msgspec.Raw]:
    """Send ``calls``, and fetch the receipts of the blocks ``numbers``, in batches.

    Returns the result of each call, then for each block the JSON that eth_getBlockReceipts gives. If the endpoint does
    not offer that method, which is remembered for an hour, or if a block's receipts are too large for one answer, they
    are fetched with eth_getTransactionReceipt. The hashes are those of the block in ``calls``, else a block is fetched
    for them.

    Raises Unavailable, EndpointLacks, VerificationFailed if a block is malformed, as :func:`call_all` does.
    """
    is_lacked = memory.is_lacked(endpoint.fingerprint, RECEIPTS)
    wanted: list[Call] = [] if is_lacked else [(RECEIPTS, [hex(number)]) for number in numbers]
    outcomes = call_each(endpoint, [*calls, *wanted])
    found = [_required(each) for each in outcomes[: len(calls)]]
    receipts = dict(zip(numbers, outcomes[len(calls) :], strict=False))
    missing = [number for number in numbers if not isinstance(receipts.get(number), msgspec.Raw)]
    if any(isinstance(each, MethodLacked) for each in receipts.values()):
        memory.note_lacked(endpoint.fingerprint, RECEIPTS)
    if missing:
        blocks = {call[1][0]: result for call, result in zip(calls, found, strict=True) if call[0] == BLOCK}
        receipts.update(_by_transaction(endpoint, missing, blocks))
    return [*found, *(_required(receipts[number]) for number in numbers)]


def receipt_calls(endpoint: Endpoint, numbers: Sequence[int]) -> float:
    """Return how many calls the receipts of one of these blocks take, on average: 1, or as many as it has transactions
    if the endpoint does not offer eth_getBlockReceipts.
    """
    (outcome,) = call_each(endpoint, [(RECEIPTS, [hex(numbers[0])])])
    if not isinstance(outcome, MethodLacked):
        return 1.0
    blocks = call_all(endpoint, [(BLOCK, [hex(number), False]) for number in numbers])
    counts = [len(_hashes_of(block, number) or ()) for number, block in zip(numbers, blocks, strict=True)]
    return sum(counts) / len(counts)


def _by_transaction(
    endpoint: Endpoint, numbers: Sequence[int], blocks: Mapping[str, msgspec.Raw]
) -> Iterator[tuple[int, msgspec.Raw]]:
    """Yield each block's number and its receipts, which are fetched by transaction."""
    unknown = [number for number in numbers if hex(number) not in blocks]
    thin = dict(zip(unknown, call_all(endpoint, [(BLOCK, [hex(n), False]) for n in unknown]), strict=True))
    hashes = {number: _hashes_of(thin.get(number) or blocks[hex(number)], number) for number in numbers}
    for group in _groups(hashes):
        wanted = [(number, each) for number in group for each in hashes[number] or ()]
        answers = iter(zip(wanted, _receipts(endpoint, wanted), strict=True))
        for number in group:
            inside = hashes[number]
            if inside is None:
                yield number, msgspec.Raw(b"null")
            else:
                yield number, _joined([next(answers)[1] for _ in inside])


def _groups(hashes: Mapping[int, Sequence[str] | None]) -> Iterator[list[int]]:
    """Yield consecutive blocks that have about _AT_ONCE transactions together."""
    group: list[int] = []
    size = 0
    for number, inside in hashes.items():
        group.append(number)
        size += len(inside or ())
        if size >= _AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group


def _receipts(endpoint: Endpoint, wanted: Sequence[tuple[int, str]]) -> Iterator[msgspec.Raw]:
    """Yield the receipt of each (block, transaction hash). Raises Unavailable if the endpoint lacks one."""
    outcomes = call_each(endpoint, [(RECEIPT, [each]) for _, each in wanted])
    for (number, _), outcome in zip(wanted, outcomes, strict=True):
        if isinstance(outcome, AnswerTooLarge):
            raise EndpointLacks(
                f"rpc endpoint {endpoint.name} has a receipt that is too large to be read: use verify: structural",
                block=number,
            )
        receipt = _required(outcome)
        if bytes(receipt) == b"null":
            raise Unavailable(
                f"rpc endpoint {endpoint.name} does not have the receipt of every transaction of a block", block=number
            )
        yield receipt


def _hashes_of(block: msgspec.Raw, number: int) -> list[str] | None:
    """Return the hashes of a block's transactions, None if the node does not have the block."""
    if bytes(block) == b"null":
        return None
    hashes = transaction_hashes(block)
    if hashes is None:
        raise VerificationFailed("the node's block has no list of transactions", block=number)
    return hashes


def _joined(receipts: Sequence[msgspec.Raw]) -> msgspec.Raw:
    return msgspec.Raw(b"[" + b",".join(map(bytes, receipts)) + b"]")


def _required(outcome: CallOutcome) -> msgspec.Raw:
    if isinstance(outcome, TraceError):
        raise outcome
    return outcome
