"""What a commit does to hot rows: those of its range leave in its transaction, if it lies on the follower's chain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from trace_dagster.blocks import BlockRange
from trace_dagster.errors import ForkConflict
from trace_dagster.registry.connection import Database, Session
from trace_dagster.registry.hot_copy import block_ranges
from trace_dagster.registry.hot_writes import remove


class NotOnHotChain(ForkConflict):
    """A range has another hash at a boundary than the block that the follower stored there."""

    is_unanswered = False
    """Whether the follower was asked before to compare its chain and has not done it, or nobody follows the chain."""


@contextmanager
def rechecked_by_follower(database: Database, dataset_uuid: UUID) -> Iterator[None]:
    """Have the follower compare its chain with the node if the transaction inside ends with NotOnHotChain."""
    try:
        yield
    except NotOnHotChain as conflict:
        with database.transaction() as session:
            row = session.one("recheck_chain_of", dataset_uuid=dataset_uuid, block=max(conflict.block, 0))
        conflict.is_unanswered = row is not None and row["is_unanswered"]
        raise


def require_hot_chain(
    session: Session, dataset_uuid: UUID, block_range: BlockRange, first_parent_hash: bytes, last_block_hash: bytes
) -> None:
    """Raise NotOnHotChain if a stored block at a boundary of the range has another hash. The boundaries are locked."""
    span = {"range_start": block_range.start, "range_end": block_range.end}
    for row in session.all("chain_at_borders", dataset_uuid=dataset_uuid, **span):
        number = row["block_number"]
        for block, stored in ((number, bytes(row["block_hash"])), (number - 1, bytes(row["parent_hash"]))):
            for boundary, found in ((block_range.start - 1, first_parent_hash), (block_range.end - 1, last_block_hash)):
                if block == boundary and stored != found:
                    raise NotOnHotChain(
                        f"blocks {block_range} are not of the chain that the follower stored: it compares it with"
                        " the node, then this range is tried again",
                        block=block,
                        committed=stored,
                        found=found,
                        versions=(),
                    )


def leave_hot(session: Session, dataset_uuid: UUID, block_range: BlockRange, last_block_hash: bytes | None) -> None:
    """Remove the hot rows of a range that is committed now. Its follower waits until the transaction ends."""
    if not session.all("lock_hot_streams", datasets=[dataset_uuid]):
        return
    span = {"range_start": block_range.start, "range_end": block_range.end}
    hashes = {block_range.end - 1: last_block_hash} if last_block_hash else {}
    for row in session.all("hot_of_datasets", datasets=[dataset_uuid], **span):
        remove(session, row, block_ranges(row["blocks"]), "pruned", hashes=hashes)
