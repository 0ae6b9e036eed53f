"""Schedules for the crons that chain_sync files name: they evaluate a function of ours, in UTC."""

import re
from collections.abc import Callable
from typing import Any

from dagster import (
    DefaultScheduleStatus,
    RunRequest,
    ScheduleDefinition,
    ScheduleEvaluationContext,
    SkipReason,
    schedule,
)

_CRON_WORDS = {"*": "x", "/": "per", ",": "and", "-": "to", " ": "_"}

Evaluate = Callable[[ScheduleEvaluationContext], list[RunRequest] | SkipReason]
"""Evaluates a schedule that is due: returns run requests, or the reason for none."""


def cron_schedule(prefix: str, job: Any, cron: str, description: str, evaluate: Evaluate) -> ScheduleDefinition:
    """Return the schedule ``{prefix}__at_{cron}`` that calls ``evaluate`` at a cron."""

    @schedule(
        name=f"{prefix}__at_{re.sub(r'[^0-9]', lambda found: _CRON_WORDS[found[0]], cron)}",
        job=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=DefaultScheduleStatus.RUNNING,
        description=description,
    )
    def at_cron(context: ScheduleEvaluationContext) -> list[RunRequest] | SkipReason:
        return evaluate(context)

    return at_cron
