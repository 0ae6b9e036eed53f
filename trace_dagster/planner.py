"""The planner: which ranges exist (ledger) and which of them the next runs carry (batches).

Every tick is bounded and idempotent; any number of planners may tick at once, one of them works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from uuid import UUID, uuid4

from trace_dagster.blocks import BlockRange, cells, holes
from trace_dagster.errors import TraceError
from trace_dagster.identity import task_id
from trace_dagster.lanes import Lane, lanes
from trace_dagster.registry.connection import Database, Row, Session
from trace_dagster.registry.jobs import Jobs, StreamRow, follow

RANGES_PER_RUN = 256
QUEUED_AHEAD_PER_STREAM = 2048
TASKS_PER_TICK = 4096
BATCHES_PER_TICK = 4

ReadHead = Callable[[StreamRow], tuple[int, int]]
"""Asks a stream's pool for (latest, finalized) block numbers."""


Register = Callable[[Lane, Sequence[str]], Mapping[str, int]]
"""Makes partition keys known to Dagster and returns the position of every key of the lane."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Ranges for one run; ``keys`` are partition keys, neighbours in the order of their lane."""

    batch_id: UUID
    lane: Lane
    keys: tuple[str, ...]
    dataset_keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Head:
    """The chain as one pool last showed it; ages in seconds by the database's clock."""

    latest: int
    finalized: int
    age_seconds: float
    unchanged_seconds: float


class Planner:
    """Fills the ledger and groups queued tasks into batches."""

    def __init__(self, database: Database, jobs: Jobs, read_head: ReadHead) -> None:
        self._database = database
        self._jobs = jobs
        self._read_head = read_head

    def plan(self) -> None:
        """Observe heads and top up every enabled stream's ledger; one stream's error stops no other."""
        for stream in self._jobs.streams():
            if stream.enabled and stream.job_enabled and not _finished(stream):
                self._plan_stream(stream)

    def observe(self, stream: StreamRow) -> Head:
        """Read a stream's head from its pool and remember it. Raises TraceError when the pool fails."""
        latest, finalized = self._read_head(stream)
        with self._database.transaction() as session:
            pool = {"chain_id": stream.chain_id, "rpc_pool": stream.rpc_pool}
            session.run("observe_head", **pool, latest=latest, finalized=finalized)
            row = session.one("observed_head", **pool)
        assert row is not None
        return Head(**row)

    def batches(self, register: Register, run_is_over: Callable[[UUID], bool]) -> list[Batch]:
        """Close batches whose run has ended and cut new ones from what is queued."""
        self._close_finished(run_is_over)
        found: list[Batch] = []
        for lane in lanes(self._jobs.streams()):
            with self._database.transaction() as session:
                if _planner_lock(session):
                    found.extend(islice(_cut(session, lane, register), BATCHES_PER_TICK))
        return found

    def open_batches(self) -> list[Row]:
        """Batches whose runs are not known to be over."""
        with self._database.transaction() as session:
            return session.all("open_batches", grace_seconds=60)

    def _plan_stream(self, stream: StreamRow) -> None:
        try:
            head = self.observe(stream)
        except TraceError as error:
            self._advance(stream, stream.eligible_end or stream.from_block, blocked=error.message)
            return
        eligible_end = eligible(stream, head)
        blocked = _waiting(stream, head, eligible_end)
        with self._database.transaction() as session:
            if not _planner_lock(session):
                return
            cursor = _top_up(session, stream, eligible_end)
            session.run(
                "advance_stream",
                dataset_uuid=stream.dataset_uuid,
                next_block=cursor,
                eligible_end=eligible_end,
                blocked_reason=blocked,
            )

    def _advance(self, stream: StreamRow, eligible_end: int, *, blocked: str) -> None:
        with self._database.transaction() as session:
            session.run(
                "advance_stream",
                dataset_uuid=stream.dataset_uuid,
                next_block=stream.next_block,
                eligible_end=eligible_end,
                blocked_reason=blocked,
            )

    def _close_finished(self, run_is_over: Callable[[UUID], bool]) -> None:
        for row in self.open_batches():
            if run_is_over(row["batch_id"]):
                with self._database.transaction() as session:
                    session.run("close_batch", batch_id=row["batch_id"])


