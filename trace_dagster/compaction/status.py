"""How the files of each stream stand: how many there are, and which windows are due or failed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from trace_dagster.compaction.due import DueWindows
from trace_dagster.registry.connection import Database
from trace_dagster.registry.streams import StreamRow
from trace_dagster.registry.windows import failed_windows, file_totals, window_history

_MOST_DUE = 1000


@dataclass(frozen=True, slots=True)
class StreamFiles:
    """The files of one stream and the windows in which they are compacted."""

    job: str
    dataset_key: str
    files: int
    """Files that hold visible rows."""
    uncompacted_files: int
    average_file_bytes: int | None
    windows_compacted: int
    windows_due: int
    """At most 1,000 are counted."""
    windows_failed: int
    last_reason: str | None
    """The window that failed last, and the reason."""
    compact: str
    """``off``, ``when due``, or the cron."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def stream_files(database: Database, due: DueWindows, stream: StreamRow) -> StreamFiles:
    """Return how the files of a stream stand. The cost grows with its ranges."""
    totals = file_totals(database, stream.dataset_uuid)
    failed = failed_windows(database, stream.dataset_uuid)
    settings = stream.compact
    return StreamFiles(
        job=stream.job_name,
        dataset_key=stream.dataset_key,
        files=totals.files,
        uncompacted_files=totals.uncompacted_files,
        average_file_bytes=totals.bytes // totals.files if totals.files else None,
        windows_compacted=len(window_history(database, stream.dataset_uuid).compacted),
        windows_due=len(due.due(stream, limit=_MOST_DUE)),
        windows_failed=len(failed),
        last_reason=f"window {failed[0].block_range}: {failed[0].error}" if failed else None,
        compact="off" if settings is None else settings.cron or "when due",
    )
