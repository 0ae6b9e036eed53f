"""Turn wake-ups into runs: a message says that a task is due, the registry says which tasks are, a batch is one run's
part.

A lost message loses nothing, because a task that no run picked up is woken again. A repeated message changes nothing,
because a task is in at most one open batch.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import groupby
from uuid import UUID, uuid4

from trace_dagster.blocks import BlockRange
from trace_dagster.messages.logs import component_log
from trace_dagster.planning.run_groups import RunGroup, active_run_groups, all_run_groups
from trace_dagster.registry.connection import Database, Row, Session
from trace_dagster.registry.jobs import Jobs
from trace_dagster.registry.progress import recent_rates
from trace_dagster.registry.streams import StreamRow
from trace_dagster.registry.wake import wake
from trace_dagster.wakeups.driver import MAX_DELIVERIES, Delivery, QueueDriver, decode

_log = component_log("planning")

BATCH_TAG = "trace/run_batch"
"""Tag of the runs that come from a batch; its value is the batch's id. The UI sorts tags: this one is the last."""

RANGES_PER_RUN = 256
"""Ranges of a run as long as the time for a range of the group is not known."""

MOST_RANGES_PER_RUN = 1000
"""Most ranges of a run, also of a backfill. A start costs as much as a hundred tiny ranges, so runs are long."""

LEAST_RANGES_PER_RUN = 32
RUN_SECONDS = 600.0
"""Time that a run should take. Other jobs wait for its slot."""

SKIPPED_AT_ONCE = 64
"""Largest number of ranges between two due ones that one run skips. A second run's start costs as much as a hundred."""

TASKS_PER_TICK = 4096
MESSAGES_PER_TICK = 4096
VISIBILITY_SECONDS = 60.0
"""A message comes back after this time unless its run exists by then. A run needs seconds to exist."""

NOT_YET_SECONDS = 3.0
"""First delay of a wake-up that cannot be followed yet, such as a new job's before the code location is
reloaded. Each further delay is twice as long.
"""

LAUNCH_GRACE_SECONDS = 30.0
"""A batch without a run after this time gets none: its ranges go into another batch."""

FRUITLESS_SECONDS = 30.0
"""How long ranges wait after a run that started none of them."""

Register = Callable[[RunGroup, Sequence[str]], Mapping[str, int]]
"""Adds partition keys to Dagster and returns the position of each in Dagster's order."""

LoadedNames = tuple[str, str]
"""Names of a stream's Dagster job and of its partitions definition."""


class RunState(Enum):
    """How far the run of a batch is."""

    QUEUED = "queued"
    STARTED = "started"
    OVER = "over"


RunStates = Callable[[Sequence[UUID]], Mapping[UUID, RunState]]
"""Returns the state of the run of each batch that has one."""


@dataclass(frozen=True, slots=True)
class RunBatch:
    """Ranges for one run; ``keys`` are partition keys, close to each other in the order of their group."""

    batch_id: UUID
    group: RunGroup
    keys: tuple[str, ...]
    dataset_keys: tuple[str, ...]


