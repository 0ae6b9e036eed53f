"""Passes written rows to a sink in a thread of its own, so that encoding the next rows does not wait for it."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa

from trace_dagster.compaction.writer import TableSink


class Aside:
    """Takes rows for a sink. Holds one table at most besides the one that the sink works on."""

    def __init__(self, sink: TableSink) -> None:
        self._sink = sink
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compaction-aside")
        self._running: Future[None] | None = None

    def add(self, table: pa.Table) -> None:
        """Take the next rows. Raises the error that the sink raised for earlier ones."""
        self.finish()
        self._running = self._thread.submit(self._sink.add, table)

    def finish(self) -> None:
        """Wait until the sink has taken all rows."""
        if self._running is not None:
            running, self._running = self._running, None
            running.result()

    def close(self) -> None:
        """Wait for the rows under way, without their error."""
        self._thread.shutdown()
