"""Dagster's event log with group commit: threads that store events at the same time share transactions.

A range has five events, and dagster-postgres uses one to three transactions for each. Here the first thread that finds
no other thread writing stores the events of all waiting threads. When :meth:`GroupedEventLog.store_event` returns, the
event is stored. The exceptions are events that the same step follows with another event at once: they are stored before
that event, at the latest with the end of the step. If a group cannot be stored, its events are stored one by one, so
that an error is raised only in the thread whose event caused it.

Dagster's readers remember the highest event number they saw and never read below it. Therefore the insert that assigns
numbers commits by itself, as in Dagster's own log. If it waited for an asset's row in the same transaction, its numbers
could become visible after higher numbers of another process, and a backfill would miss these events.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dagster import AssetCheckEvaluation, DagsterEventType, EventLogEntry
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, AssetKeyTable, SqlEventLogStorageTable
from dagster._serdes import serialize_value
from dagster._time import datetime_from_timestamp
from dagster_postgres.utils import DagsterPostgresException
from dagster_shared.record import copy
from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import psycopg2

from trace_dagster.dagster_instance.partition_keys import BlockOrderedKeys

os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")
"""Dagster reads this to decide if it stores events in batches. Without it, each planned partition is stored alone."""

os.environ.setdefault("ASSET_BACKFILL_CURSOR_OFFSET", "1000")
"""How far below the highest number a backfill reads again: concurrent runs do not commit in the order of numbers."""

_FOLLOWED_BY_ANOTHER = {DagsterEventType.STEP_OUTPUT, DagsterEventType.HANDLED_OUTPUT}
"""Another event of the step follows these at once, so no thread waits for them alone."""

_step = threading.local()
"""``is_ending`` of each thread: whether the end of its step follows at once."""

_CHECK_KEY = ("asset_key", "check_name", "run_id", "partition")
"""The columns of the unique index over check executions."""

_CHECK_VALUES = (
    "execution_status",
    "evaluation_event",
    "evaluation_event_timestamp",
    "evaluation_event_storage_id",
    "materialization_event_storage_id",
)


_ASSET_VALUES = ("last_materialization", "last_run_id", "last_materialization_timestamp")


def _upsert(table: Table, key: Sequence[str], values: Sequence[str]) -> str:
    """Return the upsert as SQL text: SQLAlchemy caches no compiled upserts, and compiling is half of a check's cost."""
    insert = postgresql.insert(table)
    changed = {name: insert.excluded[name] for name in values}
    statement = insert.inline().on_conflict_do_update(index_elements=list(key), set_=changed)
    return str(statement.compile(dialect=psycopg2.dialect(), column_keys=[*key, *values]))


_CHECK_UPSERT = _upsert(AssetCheckExecutionsTable, _CHECK_KEY, _CHECK_VALUES)
_ASSET_UPSERT = _upsert(AssetKeyTable, ["asset_key"], _ASSET_VALUES)


@contextmanager
def step_end_follows() -> Iterator[None]:
    """Store events of the block together with the end of this thread's step, which must follow at once."""
    _step.is_ending = True
    try:
        yield
    finally:
        _step.is_ending = False


def _is_followed(event: EventLogEntry) -> bool:
    return event.dagster_event_type in _FOLLOWED_BY_ANOTHER or (
        event.is_dagster_event and getattr(_step, "is_ending", False)
    )


@dataclass(slots=True, eq=False)
class _Waiting:
    """An event that waits to be stored."""

    event: EventLogEntry
    before: Sequence[_Waiting] = ()
    """Earlier events of the thread. This event is not stored unless they are."""
    stored: bool = False
    """Whether the event is stored or has failed: ``error`` says which."""
    error: Exception | None = None
    number: int = 0
    """The event's id in the log, or 0 before it is inserted."""
    text: str = ""
    """The serialized event as inserted, kept so that it is serialized a single time."""

    @property
    def earlier_error(self) -> Exception | None:
        """The error of an earlier event of the thread that could not be stored, or None."""
        return next((each.error for each in self.before if each.error is not None), None)


