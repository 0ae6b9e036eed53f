"""Tasks, leases and fencing: who may write one range, decided by the database and its clock."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from uuid import UUID, uuid4

from trace_dagster.blocks import BlockRange
from trace_dagster.errors import LeaseLost, Refused
from trace_dagster.registry.connection import Database, Session


@dataclass(frozen=True, slots=True)
class Lease:
    """A time-limited right to one attempt; (task_id, attempt, token) is the fencing token."""

    task_id: UUID
    attempt: int
    token: UUID
    generation: int
    """The generation a commit under this lease publishes: 0, or one more than any before."""

    @property
    def fence(self) -> dict[str, object]:
        """The values every statement of the holder is fenced by."""
        return {"task_id": self.task_id, "attempt": self.attempt, "lease_token": self.token}

    @property
    def tag(self) -> str:
        """Part of every object name: no two attempts of any two tasks share a key."""
        return f"{self.task_id.hex[:8]}-a{self.attempt}"


class Unclaimed(Enum):
    """Why a claim was not given."""

    COMMITTED = "committed"
    LEASED = "leased by another run"
    NO_SLOT = "max_inflight reached"


class Tasks:
    """The life of tasks and attempts."""

    def __init__(self, database: Database, *, lease_ttl_seconds: float = 60.0, max_attempts: int = 3) -> None:
        self._database = database
        self.lease_ttl_seconds = lease_ttl_seconds
        self._max_attempts = max_attempts

    def ensure(self, task_id: UUID, dataset_uuid: UUID, block_range: BlockRange, config_hash: str) -> None:
        """Plan a range someone asked for by hand. No effect when any active range touches it."""
        with self._database.transaction() as session:
            session.run(
                "insert_task_if_free",
                task_id=task_id,
                dataset_uuid=dataset_uuid,
                range_start=block_range.start,
                range_end=block_range.end,
                config_hash=config_hash,
            )

    def replace(self, task_id: UUID, dataset_uuid: UUID, block_range: BlockRange, config_hash: str) -> None:
        """Make this the dataset's only active task: derived datasets are replaced whole."""
        with self._database.transaction() as session:
            session.run("supersede_others", dataset_uuid=dataset_uuid, task_id=task_id)
            session.run(
                "insert_task",
                task_id=task_id,
                dataset_uuid=dataset_uuid,
                range_start=block_range.start,
                range_end=block_range.end,
                config_hash=config_hash,
            )

    def claim(
        self,
        task_id: UUID,
        dataset_uuid: UUID,
        block_range: BlockRange,
        run_id: str,
        *,
        refresh: bool = False,
    ) -> Lease | Unclaimed:
        """Take the lease of a task, or say why not.

        Given for a task that is queued or failed, or whose lease has lapsed; with ``refresh`` also
        for a committed one. Raises Refused when no such task is active.
        """
        with self._database.transaction() as session:
            slots = session.one("lock_stream", dataset_uuid=dataset_uuid)
            task = session.one("lock_task", task_id=task_id)
            if task is None or task["state"] == "superseded":
                raise Refused("this range is not a cell of the current plan", range=block_range)
            if task["state"] == "committed" and not refresh:
                return Unclaimed.COMMITTED
            if task["state"] == "running" and not task["lapsed"]:
                return Unclaimed.LEASED
            if slots and self._leased(session, task_id, dataset_uuid) >= slots["max_inflight"]:
                return Unclaimed.NO_SLOT
            lease = Lease(task_id, task["attempt"] + 1, uuid4(), self._generation(session, dataset_uuid, block_range))
            session.run("expire_attempt", task_id=task_id)
            session.run("start_attempt", **lease.fence, run_id=run_id)
            session.run("lease_task", **lease.fence, ttl_seconds=self.lease_ttl_seconds)
            return lease

    def heartbeat(self, lease: Lease) -> None:
        """Renew a lease. Raises LeaseLost when someone else holds the task."""
        with self._database.transaction() as session:
            if not session.run("heartbeat", **lease.fence, ttl_seconds=self.lease_ttl_seconds):
                raise LeaseLost("another attempt holds this range now", task_id=lease.task_id, attempt=lease.attempt)

    def fail(self, lease: Lease, reason: str, *, retry: bool) -> bool:
        """End an attempt with its reason; returns whether the range will be tried again.

        A holder of an old token changes nothing and gets False.
        """
        with self._database.transaction() as session:
            row = session.one("failures_of", task_id=lease.task_id)
            again = retry and row is not None and row["failures"] + 1 < self._max_attempts
            if not session.run("fail_task", **lease.fence, error=reason, retry=again):
                return False
            session.run("end_attempt", task_id=lease.task_id, attempt=lease.attempt, state="failed", error=reason)
            return again

    def release(self, lease: Lease) -> None:
        """Give an unfinished range back when the run is told to stop."""
        with self._database.transaction() as session:
            if session.run("release_task", **lease.fence):
                session.run(
                    "end_attempt",
                    task_id=lease.task_id,
                    attempt=lease.attempt,
                    state="expired",
                    error="run stopped",
                )

    @staticmethod
    def _leased(session: Session, task_id: UUID, dataset_uuid: UUID) -> int:
        row = session.one("count_leased", dataset_uuid=dataset_uuid, task_id=task_id)
        return int(row["leased"]) if row else 0

    @staticmethod
    def _generation(session: Session, dataset_uuid: UUID, block_range: BlockRange) -> int:
        row = session.one(
            "next_generation",
            dataset_uuid=dataset_uuid,
            range_start=block_range.start,
            range_end=block_range.end,
        )
        return int(row["generation"]) if row else 0