class Dispatcher:
    """Turns wake-ups into batches. Any number of processes may call tick() at once; one of them cuts."""

    def __init__(
        self, database: Database, jobs: Jobs, queue: QueueDriver, *, ranges_per_run: int | None = None
    ) -> None:
        self._database = database
        self._jobs = jobs
        self._queue = queue
        self._ranges_per_run = ranges_per_run
        self._unfinished: set[str] = set()
        """Names of run groups that may have due tasks without a new wake-up: held back, or cut in part."""

    def tick(self, register: Register, run_states: RunStates, loaded: Mapping[UUID, LoadedNames]) -> list[RunBatch]:
        """Settle earlier batches, receive wake-ups, and return new batches for the run groups that the wake-ups point
        to: one per group, and none for a group whose last run is still queued. Its due ranges then share the next run.

        ``loaded`` holds the streams that Dagster has loaded as they are now; wake-ups of other streams come back later.
        """
        queued = self._settle(run_states)
        deliveries = self._queue.receive(MESSAGES_PER_TICK, visibility_seconds=VISIBILITY_SECONDS)
        known, poison = _decoded(deliveries)
        turns = {delivery.receipt: delivery.deliveries for delivery in deliveries}
        rows = self._tasks(known)
        streams = self._jobs.streams()
        active = {stream.dataset_uuid for stream in streams if stream.enabled and stream.job_enabled}
        ready = {stream.dataset_uuid: group for group in _ready(streams, loaded) for stream in group.streams}
        wanted = {group.name: group for group in ready.values() if group.name in self._unfinished}
        done: list[str] = []
        later: list[str] = []
        held: list[str] = []
        for task, receipts in known.items():
            row = rows.get(task)
            if row is None:
                poison += receipts
            elif row["dataset_uuid"] not in active or not row["launchable"] or row["launched"]:
                done += receipts
            elif row["dataset_uuid"] not in ready:
                later += receipts
            elif not row["batched"]:
                group = ready[row["dataset_uuid"]]
                wanted[group.name] = group
                held += receipts if queued.intersection(_datasets(group)) else ()
        batches = [batch for group in wanted.values() if (batch := self._next(group, queued, register, known))]
        # a wake-up that could not be followed in time is not made dead: its task is woken again
        worn = [receipt for receipt in [*later, *held] if turns[receipt] >= MAX_DELIVERIES]
        self._queue.ack([*done, *worn])
        for turn, receipts in _by(turns, {*poison, *later}.difference(worn)):
            self._queue.nack(receipts, delay_seconds=NOT_YET_SECONDS * 2 ** (turn - 1))
        return batches

    def _settle(self, run_states: RunStates) -> set[UUID]:
        """Acknowledge wake-ups of batches whose run exists; close batches whose run has ended or was never created.

        Return the datasets that have a queued run, or a batch whose run is still to come.
        """
        with self._database.transaction() as session:
            rows = session.all("open_batches", grace_seconds=LAUNCH_GRACE_SECONDS)
        states = run_states([row["batch_id"] for row in rows]) if rows else {}
        queued: set[UUID] = set()
        for row in rows:
            batch, state = row["batch_id"], states.get(row["batch_id"])
            if state is not None and not row["launched"]:
                self._queue.ack(row["receipts"])
                self._launched(batch)
            if state is RunState.OVER or (state is None and row["overdue"]):  # it never came, or a user deleted it
                self._close(batch, ran=state is not None)
            elif state is not RunState.STARTED:
                queued.update(row["dataset_uuids"])
        return queued

    def _launched(self, batch: UUID) -> None:
        with self._database.transaction() as session:
            session.run("launch_batch", batch_id=batch)

    def _close(self, batch: UUID, *, ran: bool) -> None:
        """Wake the tasks that the run did not reach now, and those that it held when their lease is over.

        If the run reached none of its tasks, its cause lies elsewhere, so all of them wait a little.
        """
        with self._database.transaction() as session:
            if ran:
                session.run("delay_unstarted_tasks", batch_id=batch, seconds=FRUITLESS_SECONDS)
            session.run("close_batch", batch_id=batch)
            wake(session, [row["task_id"] for row in session.all("tasks_left", batch_id=batch)])

    def _tasks(self, known: Mapping[UUID, list[str]]) -> dict[UUID, Row]:
        if not known:
            return {}
        with self._database.transaction() as session:
            return {row["task_id"]: row for row in session.all("woken_tasks", task_ids=list(known))}

    def _next(
        self, group: RunGroup, queued: set[UUID], register: Register, receipts: Mapping[UUID, list[str]]
    ) -> RunBatch | None:
        """Return the group's next batch, or None if its last run is still queued or none of its tasks is due."""
        if queued.intersection(_datasets(group)):
            self._unfinished.add(group.name)
            return None
        batch = self._cut(group, register, receipts)
        if batch is None:
            self._unfinished.discard(group.name)
        else:
            self._unfinished.add(group.name)
        return batch

    def _cut(self, group: RunGroup, register: Register, receipts: Mapping[UUID, list[str]]) -> RunBatch | None:
        with self._database.transaction() as session:
            lock = session.one("try_lock_dispatch")
            if not lock or not lock["locked"]:
                return None
            most = self._ranges_per_run or ranges_per_run(group, session)
            batch = _batch(session, group, most, register, receipts)
        if batch is not None:
            _log.event(
                "batch_cut",
                job=group.streams[0].job_name,
                batch=batch.batch_id,
                ranges=len(batch.keys),
                dataset_keys=",".join(batch.dataset_keys),
                first=batch.keys[0],
                last=batch.keys[-1],
            )
        return batch


def loaded_names(streams: Sequence[StreamRow]) -> dict[UUID, LoadedNames]:
    """Return the names under which definitions made from these streams hold each of them."""
    return {
        stream.dataset_uuid: (group.name, group.partitions_name)
        for group in all_run_groups(streams)
        for stream in group.streams
    }


def _ready(streams: Sequence[StreamRow], loaded: Mapping[UUID, LoadedNames]) -> Iterator[RunGroup]:
    """Yield the run groups that may work now, with those of their streams that Dagster has loaded as they are."""
    for group in active_run_groups(streams):
        known = tuple(s for s in group.streams if loaded.get(s.dataset_uuid) == (group.name, group.partitions_name))
        if known:
            yield replace(group, streams=known)


