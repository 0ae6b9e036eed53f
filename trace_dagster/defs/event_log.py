"""Dagster's event log, written in groups: threads that store events at the same time share one transaction.

A range has about a dozen events, and dagster-postgres spends one to three transactions on each. Here whoever finds
nobody writing writes for all who wait, as databases commit in groups. An event is stored when
:meth:`GroupedEventLog.store_event` returns, as ever; a group that cannot be stored is stored one by one, so that
an event's error is its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dagster import AssetCheckEvaluation, DagsterEventType, EventLogEntry
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, SqlEventLogStorageTable
from dagster._serdes import serialize_value
from dagster_postgres.event_log import PostgresEventLogStorage
from dagster_shared.record import copy
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import psycopg2

os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")
"""Dagster looks here whether a log takes events in batches; without it a run's planned partitions come one by one."""

_CHECK_KEY = ("asset_key", "check_name", "run_id", "partition")
"""The columns of the unique index over check executions."""

_CHECK_VALUES = (
    "execution_status",
    "evaluation_event",
    "evaluation_event_timestamp",
    "evaluation_event_storage_id",
    "materialization_event_storage_id",
)


def _check_upsert() -> str:
    """As text: SQLAlchemy keeps no compiled form of an upsert, compiling is half of what a check costs."""
    insert = postgresql.insert(AssetCheckExecutionsTable)
    changed = {name: insert.excluded[name] for name in _CHECK_VALUES}
    statement = insert.inline().on_conflict_do_update(index_elements=list(_CHECK_KEY), set_=changed)
    return str(statement.compile(dialect=psycopg2.dialect(), column_keys=[*_CHECK_KEY, *_CHECK_VALUES]))


_CHECK_UPSERT = _check_upsert()


@dataclass(slots=True, eq=False)
class _Waiting:
    """An event whose thread waits for it."""

    event: EventLogEntry
    stored: bool = False
    error: Exception | None = None


class GroupedEventLog(PostgresEventLogStorage):
    """The same rows in the same tables, in fewer transactions. Thread-safe."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._waiting: list[_Waiting] = []
        self._queueing = threading.Lock()
        self._writing = threading.Lock()

    def store_event(self, event: EventLogEntry) -> None:
        """Store one event; raises what the database raises for it."""
        self.store_event_batch([event])

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store what Dagster brings at once, such as the planned partitions of a run; raises one event's error."""
        mine = [_Waiting(event) for event in events]
        with self._queueing:
            self._waiting += mine
        with self._writing:
            if not all(waiting.stored for waiting in mine):
                self._store_waiting()
        for waiting in mine:
            if waiting.error is not None:
                raise waiting.error

    def _store_asset_check_evaluation_planned(self, event: EventLogEntry, event_id: int | None) -> None:
        """As Dagster's own, but the event in each partition's row does not list the partitions of all other rows.

        With a thousand of them in a run that was 29 MB to write, and to replace, for each run.
        """
        planned = event.get_dagster_event().event_specific_data
        assert isinstance(planned, AssetCheckEvaluationPlanned)
        if planned.partitions_subset is None:
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
        with self._queueing:
            group, self._waiting = self._waiting, []
        try:
            sharing = [waiting for waiting in group if not _stands_alone(waiting.event)]
            if len(sharing) > 1 and self._stored_together([waiting.event for waiting in sharing]):
                for waiting in sharing:
                    waiting.stored = True
            for waiting in group:
                if not waiting.stored:
                    waiting.error = self._store_alone(waiting.event)
                    waiting.stored = True
        finally:  # a thread that is told to stop must not take the others' events with it
            with self._queueing:
                self._waiting = [waiting for waiting in group if not waiting.stored] + self._waiting

    def _store_alone(self, event: EventLogEntry) -> Exception | None:
        try:
            super().store_event(event)
        except Exception as error:
            return error
        return None

    def _stored_together(self, events: Sequence[EventLogEntry]) -> bool:
        """Whether one transaction could store them all; nothing is stored where it could not."""
        insert = SqlEventLogStorageTable.insert().returning(SqlEventLogStorageTable.c.id, sort_by_parameter_order=True)
        try:
            with self._engine.connect().execution_options(isolation_level="READ COMMITTED") as conn, conn.begin():
                rows = [self._event_to_row(event) for event in events]
                ids = [int(row[0]) for row in conn.execute(insert, rows)]
                stored = list(zip(events, ids, rows, strict=True))
                self._note_assets(conn, [each[:2] for each in stored if each[0].dagster_event_type in ASSET_EVENTS])
                checks = [each for each in stored if _is_of_partition(each[0])]
                self._note_checks(conn, [_check_row(self, event, id_, row["event"]) for event, id_, row in checks])
        except Exception:  # also what the driver cannot encode, a ValueError: told to the thread it belongs to
            return False
        return True

    def _note_assets(self, conn: Connection, numbered: Sequence[tuple[EventLogEntry, int]]) -> None:
        """Tags of each event, and each asset's last event of each kind; assets in one order, against deadlocks."""
        self._store_asset_event_tags(conn, [event for event, _ in numbered], [identity for _, identity in numbered])
        last = {
            (event.get_dagster_event().asset_key.to_string(), event.dagster_event_type.value): (event, identity)  # type: ignore[union-attr]
            for event, identity in numbered
            if event.get_dagster_event().asset_key
        }
        for key in sorted(last):
            self._store_asset_event(conn, *last[key])

    @staticmethod
    def _note_checks(conn: Connection, found: Sequence[dict[str, Any]]) -> None:
        """The last evaluation of each partition; in one order, against deadlocks."""
        rows = {tuple(row[name] for name in _CHECK_KEY): row for row in found}
        if rows:
            conn.exec_driver_sql(_CHECK_UPSERT, [rows[key] for key in sorted(rows)])


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


def _check_row(log: PostgresEventLogStorage, event: EventLogEntry, identity: int, text: str) -> dict[str, Any]:
    """As dagster's own ``_update_asset_check_evaluation`` writes it; ``text`` is the event as it was stored."""
    evaluation = _evaluation(event)
    status = AssetCheckExecutionRecordStatus.SUCCEEDED if evaluation.passed else AssetCheckExecutionRecordStatus.FAILED
    target = evaluation.target_materialization_data
    return {
        "asset_key": evaluation.asset_key.to_string(),
        "check_name": evaluation.check_name,
        "run_id": event.run_id,
        "partition": evaluation.partition,
        "execution_status": status.value,
        "evaluation_event": text,
        "evaluation_event_timestamp": log._event_insert_timestamp(event),
        "evaluation_event_storage_id": identity,
        "materialization_event_storage_id": target.storage_id if target else None,
    }
