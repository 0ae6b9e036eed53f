"""The command `trace-lite serve`: the query service in the foreground."""

from __future__ import annotations

from trace_dagster.cli.commands import opened
from trace_dagster.config.settings import Settings
from trace_dagster.query.opening import Opening
from trace_dagster.query.protocol import QueryLimits
from trace_dagster.query.runner import QueryRunner
from trace_dagster.service.parts import Parts
from trace_dagster.service.server import serve


def run_service(settings: Settings, host: str, port: int) -> None:
    """Serve queries on an address until Ctrl-C."""
    asked = settings.query
    limits = QueryLimits(asked.memory_mib, asked.threads, asked.seconds)
    with opened(settings) as runtime, QueryRunner(limits, ahead=asked.running) as runner:
        opening = Opening(runtime.catalog, runtime.settings.s3_for_queries, runtime.committed_objects)
        serve(Parts(asked, runtime.database, runtime.catalog, opening, runner), host, port)
