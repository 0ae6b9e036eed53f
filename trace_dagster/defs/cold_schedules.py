"""What commits hot blocks at the ``cold_cron`` of a job. By number and by lag the planner does it at each tick.

A schedule starts no run: it makes final whole cells plannable, and the planner plans them as it plans any range.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from dagster import ScheduleDefinition, ScheduleEvaluationContext, SkipReason

from trace_dagster.defs.cron_schedules import cron_schedule
from trace_dagster.defs.sensors import RuntimeOf
from trace_dagster.planning.cold import raise_cold_end
from trace_dagster.planning.run_groups import RunGroup
from trace_dagster.registry.jobs import follow
from trace_dagster.registry.streams import StreamRow


def cold_schedules(
    runtime_of: RuntimeOf, groups: Sequence[RunGroup], jobs: Sequence[Any]
) -> Iterator[ScheduleDefinition]:
    """Yield a schedule for every job with a ``cold_cron``. It is shown at the Dagster job of its first run group."""
    seen = set()
    for group, job in zip(groups, jobs, strict=True):
        name, following = group.streams[0].job_name, follow(group.streams[0].job)
        if following is not None and following.cold_cron and name not in seen:
            seen.add(name)
            yield cron_schedule(
                f"cold__{name}",
                job,
                following.cold_cron,
                "Lets the planner commit the final whole ranges whose rows are hot.",
                partial(_raised, runtime_of, name, following.cold_cron),
            )


def _raised(runtime_of: RuntimeOf, job_name: str, cron: str, _: ScheduleEvaluationContext) -> SkipReason:
    runtime = runtime_of()
    streams = [
        stream
        for stream in runtime.jobs.streams()
        if stream.job_name == job_name and stream.enabled and stream.job_enabled and _cron_of(stream) == cron
    ]
    blocks = sum(raised.blocks for raised in raise_cold_end(runtime.database, streams))
    return SkipReason(f"{blocks:,} hot blocks of {job_name} are to be committed: the planner starts their runs")


def _cron_of(stream: StreamRow) -> str | None:
    following = follow(stream.job)
    return following.cold_cron if following else None
