"""Forks between committed ranges: conflicts at block boundaries, and invalidation of the versions that lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from trace_dagster.blocks import BlockRange
from trace_dagster.errors import ForkConflict
from trace_dagster.registry.changes import record_change
from trace_dagster.registry.connection import Database, Row, Session, storable
from trace_dagster.registry.wake import wake


def require_one_chain(
    session: Session, *, dataset_uuid: UUID, chain_id: int, block_range: BlockRange, first: bytes, last: bytes
) -> None:
    """Raise ForkConflict if a visible neighbour has another hash at a boundary that this range shares with it.

    Both boundaries are locked until the transaction ends, so that two neighbours cannot pass at the same time.
    """
    borders = {"range_start": block_range.start, "range_end": block_range.end}
    session.run("lock_borders", chain_id=chain_id, **borders)
    found = session.all(
        "fork_conflicts",
        dataset_uuid=dataset_uuid,
        **borders,
        first_parent_hash=first,
        last_block_hash=last,
    )
    if found:
        raise conflict_of(found)


def conflict_of(found: list[Row]) -> ForkConflict:
    """Return the error for versions that have another hash at a boundary, from rows of ``fork_conflicts``."""
    first = found[0]
    same = [row for row in found if (row["block"], row["committed"]) == (first["block"], first["committed"])]
    span = BlockRange(first["range_start"], first["range_end"])
    return ForkConflict(
        f"the committed range {span} of {first['dataset_key']} lies on another fork than this one",
        block=first["block"],
        committed=bytes(first["committed"]),
        found=bytes(first["found"]),
        versions=tuple(sorted({row["dataset_version"] for row in same})),
    )


class Forks:
    """Invalidates committed versions, or has them compared with the chain again."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def invalidate(self, versions: Iterable[UUID], reason: str) -> int:
        """Hide versions and queue their ranges again, also if the last refresh failed. Return the number hidden."""
        count = 0
        for version in versions:
            with self._database.transaction() as session:
                for task in session.all("tasks_of_versions", versions=[version]):
                    session.one(
                        "lock_task", task_id=task["task_id"]
                    )  # lock the task before the version, as a commit does
                    hidden = session.one("hide_version", dataset_version=version)
                    if hidden is None:
                        continue
                    count += 1
                    session.run("record_invalidation", dataset_version=version, reason=storable(reason))
                    _record_hidden(session, version, hidden, reason)
                    _requeue(session, task["task_id"], reason, ("committed", "failed", "dead"))
        return count

    def pools_of(self, versions: Iterable[UUID]) -> list[str]:
        """Return the names of the RPC pools of the streams that these dataset versions belong to."""
        with self._database.snapshot() as session:
            return sorted({row["rpc_pool"] for row in session.all("pools_of_versions", versions=list(versions))})

    def requeue(self, versions: Iterable[UUID], reason: str) -> int:
        """Queue the ranges of versions to be fetched again; they stay visible until then. Return how many are
        queued.
        """
        with self._database.transaction() as session:
            rows = session.all("tasks_of_versions", versions=list(versions))
            return sum(_requeue(session, row["task_id"], reason, ("committed",)) for row in rows)


def hide_fork(
    session: Session, chain: Mapping[str, object], fork_block: int, tasks: Sequence[UUID], reason: str
) -> list[Row]:
    """Hide the versions of a chain that touch blocks of a fork, unless their last block is of the new chain, which is
    stored already. Their ranges are queued again.

    ``tasks`` are locked: those of all versions that touch the fork. Returns the versions that left the view.
    """
    hidden = session.all("hide_above_fork", **chain, fork_block=fork_block, tasks=list(tasks))
    versions = [row["dataset_version"] for row in hidden]
    session.run("record_invalidations", versions=versions, reason=storable(reason))
    for row in sorted(hidden, key=lambda row: (row["dataset_uuid"], row["range_start"])):
        _record_hidden(session, row["dataset_version"], row, reason)
    queued = session.all("requeue_committed", task_ids=[row["task_id"] for row in hidden], reason=storable(reason))
    wake(session, [row["task_id"] for row in queued])
    return hidden


def _record_hidden(session: Session, version: UUID, hidden: Row, reason: str) -> None:
    record_change(
        session,
        "invalidated",
        hidden["dataset_uuid"],
        BlockRange(hidden["range_start"], hidden["range_end"]),
        generation=hidden["generation"],
        dataset_version=version,
        reason=reason,
        block_hash=hidden["last_block_hash"],
    )


def _requeue(session: Session, task_id: UUID, reason: str, states: tuple[str, ...]) -> bool:
    queued = session.one("requeue_task", task_id=task_id, reason=storable(reason), states=list(states))
    if queued is not None:
        wake(session, [task_id])
    return queued is not None
