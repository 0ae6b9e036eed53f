"""What assets and sensors work with: made when Dagster asks for it, in the process that needs it."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from dagster import InitResourceContext, ResourceDefinition, io_manager, resource

from trace_dagster.config.settings import settings_from
from trace_dagster.defs.streams import RUNTIME
from trace_dagster.runtime import Runtime

if TYPE_CHECKING:
    from trace_dagster.defs.io_manager import CommitIOManager


def runtime_resource(environment: Mapping[str, str]) -> ResourceDefinition:
    """One runtime per run, closed with it."""

    @resource
    def trace(context: InitResourceContext) -> Iterator[Runtime]:
        runtime = Runtime(settings_from(environment))
        try:
            with runtime.heart.beating_run(runtime.database, context.run.run_id if context.run else "none"):
                yield runtime
        finally:
            runtime.close()

    return trace


@io_manager(required_resource_keys={RUNTIME})
def commit_io_manager(context: InitResourceContext) -> "CommitIOManager":
    """Parquet, ``_manifest.json`` and a fenced commit for every output."""
    from trace_dagster.defs.io_manager import CommitIOManager  # it reads with Arrow: runs do, the location does not

    return CommitIOManager(getattr(context.resources, RUNTIME))


class RuntimeHolder:
    """The code server's own runtime, for sensor ticks: made on the first tick, kept."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._runtime: Runtime | None = None

    def get(self) -> Runtime:
        """Made by the first call."""
        if self._runtime is None:
            self._runtime = Runtime(settings_from(self._environment))
        return self._runtime
