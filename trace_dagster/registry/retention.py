"""The registry's side of a sweep: which attempts are fenced, which generations retired, which objects still needed.

Files that were replaced are kept for the grace period, and as long as a logged query runs that began before they were.
Each statement looks up the running queries itself: a query that it does not see yet begins after it, and does not see
the replaced files either.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from trace_dagster.blocks import BlockRange
from trace_dagster.registry.connection import Database, Session
from trace_dagster.registry.tasks import attempt_tag
from trace_dagster.registry.wake import wake

_CHANGES_AT_ONCE = 5000
"""Changes, or entries of the log of queries, that one transaction deletes."""


@dataclass(frozen=True, slots=True)
class RangeFolder:
    """One range of one dataset on the object store, or one window of its layouts."""

    dataset_uuid: UUID
    block_range: BlockRange

    @property
    def values(self) -> dict[str, object]:
        """The range as values of a query."""
        return {
            "dataset_uuid": self.dataset_uuid,
            "range_start": self.block_range.start,
            "range_end": self.block_range.end,
        }


class FolderLock:
    """What the registry knows about one range's objects, while the range cannot be claimed."""

    def __init__(self, session: Session, folder: RangeFolder, grace_seconds: float, *, dry_run: bool) -> None:
        values = {**folder.values, "grace_seconds": grace_seconds}
        tasks = session.all("tasks_of_range", **values, dry_run=dry_run)
        self.known = bool(tasks)
        self.idle = self.known and not any(task["held"] for task in tasks)
        """True if a task exists and no attempt works on it. Only then are objects of the range removed."""
        self.referenced = {row["object_key"] for row in session.all("referenced_objects", **values)}
        ended = session.all("ended_attempts", **values)
        self.ended_tags = {attempt_tag(row["task_id"], row["attempt"], row["lease_token"]) for row in ended}
        self.retired_manifests = {row["manifest_key"] for row in session.all("retired_manifests", **values)}


class LayoutLock:
    """What the registry knows about the layouts of one window, while the window cannot be compacted."""

    def __init__(self, session: Session, folder: RangeFolder, grace_seconds: float) -> None:
        values = {**folder.values, "grace_seconds": grace_seconds}
        session.all("lock_compaction", **folder.values)
        layouts = session.all("known_layouts", **values)
        self.known = {row["layout_id"] for row in layouts}
        self.over = {row["layout_id"] for row in layouts if row["over"]}
        """Layouts whose compaction ended, or fell silent, before the grace period."""
        self.referenced = {row["object_key"] for row in session.all("referenced_layout_objects", **values)}


