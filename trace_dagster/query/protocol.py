"""What a query's process and its parent agree on: the tables of a query, its limits, and how the process ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Columns = Sequence[tuple[str, str]]
"""``(name, DuckDB type)`` of each column of a table."""

MAX_ROWS = 10_000
"""Most rows that one query returns, even if the caller requests more."""
DEFAULT_ROWS = 1_000
"""Rows that one query returns if the caller requests no number."""
MAX_SQL_BYTES = 100_000
"""Longest query, in bytes of UTF-8."""
MAX_NAME_BYTES = 1 << 20
"""Most bytes that the names and types of a result's columns have together."""
READY = b"ready"
"""The first message of the process. It sends it when it can take a query."""
TOO_LARGE = 77
"""Exit code of a process that used more memory than it may, where the system does not limit it."""
NO_MEMORY = "the query needs more memory than it may use: ask for fewer blocks, or aggregate"


@dataclass(frozen=True, slots=True)
class Relation:
    """One table: its name (``blocks`` or ``chain_1.blocks``), its columns and the URIs of its Parquet files."""

    name: str
    columns: Columns
    """Used if there are no files, and to plan a query before its files are opened."""
    uris: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """Limits of one query: memory and threads of its process, its duration, and the size of its result as JSON."""

    memory_mib: int = 2048
    threads: int = 2
    timeout_seconds: float = 60.0
    result_mib: int = 16
