"""The parts that the query service is made of. Routes find them in ``request.app.state.parts``."""

from __future__ import annotations

from dataclasses import dataclass, field

from starlette.requests import Request

from trace_dagster.config.settings import QuerySettings
from trace_dagster.query.opening import Opening
from trace_dagster.query.runner import QueryRunner
from trace_dagster.registry.catalog import Catalog
from trace_dagster.registry.connection import Database
from trace_dagster.service.metrics import QueryMetrics


@dataclass(frozen=True, slots=True)
class Parts:
    """What routes use. Whoever makes them closes them."""

    settings: QuerySettings
    database: Database
    catalog: Catalog
    opening: Opening
    runner: QueryRunner
    metrics: QueryMetrics = field(default_factory=QueryMetrics)


def parts_of(request: Request) -> Parts:
    """Return the parts of the service that a request came to."""
    found: Parts = request.app.state.parts
    return found
