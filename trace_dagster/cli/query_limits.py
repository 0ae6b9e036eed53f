"""The limits of a query as the environment gives them: the same in the query service and in `trace-lite query`."""

from __future__ import annotations

from trace_dagster.config.settings import QuerySettings
from trace_dagster.query.protocol import QueryLimits


def limits_of(settings: QuerySettings) -> QueryLimits:
    """Return the limits of one query."""
    return QueryLimits(
        settings.memory_mib,
        settings.threads,
        settings.seconds,
        stream_seconds=settings.stream_seconds,
        temporary_mib=settings.temporary_mib,
    )
