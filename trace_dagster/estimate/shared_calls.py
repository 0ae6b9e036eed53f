"""The calls of all streams of a pool together, where they share answers: through the gateway, or as evidence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil

from trace_dagster.blocks import BlockRange, merged
from trace_dagster.estimate.costs import StreamPlan, native_trace_calls
from trace_dagster.evidence.needs import NOTHING, fetched, row_needs
from trace_dagster.verify.check import evidence_needed

_WITHOUT_BLOCK = frozenset({"contracts", "native_transfers", "traces", "vm_traces"})
"""Datasets for which Cryo fetches a trace of each block, and not the block."""


def shared_calls(plans: Sequence[StreamPlan], receipt_calls: float) -> int:
    """Return the calls for all streams of one pool if they run together: each block, its receipts and its traces one
    time. eth_chainId is not counted.

    ``receipt_calls`` are the calls for the receipts of one block, more than 1 if they are fetched by transaction.
    """
    planned = [each for each in plans if each.counts is not None]
    blocks = _blocks(each.todo for each in planned if _takes_block(each))
    receipts = _blocks(each.todo for each in planned if _takes_receipts(each))
    return blocks + ceil(receipts * receipt_calls) + sum(map(_own_calls, planned))


def blocks_of_any(plans: Sequence[StreamPlan]) -> int:
    """Return the number of blocks that at least one of the streams needs."""
    return _blocks(each.todo for each in plans)


def _blocks(todo: Iterable[Sequence[BlockRange]]) -> int:
    return sum(map(len, merged(span for spans in todo for span in spans)))


def _takes_block(plan: StreamPlan) -> bool:
    dataset = plan.stream.dataset
    if plan.stream.engine == "native":
        return True
    takes_header = plan.counts is not None and plan.counts.header_calls > 0
    needed = evidence_needed(dataset.name) if plan.stream.is_proven else NOTHING
    by_cryo = not (dataset.is_queried_by_span or dataset.name in _WITHOUT_BLOCK)
    return takes_header or needed.headers or by_cryo


def _takes_receipts(plan: StreamPlan) -> bool:
    stream = plan.stream
    if stream.engine == "native":
        return row_needs(stream.dataset.name).receipts
    return "receipts" in fetched(stream.dataset, stream.dataset.stored_columns(stream.columns), stream.check_level)


def _own_calls(plan: StreamPlan) -> int:
    """Return the calls that only this stream makes: its traces, and its logs unless they come out of receipts."""
    dataset = plan.stream.dataset
    if plan.stream.engine == "native":
        return native_trace_calls(dataset.name, sum(map(len, plan.todo)))
    if dataset.is_queried_by_span:
        return 0 if _takes_receipts(plan) or plan.counts is None else plan.counts.extraction_calls
    of_blocks = dataset.most_calls(1, 1, ())
    if dataset.name not in _WITHOUT_BLOCK:
        of_blocks -= 1
    return of_blocks * sum(map(len, plan.todo))
