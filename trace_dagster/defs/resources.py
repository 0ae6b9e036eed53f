"""Resources of assets and sensors, made by Dagster in the process that needs them."""

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dagster import InitResourceContext, ResourceDefinition, io_manager, resource

from trace_dagster.config.settings import Settings
from trace_dagster.defs.streams import RUNTIME
from trace_dagster.runtime import Runtime

if TYPE_CHECKING:
    from trace_dagster.defs.io_manager import CommitIOManager


def runtime_resource(settings: Settings) -> ResourceDefinition:
    """Return the resource that gives each run one runtime, and closes it when the run ends."""

    @resource
    def trace(context: InitResourceContext) -> Iterator[Runtime]:
        runtime = Runtime(settings)
        try:
            with runtime.heartbeats.for_run(runtime.database, context.run.run_id if context.run else "none"):
                yield runtime
        finally:
            runtime.close()

    return trace


@io_manager(required_resource_keys={RUNTIME})
def commit_io_manager(context: InitResourceContext) -> "CommitIOManager":
    """Return the IO manager. It writes each output as Parquet with a manifest, and commits it under its lease."""
    from trace_dagster.defs.io_manager import CommitIOManager  # imports Arrow, which the code location does not need

    return CommitIOManager(getattr(context.resources, RUNTIME))


class RuntimeHolder:
    """The code server's runtime for sensor ticks: made by the first tick and kept."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._runtime: Runtime | None = None
        self._lock = threading.Lock()

    def get(self) -> Runtime:
        """Return the runtime; the first call makes it. Thread-safe: ticks of several sensors run at the same time."""
        with self._lock:
            if self._runtime is None:
                self._runtime = Runtime(self._settings)
                self._runtime.database  # noqa: B018  (made here, so that two threads do not make one each)
            return self._runtime
