"""Faults at a numbered point: every statement, every start and end of a commit, every store and engine call is a point.

A first turn without faults counts the points; then a fault is injected at each point, in each way.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import psycopg

from trace_dagster.engine.fake import FakeCryo
from trace_dagster.errors import Unavailable
from trace_dagster.registry import connection
from trace_dagster.store import objects

_STORE_CALLS = ("put_if_absent", "replace", "get", "read", "delete")
_SQL_CALLS = ("run", "one", "all", "many")


class Tripwire:
    """Counts points and injects a fault at one of them: ``how`` is ``raise`` or ``kill``."""

    def __init__(self, at: int | None = None, how: str = "raise") -> None:
        self.passed: list[str] = []
        self._at = at
        self._how = how
        self._armed = True
        self._lock = threading.Lock()

    def point(self, name: str, error: type[Exception]) -> None:
        """Count one point, and inject the fault if it is the chosen one."""
        with self._lock:
            if not self._armed:
                return
            number = len(self.passed)
            self.passed.append(name)
            if number != self._at:
                return
            self._armed = False  # the code that handles the error works without faults: one fault at a time
        if self._how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise error(f"injected at point {number}: {name}")

    @contextmanager
    def strung(self) -> Iterator[None]:
        """Make every call of a collaborator inside the block a point."""
        with _all(
            [patch.object(connection.Session, name, self._sql(name)) for name in _SQL_CALLS]
            + [patch.object(connection.Database, "transaction", self._transaction())]
            + [
                patch.object(objects.ObjectStore, name, self._around(objects.ObjectStore, name))
                for name in _STORE_CALLS
            ]
            + [patch.object(objects.Upload, "finish", self._around(objects.Upload, "finish"))]
            + [patch.object(FakeCryo, "extract", self._extract())]
        ):
            yield

    def _sql(self, name: str) -> Any:
        real = getattr(connection.Session, name)

        def call(session: Any, statement: str, *args: Any, **values: Any) -> Any:
            self.point(f"before sql {statement}", psycopg.OperationalError)
            return real(session, statement, *args, **values)

        return call

    def _transaction(self) -> Any:
        real = connection.Database.transaction

        @contextmanager
        def transaction(database: Any) -> Iterator[Any]:
            with connection.mapped_errors():
                with real(database) as session:
                    yield session
                    self.point("before commit", psycopg.OperationalError)
                self.point("after commit", psycopg.OperationalError)

        return transaction

    def _around(self, owner: type, name: str) -> Any:
        real = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.point(f"before {name}", Unavailable)
            result = real(*args, **kwargs)
            self.point(f"after {name}", Unavailable)
            return result

        return call

    def _extract(self) -> Any:
        real = FakeCryo.extract

        def extract(engine: Any, request: Any) -> Any:
            self.point("before extract", Unavailable)
            table = real(engine, request)
            self.point("after extract", Unavailable)
            return table

        return extract


@contextmanager
def _all(patches: list[Any]) -> Iterator[None]:
    if not patches:
        yield
        return
    with patches[0], _all(patches[1:]):
        yield
