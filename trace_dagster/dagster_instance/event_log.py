"""Dagster's event log, written in groups: threads that store events at the same time share transactions.

A range has five events, and dagster-postgres spends one to three transactions on each. Here whoever finds nobody
writing writes for all who wait, as databases commit in groups. An event is stored when
:meth:`GroupedEventLog.store_event` returns, as ever, but for what a step says on the way to its next event: that is
stored before it, at the latest the end of the step. A group that cannot be stored is stored one by one, so that an
event's error is its own thread's.

Dagster's readers remember the highest event number they saw and never look below it. So numbers are given in a
statement that commits itself, as in Dagster's own log: one that waited for an asset's row in the same transaction would
come to light behind higher ones of another process, and a backfill would never learn of it.
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
from dagster_postgres.event_log import PostgresEventLogStorage
from dagster_postgres.utils import DagsterPostgresException
from dagster_shared.record import copy
from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import psycopg2

os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")
"""Dagster looks here whether a log takes events in batches; without it a run's planned partitions come one by one."""

os.environ.setdefault("ASSET_BACKFILL_CURSOR_OFFSET", "1000")
"""How far below the highest number a backfill looks again: numbers of runs at once are not committed in their order."""

_ON_THE_WAY = {DagsterEventType.STEP_OUTPUT, DagsterEventType.HANDLED_OUTPUT}
"""The step's next event is about to follow: nobody waits for these alone."""

_step = threading.local()
"""Of each thread: whether the end of its step is about to follow."""

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
    """As text: SQLAlchemy keeps no compiled form of an upsert, compiling is half of what a check costs."""
    insert = postgresql.insert(table)
    changed = {name: insert.excluded[name] for name in values}
    statement = insert.inline().on_conflict_do_update(index_elements=list(key), set_=changed)
    return str(statement.compile(dialect=psycopg2.dialect(), column_keys=[*key, *values]))


_CHECK_UPSERT = _upsert(AssetCheckExecutionsTable, _CHECK_KEY, _CHECK_VALUES)
_ASSET_UPSERT = _upsert(AssetKeyTable, ["asset_key"], _ASSET_VALUES)


@contextmanager
def on_the_way() -> Iterator[None]:
    """What a thread says of its step inside is followed by the step's end at once: that waits for it, nobody else."""
    _step.is_ending = True
    try:
        yield
    finally:
        _step.is_ending = False


def _is_on_the_way(event: EventLogEntry) -> bool:
    return event.dagster_event_type in _ON_THE_WAY or (event.is_dagster_event and getattr(_step, "is_ending", False))


@dataclass(slots=True, eq=False)
class _Waiting:
    """An event whose thread waits for it."""

    event: EventLogEntry
    before: Sequence[_Waiting] = ()
    """Events of its thread that it must not stand in the log without."""
    stored: bool = False
    """Or failed: nothing is left to do."""
    error: Exception | None = None
    number: int = 0
    """In the log, once it stands there."""
    text: str = ""
    """As it stands there: serialized once."""

    @property
    def lost(self) -> Exception | None:
        """Why one of those before it could not be stored."""
        return next((each.error for each in self.before if each.error is not None), None)