def _datasets(group: RunGroup) -> list[UUID]:
    return [stream.dataset_uuid for stream in group.streams]


def _by(turns: Mapping[str, int], receipts: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Group receipts by how often their message was delivered."""
    ordered = sorted(receipts, key=lambda receipt: turns[receipt])
    return ((turn, list(same)) for turn, same in groupby(ordered, key=lambda receipt: turns[receipt]))


def _decoded(deliveries: Iterable[Delivery]) -> tuple[dict[UUID, list[str]], list[str]]:
    """Return receipts by task, and the receipts of messages that are not wake-ups: those are delivered until
    they are dead.
    """
    known: dict[UUID, list[str]] = defaultdict(list)
    poison = []
    for delivery in deliveries:
        if (wake_up := decode(delivery.body)) is not None:
            known[wake_up.task_id].append(delivery.receipt)
        else:
            poison.append(delivery.receipt)
    return known, poison


def ranges_per_run(group: RunGroup, session: Session) -> int:
    """Return as many ranges as the group's slowest stream commits in RUN_SECONDS, by its recent commits."""
    rates = recent_rates(session, [stream.dataset_uuid for stream in group.streams])
    return ranges_at_rate(min(rates.values(), default=None), group.streams[0].chunk_size)


def ranges_at_rate(blocks_per_second: float | None, chunk_size: int) -> int:
    """Return the number of ranges that take RUN_SECONDS at this rate; RANGES_PER_RUN if the rate is not known."""
    if blocks_per_second is None:
        return RANGES_PER_RUN
    ranges = int(RUN_SECONDS * blocks_per_second / chunk_size)
    return max(LEAST_RANGES_PER_RUN, min(ranges, MOST_RANGES_PER_RUN))


def _batch(
    session: Session, group: RunGroup, most: int, register: Register, receipts: Mapping[UUID, list[str]]
) -> RunBatch | None:
    """Store and return the batch of the group's most wanted tasks, or None if none is due."""
    newest_first = group.streams[0].newest_first
    rows = session.all(
        "launchable_tasks", dataset_uuids=_datasets(group), newest_first=newest_first, limit=TASKS_PER_TICK
    )
    if not rows:
        return None
    order = register(group, sorted({_key(row) for row in rows}))
    return _store(session, group, window(rows, order, most, newest_first=newest_first), receipts)


def window(rows: Sequence[Row], order: Mapping[str, int], most: int, *, newest_first: bool) -> list[Row]:
    """Return the first task and those near it, over at most ``most`` ranges that are close in ``order``, because a run
    names its first and last range. ``rows`` has the most wanted task first.

    The window grows in the direction of the backfill first, then in the other one.
    """
    positions = sorted({order[_key(row)] for row in rows})
    first = last = bisect_left(positions, order[_key(rows[0])])
    for grows_down in (newest_first, not newest_first):
        while _reaches(positions, first - grows_down, last + (not grows_down), most):
            first, last = first - grows_down, last + (not grows_down)
    held = set(positions[first : last + 1])
    return sorted((row for row in rows if order[_key(row)] in held), key=lambda row: order[_key(row)])


def _reaches(positions: Sequence[int], first: int, last: int, most: int) -> bool:
    """Return whether a run may hold the ranges from ``first`` to ``last``, given that it may without its outermost."""
    if first < 0 or last >= len(positions) or positions[last] - positions[first] >= most:
        return False
    gaps = (positions[first + 1] - positions[first], positions[last] - positions[last - 1])
    return max(gaps) <= 1 + SKIPPED_AT_ONCE


def _store(session: Session, group: RunGroup, window: list[Row], receipts: Mapping[UUID, list[str]]) -> RunBatch:
    keys = tuple(dict.fromkeys(_key(row) for row in window))
    names = {stream.dataset_uuid: stream.dataset_key for stream in group.streams}
    wanted = tuple(sorted({names[row["dataset_uuid"]] for row in window}))
    tasks = [row["task_id"] for row in window]
    batch = RunBatch(uuid4(), group, keys, wanted)
    session.run(
        "insert_batch",
        batch_id=batch.batch_id,
        job_id=group.streams[0].job_id,
        keys=list(keys),
        tasks=len(tasks),
        receipts=[receipt for task in tasks for receipt in receipts.get(task, ())],
    )
    session.run("assign_batch", batch_id=batch.batch_id, task_ids=tasks)
    return batch


def _key(row: Row) -> str:
    return BlockRange(row["range_start"], row["range_end"]).key
