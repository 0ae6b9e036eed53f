"""The numbers of the query service for Prometheus, in a registry of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

Denial = Literal["token", "rights", "browser"]
"""No valid token; a token that may not do this; a Host or Origin that is not the service's."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_FIRST_BYTE_SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class QueryMetrics:
    """Counts what the service does. Thread-safe. No label has a value that a caller chooses."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._queries = self._counter("queries", "Queries that ended.", "outcome", "format")
        self._seconds = self._histogram("seconds", "From a request to the end of its answer.", _SECONDS)
        self._first_byte = self._histogram(
            "first_byte_seconds", "From a request to the first byte of its rows.", _FIRST_BYTE_SECONDS
        )
        self._rows = self._counter("rows", "Rows that were sent.", "format")
        self._bytes = self._counter("bytes", "Bytes of rows that were sent.", "format")
        self._denials = self._counter("denials", "Requests that were denied.", "reason")

    def ended(self, outcome: str, form: str, seconds: float, rows: int = 0, sent_bytes: int = 0) -> None:
        """Count a query that ended. ``outcome`` and ``form`` are those of the query log."""
        self._queries.labels(outcome, form).inc()
        self._seconds.labels(form).observe(seconds)
        self._rows.labels(form).inc(rows)
        self._bytes.labels(form).inc(sent_bytes)

    def first_byte(self, form: str, seconds: float) -> None:
        """Count the time until the first byte of an answer's rows was ready."""
        self._first_byte.labels(form).observe(seconds)

    def denied(self, reason: Denial) -> None:
        """Count a request that was denied."""
        self._denials.labels(reason).inc()

    def watch(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """Show ``trace_query_<name>``, which is read when Prometheus asks."""
        self._gauge(name, meaning).set_function(read)

    def exposition(self) -> bytes:
        """Return all numbers in Prometheus's text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, labels, namespace="trace", subsystem="query", registry=self._registry)

    def _gauge(self, name: str, meaning: str) -> Gauge:
        return Gauge(name, meaning, namespace="trace", subsystem="query", registry=self._registry)

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(
            name, meaning, ("format",), namespace="trace", subsystem="query", buckets=buckets, registry=self._registry
        )