class Retention:
    """Fences silent attempts, drops the files of replaced versions, and deletes old rows of the registry."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def abandon(self, grace_seconds: float, *, dry_run: bool) -> int:
        """Fence attempts whose lease lapsed longer ago than the grace period; return how many."""
        with self._database.transaction() as session:
            if dry_run:
                return _count(session, "silent_attempts", grace_seconds)
            rows = session.all("abandon_attempts", grace_seconds=grace_seconds)
            wake(session, [row["task_id"] for row in rows])
        return len(rows)

    def retire(self, grace_seconds: float, *, dry_run: bool) -> int:
        """Drop the files of generations that were replaced longer ago than the grace period; return how many."""
        with self._database.transaction() as session:
            if dry_run:
                return _count(session, "replaced_versions", grace_seconds)
            retired = session.one("retire_versions", grace_seconds=grace_seconds)
            if retired is None or not retired["n"]:
                return 0
            session.run("drop_unlinked_files", file_keys=retired["file_keys"])
        return int(retired["n"])

    def abandon_compactions(self, grace_seconds: float, *, dry_run: bool) -> int:
        """Fence compactions whose lease lapsed longer ago than the grace period; return how many."""
        with self._database.transaction() as session:
            if dry_run:
                return _count(session, "silent_compactions", grace_seconds)
            return session.run("abandon_compactions", grace_seconds=grace_seconds)

    def drop_replaced_links(self, grace_seconds: float, *, dry_run: bool) -> int:
        """Drop the links that compactions replaced longer ago than the grace period, and the rows of files without
        links; return the number of links.
        """
        with self._database.transaction() as session:
            if dry_run:
                return _count(session, "replaced_links", grace_seconds)
            dropped = session.one("drop_replaced_links", grace_seconds=grace_seconds)
            assert dropped is not None
            session.run("drop_unlinked_files", file_keys=dropped["file_keys"])
            session.run("drop_unlinked_layout_files")
        return int(dropped["n"])

    def queries_that_keep_files(self, grace_seconds: float) -> int:
        """Return how many queries run that began before the grace period. All of this class keeps their files."""
        with self._database.transaction() as session:
            return _count(session, "queries_that_keep_files", grace_seconds)

    def known_datasets(self) -> set[UUID]:
        """Return the datasets of this registry. Objects of other datasets are not removed."""
        with self._database.transaction() as session:
            return {row["dataset_uuid"] for row in session.all("known_datasets")}

    @contextmanager
    def locked(self, folder: RangeFolder, grace_seconds: float, *, dry_run: bool) -> Iterator[FolderLock]:
        """Prevent claims of a range while its objects are examined and removed."""
        with self._database.transaction() as session:
            yield FolderLock(session, folder, grace_seconds, dry_run=dry_run)

    @contextmanager
    def locked_layouts(self, folder: RangeFolder, grace_seconds: float) -> Iterator[LayoutLock]:
        """Prevent compactions of a window while the objects of its layouts are examined and removed."""
        with self._database.transaction() as session:
            yield LayoutLock(session, folder, grace_seconds)

    def prune(self, grace_seconds: float) -> None:
        """Delete rows that are no longer needed: dead attempts, sent wake-ups, closed batches."""
        with self._database.transaction() as session:
            for statement in (
                "delete_old_attempts",
                "delete_old_outbox",
                "delete_old_batches",
                "delete_old_run_heartbeats",
                "delete_old_dead",
            ):
                session.run(statement, grace_seconds=grace_seconds)
            session.run("drop_unused_hash_indexes")

    def prune_changes(self, days: int, *, dry_run: bool, most: int | None = None) -> int:
        """Delete changes that are older than ``days``, in short transactions; return how many.

        ``most`` ends it after the transaction that reaches so many. Changes that readers may not see yet, because a
        transaction is open, are kept.
        """
        if dry_run:
            with self._database.transaction() as session:
                row = session.one("old_changes", days=days)
            return int(row["n"]) if row else 0
        total = 0
        while True:
            with self._database.transaction() as session:
                session.one("lock_changes_floor")
                row = session.one("delete_old_changes", days=days, limit=_CHANGES_AT_ONCE)
            deleted = int(row["n"]) if row else 0
            total += deleted
            if deleted < _CHANGES_AT_ONCE or (most is not None and total >= most):
                return total

    def prune_reorgs(self, days: int) -> int:
        """Delete reorganisations that are older than ``days``, except the newest of each chain; return how many."""
        with self._database.transaction() as session:
            return session.run("delete_old_reorgs", days=days)

    def prune_queries(self, days: int) -> int:
        """Delete entries of the log of queries that are older than ``days``, and tokens, links and sessions that ended
        long ago, in short transactions; return how many entries.
        """
        with self._database.transaction() as session:
            session.run("delete_old_tokens", days=days)
        total = 0
        while True:
            with self._database.transaction() as session:
                deleted = session.run("delete_old_queries", days=days, limit=_CHANGES_AT_ONCE)
            total += deleted
            if deleted < _CHANGES_AT_ONCE:
                return total


def _count(session: Session, statement: str, grace_seconds: float) -> int:
    row = session.one(statement, grace_seconds=grace_seconds)
    return int(row["n"]) if row else 0
