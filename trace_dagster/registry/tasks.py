"""Tasks, leases and fencing: the database and its clock decide which attempt may write a range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from uuid import UUID, uuid4

from trace_dagster.blocks import BlockRange
from trace_dagster.errors import LeaseLost, Refused
from trace_dagster.identity import LAKE_FORM
from trace_dagster.registry.connection import Database, Row, storable
from trace_dagster.registry.forms import old_form
from trace_dagster.registry.wake import wake

MAX_EXPIRIES = 20
"""Leases of a range that may lapse (killed processes). Far more than failures, because the range is seldom the
cause.
"""

LONGEST_BACKOFF_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Lease:
    """A time-limited right to one attempt; (task_id, attempt, token) is the fencing token."""

    task_id: UUID
    attempt: int
    token: UUID
    generation: int
    """Generation that a commit under this lease publishes: 0, or one more than any before."""

    @property
    def fence(self) -> dict[str, object]:
        """The values that fence every statement of the holder."""
        return {"task_id": self.task_id, "attempt": self.attempt, "lease_token": self.token}

    @property
    def tag(self) -> str:
        """Part of every object name, so that no two attempts share a key, not even those of two registries over
        one bucket.
        """
        return attempt_tag(self.task_id, self.attempt, self.token)


def attempt_tag(task_id: UUID, attempt: int, token: UUID) -> str:
    """Return ``{task}-a{attempt}-{token}``, with eight hex digits of each id."""
    return f"{task_id.hex[:8]}-a{attempt}-{token.hex[:8]}"


class Unplanned(Refused):
    """There is no active task for the range."""


class Unclaimed(Enum):
    """Why a claim was not granted."""

    COMMITTED = "committed"
    LEASED = "leased by another run"
    NO_SLOT = "max_inflight reached"
    NOT_DUE = "failed, or waits before its next try"


class Tasks:
    """Changes the state of tasks and attempts."""

    def __init__(
        self,
        database: Database,
        *,
        lease_ttl_seconds: float = 60.0,
        max_attempts: int = 3,
        retry_base_seconds: float = 5.0,
    ) -> None:
        self._database = database
        self.lease_ttl_seconds = lease_ttl_seconds
        self._max_attempts = max_attempts
        self._retry_base_seconds = retry_base_seconds

    def ensure(self, task_id: UUID, dataset_uuid: UUID, block_range: BlockRange, config_hash: str) -> None:
        """Plan a range that a user asked for. No effect if an active range touches it, or if it is not final."""
        with self._database.transaction() as session:
            session.run("lock_plan", dataset_uuid=dataset_uuid)  # two inserts at a time may fail on their ranges
            session.run("insert_task_if_free", **_task(task_id, dataset_uuid, block_range, config_hash))

    def replace(self, task_id: UUID, dataset_uuid: UUID, block_range: BlockRange, config_hash: str) -> None:
        """Make this the dataset's only active task: derived datasets are replaced as a whole."""
        with self._database.transaction() as session:
            session.run("supersede_others", dataset_uuid=dataset_uuid, task_id=task_id)
            session.run("insert_task", **_task(task_id, dataset_uuid, block_range, config_hash))

    def claim(
        self,
        task_id: UUID,
        dataset_uuid: UUID,
        block_range: BlockRange,
        run_id: str,
        *,
        refresh: bool = False,
        manual: bool = True,
        config_hash: str | None = None,
    ) -> Lease | Unclaimed:
        """Grant the lease of a task. If the task's state does not allow it, return the reason.

        A lease is granted for a task that is queued or whose lease has expired; with ``manual`` also for one that
        failed, is dead or waits before its next try; with ``refresh`` also for a committed one. Raise Unplanned if
        there is no such active task, Refused if the task's job is paused, its stream has another form or another
        ``config_hash`` than the caller's, or its lease has expired MAX_EXPIRIES times.
        """
        with self._database.transaction() as session:
            stream = session.one("lock_stream", dataset_uuid=dataset_uuid)
            task = session.one("lock_task", task_id=task_id)
            if task is None or task["state"] == "superseded":
                raise Unplanned(
                    "this range is not planned: it is no cell of the plan, or not final yet", range=block_range
                )
            if stream and stream["form"] != LAKE_FORM:
                raise Refused(old_form(stream["form"], stream["job_name"]), range=block_range)
            if config_hash not in (None, task["config_hash"]):
                raise Refused(
                    "its stream was rebuilt after this run was started: another run takes the range", range=block_range
                )
            if unclaimed := _unclaimed(task, refresh=refresh, manual=manual):
                return unclaimed
            if stream and stream["halted_reason"]:
                raise Refused(f"its stream was stopped: {stream['halted_reason']}", range=block_range)
            if stream and not stream["enabled"]:
                raise Refused(
                    "its job is paused (`trace-lite resume`), or its stream was taken out of the file",
                    range=block_range,
                )
            terms = session.one("claim_terms", **_task_range(task_id, dataset_uuid, block_range))
            assert terms is not None
            if stream and terms["leased"] >= stream["max_inflight"]:
                return Unclaimed.NO_SLOT
            lease = Lease(task_id, task["attempt"] + 1, uuid4(), terms["generation"])
            if task["attempt"]:
                session.run("expire_attempt", task_id=task_id)
            if task["state"] != "running" or task["expiries"] + 1 < MAX_EXPIRIES:
                session.run("start_attempt", **lease.fence, run_id=run_id, ttl_seconds=self.lease_ttl_seconds)
                return lease
            reason = f"its process died {MAX_EXPIRIES} times: use a smaller chunk_size, or look at the runs' logs"
            session.run("mark_task_dead", task_id=task_id, error=reason)
        raise Refused(reason, range=block_range)

    def heartbeat(self, lease: Lease) -> None:
        """Renew a lease. Raise LeaseLost if another attempt holds the task."""
        with self._database.transaction() as session:
            if not session.run("heartbeat", **lease.fence, ttl_seconds=self.lease_ttl_seconds):
                raise LeaseLost("another attempt holds this range now", task_id=lease.task_id, attempt=lease.attempt)

    def fail(self, lease: Lease, reason: str, *, retry: bool, is_counted: bool = True) -> bool:
        """End an attempt with its reason; return whether the range will be tried again.

        A retry waits ``retry_base_seconds``, doubled by each failure; after max_attempts the task is dead. If the
        attempt is not counted, because it waits for another process, it may be tried for ever: then each attempt
        doubles the wait. The holder of an old token changes nothing and gets False.
        """
        reason = storable(reason)
        with self._database.transaction() as session:
            ended = session.one(
                "fail_task",
                **lease.fence,
                error=reason,
                retry=retry,
                is_counted=is_counted,
                max_attempts=self._max_attempts,
                base_seconds=self._retry_base_seconds,
                longest_seconds=LONGEST_BACKOFF_SECONDS,
            )
            if ended is None:
                return False
            session.run("end_attempt", task_id=lease.task_id, attempt=lease.attempt, state="failed", error=reason)
            wake(session, [lease.task_id])
            return bool(ended["state"] == "queued")

    def release(self, lease: Lease) -> None:
        """Return an unfinished range to the queue, because its run stops."""
        with self._database.transaction() as session:
            if session.run("release_task", **lease.fence):
                session.run(
                    "end_attempt",
                    task_id=lease.task_id,
                    attempt=lease.attempt,
                    state="expired",
                    error="the run was stopped",
                )
                wake(session, [lease.task_id])

    def requeue(self, job_id: UUID, dataset_key: str | None, block_range: BlockRange, states: Sequence[str]) -> int:
        """Queue tasks again that touch ``block_range`` and are in one of ``states``; return how many."""
        with self._database.transaction() as session:
            rows = session.all(
                "requeue_tasks",
                job_id=job_id,
                dataset_key=dataset_key,
                range_start=block_range.start,
                range_end=block_range.end,
                states=list(states),
            )
            wake(session, [row["task_id"] for row in rows])
        return len(rows)


def _unclaimed(task: Row, *, refresh: bool, manual: bool) -> Unclaimed | None:
    if task["state"] == "committed" and not refresh:
        return Unclaimed.COMMITTED
    if task["state"] == "running" and not task["lapsed"]:
        return Unclaimed.LEASED
    if not manual and (task["state"] in ("failed", "dead") or (task["state"] == "queued" and not task["due"])):
        return Unclaimed.NOT_DUE
    return None


def _task(task_id: UUID, dataset_uuid: UUID, block_range: BlockRange, config_hash: str) -> dict[str, object]:
    return {**_task_range(task_id, dataset_uuid, block_range), "config_hash": config_hash}


def _task_range(task_id: UUID, dataset_uuid: UUID, block_range: BlockRange) -> dict[str, object]:
    return {
        "task_id": task_id,
        "dataset_uuid": dataset_uuid,
        "range_start": block_range.start,
        "range_end": block_range.end,
    }