class GroupedEventLog(BlockOrderedKeys):
    """Writes the same rows as Dagster's own event log, in fewer transactions. Thread-safe."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._waiting: list[_Waiting] = []
        self._unsettled: dict[int, list[_Waiting]] = {}
        """By thread id: events that the thread did not wait for."""
        self._queueing = threading.Lock()
        self._writing = threading.Lock()
        self._writer: int | None = None

    def store_event(self, event: EventLogEntry) -> None:
        """Store one event.

        An event that another one always follows is only queued. Raises the database's error for this event, or for an
        earlier event that this thread queued.
        """
        if _is_followed(event):
            waiting = _Waiting(event)
            with self._queueing:
                self._waiting.append(waiting)
                self._unsettled.setdefault(threading.get_ident(), []).append(waiting)
            return
        # a plain log message must not raise the error of an earlier event: Dagster swallows errors there
        before = self._unsettled.pop(threading.get_ident(), []) if event.is_dagster_event else []
        again = [_Waiting(each.event) for each in before if each.error is not None]
        before = [each for each in before if each.error is None]
        self._store([*again, _Waiting(event, [*again, *before])], before)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events passed together, such as a run's planned partitions. Raises the error of one of them."""
        self._store([_Waiting(event) for event in events])

    def _store(self, mine: Sequence[_Waiting], before: Sequence[_Waiting] = ()) -> None:
        """Store ``mine`` together with all other waiting events.

        ``before`` are events that this thread queued earlier. Raises the first error of one of ``before`` or ``mine``.
        """
        with self._queueing:
            self._waiting += mine
        if self._writer == threading.get_ident():
            return  # a log message of the write itself, captured by Dagster: stored with the next group
        with self._writing:
            if not all(waiting.stored for waiting in mine):
                self._store_waiting()
        for waiting in (*before, *mine):
            if waiting.error is not None:
                raise waiting.error

    def _store_asset_check_evaluation_planned(self, event: EventLogEntry, event_id: int | None) -> None:
        """Store the planned checks like Dagster, but without a list of all other partitions in each partition's row.

        With 1,000 partitions in a run, these lists were 29 MB to write, and later to replace, per run.
        """
        planned = event.get_dagster_event().event_specific_data
        assert isinstance(planned, AssetCheckEvaluationPlanned)
        if not planned.partitions_subset:
            super()._store_asset_check_evaluation_planned(event, event_id)
            return
        bare = event.get_dagster_event()._replace(event_specific_data=copy(planned, partitions_subset=None))
        row = {
            "asset_key": planned.asset_key.to_string(),
            "check_name": planned.check_name,
            "run_id": event.run_id,
            "execution_status": AssetCheckExecutionRecordStatus.PLANNED.value,
            "evaluation_event": serialize_value(event._replace(dagster_event=bare)),
            "evaluation_event_timestamp": self._event_insert_timestamp(event),
            "evaluation_event_storage_id": event_id,
        }
        rows = [{**row, "partition": key} for key in planned.partitions_subset.get_partition_keys()]
        with self.index_connection() as conn:
            conn.execute(AssetCheckExecutionsTable.insert(), rows)

    def _store_waiting(self) -> None:
        group: list[_Waiting] = []
        try:
            self._writer = threading.get_ident()
            with self._queueing:
                group, self._waiting = self._waiting, []
            self._store_together([each for each in group if not (_stands_alone(each.event) or each.earlier_error)])
            alone = super().store_event
            _each([waiting for waiting in group if not waiting.stored], lambda waiting: alone(waiting.event))
        finally:  # if this thread is interrupted, the events of other threads must stay queued
            self._writer = None
            with self._queueing:
                self._waiting = [waiting for waiting in group if not waiting.stored] + self._waiting

    def _store_together(self, group: Sequence[_Waiting]) -> None:
        """Insert all events or none, then update the rows of their assets and checks."""
        self._number([waiting for waiting in group if not waiting.number])
        numbered = [waiting for waiting in group if waiting.number]
        with_details = [waiting for waiting in numbered if _has_details(waiting.event)]
        if with_details and not self._noted(with_details):
            _each(with_details, self._note_alone)
        for waiting in numbered:
            waiting.stored = True

    def _number(self, group: Sequence[_Waiting]) -> None:
        """Insert all events with one statement and set ``number``, the row id, of each. If it fails, insert none."""
        if not group:
            return
        insert = SqlEventLogStorageTable.insert().returning(SqlEventLogStorageTable.c.id, sort_by_parameter_order=True)
        try:
            rows = [self._event_to_row(waiting.event) for waiting in group]
            with self._engine.connect() as conn:  # commits each statement
                found = conn.execute(insert, rows, execution_options={"insertmanyvalues_page_size": len(rows)})
                numbers = [int(row[0]) for row in found]
        except (
            Exception
        ):  # includes ValueError of the driver for text it cannot encode; the single insert raises it again
            return
        for waiting, number, row in zip(group, numbers, rows, strict=True):
            waiting.number, waiting.text = number, row["event"]

    def _noted(self, group: Sequence[_Waiting]) -> bool:
        """Update assets and checks in one transaction. Return False, with nothing updated, if it fails."""
        try:
            with self.index_transaction() as conn:
                self._note_assets(conn, [each for each in group if each.event.dagster_event_type in ASSET_EVENTS])
                self._note_checks(conn, [each for each in group if _is_of_partition(each.event)])
        except Exception:  # a deadlock with another writer, a tag that cannot be encoded
            return False
        return True

    def _note_alone(self, waiting: _Waiting) -> None:
        """Update the asset or check of one event, as Dagster's own ``store_event`` does after its insert."""
        if waiting.event.dagster_event_type in ASSET_EVENTS:
            with self.index_transaction() as conn:
                self._note_assets(conn, [waiting])
        else:
            self.store_asset_check_event(waiting.event, waiting.number)

    def _note_assets(self, conn: Connection, group: Sequence[_Waiting]) -> None:
        """Store each event's tags and the last event of each kind per asset. Sorted by asset against deadlocks."""
        self._store_asset_event_tags(conn, [each.event for each in group], [each.number for each in group])
        last = {
            (each.event.get_dagster_event().asset_key.to_string(), each.event.dagster_event_type.value): each  # type: ignore[union-attr]
            for each in group
            if each.event.get_dagster_event().asset_key
        }
        for key in sorted(last):
            if last[key].event.dagster_event_type is DagsterEventType.ASSET_MATERIALIZATION:
                conn.exec_driver_sql(_ASSET_UPSERT, _asset_row(last[key]))
            else:
                self._store_asset_event(conn, last[key].event, last[key].number)

    def _note_checks(self, conn: Connection, group: Sequence[_Waiting]) -> None:
        """Store the last evaluation of each partition. Sorted by key to avoid deadlocks."""
        found = [_check_row(waiting, self._event_insert_timestamp(waiting.event)) for waiting in group]
        rows = {tuple(row[name] for name in _CHECK_KEY): row for row in found}
        if rows:
            conn.exec_driver_sql(_CHECK_UPSERT, [rows[key] for key in sorted(rows)])


