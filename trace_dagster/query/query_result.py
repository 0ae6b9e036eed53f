"""The answer of a query whose rows are all in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trace_dagster.registry.snapshot_header import SnapshotHeader


@dataclass(frozen=True, slots=True)
class QueryResult:
    """Columns as (name, DuckDB type) and rows of JSON values in column order (see ``render.py``)."""

    columns: tuple[tuple[str, str], ...]
    rows: list[tuple[Any, ...]]
    truncated: bool
    """True if the query had more rows, or more bytes, than it may return."""
    snapshot: SnapshotHeader | None = None
    """What the answer was made of; None if the relations are not those of a registry."""
