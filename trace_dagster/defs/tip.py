"""The sensor that follows the heads of chains when the service does not.

It calls the same ingest function as the service (``trace-lite follow``). The lease of a chain decides which of the two
works: the sensor alone is enough for correctness, the service is there for latency.
"""

from dagster import DefaultSensorStatus, SensorDefinition, SensorEvaluationContext, SkipReason, sensor

from trace_dagster.defs.sensors import RuntimeOf

INTERVAL_SECONDS = 4
"""Below the daemon's loop of 5 s, because a sensor that is due after exactly 5 s often misses a loop."""

TICK_SECONDS = 3.0
"""How long a tick follows the chains. Ticks of sensors run in threads, so it delays no other sensor."""


def tip_sensor(runtime_of: RuntimeOf) -> SensorDefinition:
    """Return the sensor that follows the heads of chains that no service follows."""

    @sensor(
        name="trace_tip",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=DefaultSensorStatus.RUNNING,
        description="Stores new blocks of followed chains as hot rows, unless the service `trace-lite follow` does.",
    )
    def trace_tip(_: SensorEvaluationContext) -> SkipReason:
        return SkipReason(runtime_of().followers.tick(TICK_SECONDS))

    return trace_tip
