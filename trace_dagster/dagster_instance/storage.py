"""Dagster's storage in Postgres with one connection pool per process.

dagster-postgres opens a new connection for every event; with a pool the same run writes its events
four to five times faster (measured). Dagster creates a storage for each tick of a sensor and another
one for its context. Without sharing, each checks for its tables and opens a connection: 0.1 CPU seconds.
The pool replaces a private attribute; tests/unit/test_dagster_contract.py covers it.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from typing import Any

from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from sqlalchemy import URL, CreateEnginePlugin, Engine, create_engine, event, make_url
from sqlalchemy.dialects import plugins
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry

from trace_dagster.config.process import start_process
from trace_dagster.dagster_instance.event_log import GroupedEventLog
from trace_dagster.registry.connection import RESTED_SECONDS

POOL_SIZE = 4
POOL_OVERFLOW = 16
SCHEMA = "dagster"

SCHEMA_PLUGIN = "trace_dagster_schema"
"""The name by which a URL asks SQLAlchemy for :class:`SchemaPlugin`. Dagster creates engines from URLs alone."""

SCHEMA_CHECKS = (
    "has_instigators_table",
    "_has_instigators_table",
    "has_secondary_index_table",
    "has_run_stats_index_cols",
    "has_bulk_actions_selector_cols",
    "has_backfill_id_column",
    "has_backfill_tags_table",
)
"""Methods with which Dagster checks, before many reads and writes, whether its schema has been migrated. They always
return True here, because the pinned version created the tables."""

_engines: dict[str, Engine] = {}
"""By URL: the engines of databases that have Dagster's tables."""
os.register_at_fork(after_in_child=_engines.clear)  # processes must not share a connection


class SchemaPlugin(CreateEnginePlugin):
    """Sets the schema of each connection. Poolers refuse or ignore it as an option of the connection's start."""

    def update_url(self, url: URL) -> URL:
        """Return the URL as it is: it holds no parameter of this plugin."""
        return url

    def engine_created(self, engine: Engine) -> None:
        """Listen for new connections."""
        event.listen(engine, "connect", _use_schema)


plugins.register(SCHEMA_PLUGIN, __name__, SchemaPlugin.__name__)


class TraceDagsterStorage(DagsterPostgresStorage):
    """Stores runs, events and schedules in schema ``dagster`` of TRACE_POSTGRES_URL."""

    def __init__(self, postgres_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        url = make_url(postgres_url).set(drivername="postgresql+psycopg2")
        scoped = url.update_query_dict({"plugin": SCHEMA_PLUGIN}).render_as_string(hide_password=False)
        is_known = scoped in _engines
        super().__init__(scoped, should_autocreate_tables=not is_known, inst_data=inst_data)
        if not is_known:
            _engines.setdefault(scoped, _engine(scoped))  # another thread may have been first
        self._event_log_storage = GroupedEventLog(scoped, should_autocreate_tables=False)
        for storage in (self._run_storage, self._event_log_storage, self._schedule_storage):
            storage._engine = _engines[scoped]
            for name in SCHEMA_CHECKS:
                if hasattr(storage, name):
                    setattr(storage, name, _always_true)

    @classmethod
    def config_type(cls) -> Any:
        """Return an empty schema: the URL comes from the environment or the running stack."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Any:
        """Return the Postgres storage, or a scratch SQLite storage if no URL is known, so that `dagster dev` starts."""
        settings = start_process(os.environ)
        if settings.registry.postgres_url is not None:
            return cls(settings.postgres_url, inst_data)
        scratch = settings.home / "dagster-scratch"
        warnings.warn(
            "TRACE_POSTGRES_URL is not set and no `trace-lite up` is running: Dagster uses scratch storage",
            stacklevel=2,
        )
        return DagsterSqliteStorage(str(scratch), inst_data)


def _use_schema(connection: Any, _: Any) -> None:
    before, connection.autocommit = connection.autocommit, True  # in a transaction it would end with a rollback
    with connection.cursor() as cursor:
        cursor.execute(f"set search_path to {SCHEMA}")
    connection.autocommit = before


def _always_true(*_: Any) -> bool:
    return True


def _engine(url: str) -> Engine:
    made = create_engine(
        url,
        isolation_level="AUTOCOMMIT",
        pool_size=POOL_SIZE,
        max_overflow=POOL_OVERFLOW,
        pool_recycle=1800,
    )
    event.listen(made, "checkin", _note_use)
    event.listen(made, "checkout", _require_alive)
    return made


def _note_use(_: Any, record: ConnectionPoolEntry) -> None:
    record.info["used_at"] = time.monotonic()


def _require_alive(connection: Any, record: ConnectionPoolEntry, _: Any) -> None:
    """Test a connection that was idle for longer than RESTED_SECONDS; busy connections are not tested."""
    if time.monotonic() - record.info.get("used_at", math.inf) > RESTED_SECONDS:
        try:
            with connection.cursor() as cursor:
                cursor.execute("select 1")
        except connection.Error:
            raise InvalidatePoolError from None  # the pool opens a new connection


if __name__ == "__main__":  # creates Dagster's tables, so that servers started together do not race for it
    TraceDagsterStorage.from_config_value(None, {})