class GroupedEventLog(PostgresEventLogStorage):
    """The same rows in the same tables, in fewer transactions. Thread-safe."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._waiting: list[_Waiting] = []
        self._unsettled: dict[int, list[_Waiting]] = {}
        """By thread: events it went on from."""
        self._queueing = threading.Lock()
        self._writing = threading.Lock()
        self._writer: int | None = None

    def store_event(self, event: EventLogEntry) -> None:
        """Store one event; raises what the database raises for it, or for those of the thread on the way here."""
        if _is_on_the_way(event):
            waiting = _Waiting(event)
            with self._queueing:
                self._waiting.append(waiting)
                self._unsettled.setdefault(threading.get_ident(), []).append(waiting)
            return
        # what is said between two events is no place to raise: Dagster swallows it there
        before = self._unsettled.pop(threading.get_ident(), []) if event.is_dagster_event else []
        again = [_Waiting(each.event) for each in before if each.error is not None]
        before = [each for each in before if each.error is None]
        self._store([*again, _Waiting(event, [*again, *before])], before)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store what Dagster brings at once, such as the planned partitions of a run; raises one event's error."""
        self._store([_Waiting(event) for event in events])

    def _store(self, mine: Sequence[_Waiting], before: Sequence[_Waiting] = ()) -> None:
        """Wait for these, and for those that wait already; raises one's error."""
        with self._queueing:
            self._waiting += mine
        if self._writer == threading.get_ident():
            return  # what writing itself logs, where Dagster captures logs: it goes with the next group
        with self._writing:
            if not all(waiting.stored for waiting in mine):
                self._store_waiting()
        for waiting in (*before, *mine):
            if waiting.error is not None:
                raise waiting.error

    def _store_asset_check_evaluation_planned(self, event: EventLogEntry, event_id: int | None) -> None:
        """As Dagster's own, but the event in each partition's row does not list the partitions of all other rows.

        With a thousand of them in a run that was 29 MB to write, and to replace, for each run.
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
            self._store_together([each for each in group if not (_stands_alone(each.event) or each.lost)])
            alone = super().store_event
            _each([waiting for waiting in group if not waiting.stored], lambda waiting: alone(waiting.event))
        finally:  # a thread that is told to stop must not take the others' events with it
            self._writer = None
            with self._queueing:
                self._waiting = [waiting for waiting in group if not waiting.stored] + self._waiting

    def _store_together(self, group: Sequence[_Waiting]) -> None:
        """Store all of them or none; then what is known of their assets and checks."""
        self._number([waiting for waiting in group if not waiting.number])
        numbered = [waiting for waiting in group if waiting.number]
        telling = [waiting for waiting in numbered if _tells(waiting.event)]
        if telling and not self._noted(telling):
            _each(telling, self._note_alone)
        for waiting in numbered:
            waiting.stored = True

    def _number(self, group: Sequence[_Waiting]) -> None:
        """Put them into the log if one statement can store them all, otherwise none."""
        if not group:
            return
        insert = SqlEventLogStorageTable.insert().returning(SqlEventLogStorageTable.c.id, sort_by_parameter_order=True)
        try:
            rows = [self._event_to_row(waiting.event) for waiting in group]
            with self._engine.connect() as conn:  # commits each statement
                found = conn.execute(insert, rows, execution_options={"insertmanyvalues_page_size": len(rows)})
                numbers = [int(row[0]) for row in found]
        except Exception:  # also what the driver cannot encode, a ValueError: told to the thread it belongs to
            return
        for waiting, number, row in zip(group, numbers, rows, strict=True):
            waiting.number, waiting.text = number, row["event"]

    def _noted(self, group: Sequence[_Waiting]) -> bool:
        """Whether one transaction could note them all; nothing is noted where it could not."""
        try:
            with self.index_transaction() as conn:
                self._note_assets(conn, [each for each in group if each.event.dagster_event_type in ASSET_EVENTS])
                self._note_checks(conn, [each for each in group if _is_of_partition(each.event)])
        except Exception:  # a deadlock with another writer, a tag that cannot be encoded
            return False
        return True

    def _note_alone(self, waiting: _Waiting) -> None:
        """What Dagster's own ``store_event`` does after its insert."""
        if waiting.event.dagster_event_type in ASSET_EVENTS:
            with self.index_transaction() as conn:
                self._note_assets(conn, [waiting])
        else:
            self.store_asset_check_event(waiting.event, waiting.number)

    def _note_assets(self, conn: Connection, group: Sequence[_Waiting]) -> None:
        """Tags of each event, and each asset's last event of each kind; assets in one order, against deadlocks."""
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
        """The last evaluation of each partition; in one order, against deadlocks."""
        found = [_check_row(waiting, self._event_insert_timestamp(waiting.event)) for waiting in group]
        rows = {tuple(row[name] for name in _CHECK_KEY): row for row in found}
        if rows:
            conn.exec_driver_sql(_CHECK_UPSERT, [rows[key] for key in sorted(rows)])


def _each(group: Sequence[_Waiting], store: Callable[[_Waiting], None]) -> None:
    """Store one by one; once Postgres cannot be reached, tried for seconds, the rest have that error untried."""
    unreachable: Exception | None = None
    for waiting in group:
        waiting.error = waiting.lost or unreachable
        try:
            if waiting.error is None:
                store(waiting)
        except DagsterPostgresException as error:
            waiting.error = unreachable = error
        except Exception as error:
            waiting.error = error
        waiting.stored = True


def _tells(event: EventLogEntry) -> bool:
    """Whether there is more to write of an event than itself."""
    return event.dagster_event_type in ASSET_EVENTS or _is_of_partition(event)


def _stands_alone(event: EventLogEntry) -> bool:
    """Check events without a partition have no unique key to be written by; planned ones are a row per partition."""
    return event.dagster_event_type in ASSET_CHECK_EVENTS and not _is_of_partition(event)


def _is_of_partition(event: EventLogEntry) -> bool:
    """Whether the event is a run's evaluation of one partition: those have a unique key."""
    if event.dagster_event_type is not DagsterEventType.ASSET_CHECK_EVALUATION or not event.run_id:
        return False
    return _evaluation(event).partition is not None


def _evaluation(event: EventLogEntry) -> AssetCheckEvaluation:
    found = event.get_dagster_event().event_specific_data
    assert isinstance(found, AssetCheckEvaluation)
    return found


def _asset_row(waiting: _Waiting) -> dict[str, Any]:
    """As dagster's own ``_get_asset_entry_values`` makes it, without serializing the event once more."""
    record = f'{{"__class__": "EventLogRecord", "event_log_entry": {waiting.text}, "storage_id": {waiting.number}}}'
    return {
        "asset_key": waiting.event.get_dagster_event().asset_key.to_string(),  # type: ignore[union-attr]
        "last_materialization": record,
        "last_run_id": waiting.event.run_id,
        "last_materialization_timestamp": datetime_from_timestamp(waiting.event.timestamp),
    }


def _check_row(waiting: _Waiting, timestamp: Any) -> dict[str, Any]:
    """As dagster's own ``_update_asset_check_evaluation`` writes it."""
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