def eligible(stream: StreamRow, head: Head) -> int:
    """The end of what may be planned: wanted, lagged, and final."""
    final_end = head.finalized + 1
    following = follow(stream.job)
    if following is None:
        return min(stream.to_block or 0, final_end)
    lagged = head.latest + 1 - following.tail_lag
    return max(stream.from_block, min(lagged, final_end))


def _waiting(stream: StreamRow, head: Head, eligible_end: int) -> str | None:
    if stream.to_block is not None and eligible_end < stream.to_block:
        return f"waiting for block {stream.to_block - 1}: the chain is final up to block {head.finalized}"
    return None


def _finished(stream: StreamRow) -> bool:
    return stream.to_block is not None and stream.next_block >= stream.to_block and stream.blocked_reason is None


def _top_up(session: Session, stream: StreamRow, eligible_end: int) -> int:
    """Insert tasks from the cursor on, as far as the look-ahead allows; returns the new cursor."""
    queued = session.one("queued_count", dataset_uuid=stream.dataset_uuid)
    room = QUEUED_AHEAD_PER_STREAM - int(queued["queued"] if queued else 0)
    if stream.next_block >= eligible_end or room <= 0:
        return stream.next_block
    wanted = BlockRange(stream.next_block, eligible_end)
    taken = [
        BlockRange(row["range_start"], row["range_end"])
        for row in session.all(
            "active_ranges", dataset_uuid=stream.dataset_uuid, range_start=wanted.start, range_end=wanted.end
        )
    ]
    planned = list(islice(_plannable(stream, wanted, taken), room + 1))
    session.many(
        "insert_task",
        [
            {
                "task_id": task_id(stream.job_id, stream.dataset_key, piece),
                "dataset_uuid": stream.dataset_uuid,
                "range_start": piece.start,
                "range_end": piece.end,
                "config_hash": stream.config_hash,
            }
            for piece in planned[:room]
        ],
    )
    if len(planned) > room:
        return planned[room].start
    return _open_tip(stream, eligible_end)


def _plannable(stream: StreamRow, wanted: BlockRange, taken: Iterable[BlockRange]) -> Iterator[BlockRange]:
    last_full = _open_tip(stream, wanted.end)
    for gap in holes(wanted, taken):
        for cell in cells(gap, stream.chunk_size):
            if cell.end <= last_full:
                yield cell


def _open_tip(stream: StreamRow, eligible_end: int) -> int:
    """Where full cells end: a cell cut short by the tip waits until it is full."""
    if stream.to_block is not None and eligible_end >= stream.to_block:
        return eligible_end
    return max(stream.next_block, eligible_end // stream.chunk_size * stream.chunk_size)


def _planner_lock(session: Session) -> bool:
    row = session.one("try_planner_lock")
    return bool(row and row["locked"])


def _cut(session: Session, lane: Lane, register: Register) -> Iterator[Batch]:
    datasets = [stream.dataset_uuid for stream in lane.streams]
    rows = session.all("launchable_tasks", dataset_uuids=datasets, limit=TASKS_PER_TICK)
    if rows:
        order = register(lane, sorted({_key(row) for row in rows}))
        for window in _windows(rows, order):
            yield _store(session, lane, window)


def _windows(rows: list[Row], order: Mapping[str, int]) -> Iterator[list[Row]]:
    """Tasks over at most RANGES_PER_RUN ranges that are neighbours in ``order``: a run names first and last."""
    window: list[Row] = []
    first = last = -1
    for row in sorted(rows, key=lambda row: order[_key(row)]):
        position = order[_key(row)]
        if window and (position > last + 1 or position - first >= RANGES_PER_RUN):
            yield window
            window = []
        if not window:
            first = position
        window.append(row)
        last = position
    if window:
        yield window


def _store(session: Session, lane: Lane, window: list[Row]) -> Batch:
    keys = tuple(dict.fromkeys(_key(row) for row in window))
    names = {stream.dataset_uuid: stream.dataset_key for stream in lane.streams}
    wanted = tuple(sorted({names[row["dataset_uuid"]] for row in window}))
    batch = Batch(uuid4(), lane, keys, wanted)
    session.run("insert_batch", batch_id=batch.batch_id, job_id=lane.streams[0].job_id, keys=list(keys))
    session.run("assign_batch", batch_id=batch.batch_id, task_ids=[row["task_id"] for row in window])
    return batch


def _key(row: Row) -> str:
    return BlockRange(row["range_start"], row["range_end"]).key
