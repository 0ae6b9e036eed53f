"""Resolve a job's symbolic bounds to block numbers, a single time, against the chain's finalized block."""

from __future__ import annotations

from collections.abc import Callable

from trace_dagster.config.chain_sync import ChainSync, FixedTarget
from trace_dagster.errors import InvalidInput
from trace_dagster.registry.jobs import Bounds


def is_symbolic(job: ChainSync) -> bool:
    """Return whether a bound is written as ``latest-N`` or ``finalized``."""
    return isinstance(job.mode.from_block, str) or (
        isinstance(job.mode, FixedTarget) and isinstance(job.mode.to_block, str)
    )


def resolve(job: ChainSync, finalized: Callable[[], int]) -> Bounds:
    """Return the job's bounds as numbers; ``finalized`` is called only if a bound needs it.

    Raise InvalidInput if no block is left between them.
    """
    head_end = finalized() + 1 if is_symbolic(job) else 0
    start = job.mode.from_block
    from_block = max(0, head_end - int(start.removeprefix("latest-"))) if isinstance(start, str) else start
    to_block: int | None = None
    if isinstance(job.mode, FixedTarget):
        to_block = head_end if isinstance(job.mode.to_block, str) else job.mode.to_block
        if to_block <= from_block:
            raise InvalidInput(
                "mode: no blocks lie between from_block and to_block",
                from_block=from_block,
                to_block=to_block,
            )
    return Bounds(from_block, to_block)