def _each(group: Sequence[_Waiting], store: Callable[[_Waiting], None]) -> None:
    """Call ``store`` for each event. After Postgres was unreachable for one, set its error on the rest."""
    unreachable: Exception | None = None
    for waiting in group:
        waiting.error = waiting.earlier_error or unreachable
        try:
            if waiting.error is None:
                store(waiting)
        except DagsterPostgresException as error:
            waiting.error = unreachable = error
        except Exception as error:
            waiting.error = error
        waiting.stored = True


def _has_details(event: EventLogEntry) -> bool:
    """Return whether the event also changes rows of assets or checks."""
    return event.dagster_event_type in ASSET_EVENTS or _is_of_partition(event)


def _stands_alone(event: EventLogEntry) -> bool:
    """Return whether the event is stored alone: a check without partition (no unique key) or a planned one."""
    return event.dagster_event_type in ASSET_CHECK_EVENTS and not _is_of_partition(event)


def _is_of_partition(event: EventLogEntry) -> bool:
    """Return whether the event is a run's check evaluation of one partition, which has a unique key."""
    if event.dagster_event_type is not DagsterEventType.ASSET_CHECK_EVALUATION or not event.run_id:
        return False
    return _evaluation(event).partition is not None


def _evaluation(event: EventLogEntry) -> AssetCheckEvaluation:
    found = event.get_dagster_event().event_specific_data
    assert isinstance(found, AssetCheckEvaluation)
    return found


def _asset_row(waiting: _Waiting) -> dict[str, Any]:
    """Return the row of Dagster's ``_get_asset_entry_values`` without serializing the event a second time."""
    record = f'{{"__class__": "EventLogRecord", "event_log_entry": {waiting.text}, "storage_id": {waiting.number}}}'
    return {
        "asset_key": waiting.event.get_dagster_event().asset_key.to_string(),  # type: ignore[union-attr]
        "last_materialization": record,
        "last_run_id": waiting.event.run_id,
        "last_materialization_timestamp": datetime_from_timestamp(waiting.event.timestamp),
    }


def _check_row(waiting: _Waiting, timestamp: Any) -> dict[str, Any]:
    """Return the row that Dagster's ``_update_asset_check_evaluation`` writes."""
    evaluation = _evaluation(waiting.event)
    status = AssetCheckExecutionRecordStatus.SUCCEEDED if evaluation.passed else AssetCheckExecutionRecordStatus.FAILED
    target = evaluation.target_materialization_data
    return {
        "asset_key": evaluation.asset_key.to_string(),
        "check_name": evaluation.check_name,
        "run_id": waiting.event.run_id,
        "partition": evaluation.partition,
        "execution_status": status.value,
        "evaluation_event": waiting.text,
        "evaluation_event_timestamp": timestamp,
        "evaluation_event_storage_id": waiting.number,
        "materialization_event_storage_id": target.storage_id if target else None,
    }
