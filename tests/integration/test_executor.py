"""The executor: every step of a run ends, and the run with them, whatever happens to a step."""

import gc
import sys
import threading

import pytest
from dagster import (
    DagsterEventType,
    DagsterInstance,
    DynamicOut,
    DynamicOutput,
    execute_job,
    graph,
    op,
    reconstructable,
)
from dagster._core.execution.context.system import PlanExecutionContext

from trace_dagster.defs.executor import thread_executor

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
RANGES = 100
SILENT = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
QUIET = {"module": "dagster.core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}


@op(out=DynamicOut(int))
def plan():
    yield from (DynamicOutput(n, mapping_key=f"b{n}_{n + 1}") for n in range(RANGES))


@op
def bring_in(n: int) -> int:
    if n == 7:
        raise ValueError("range 7 cannot be had")
    return n


@graph
def ranges():
    plan().map(bring_in)


def job():
    return ranges.to_job(name="ranges", executor_def=thread_executor)


@pytest.fixture
def instance(tmp_path):
    thresholds, switch = gc.get_threshold(), sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads meet where they seldom do
    with DagsterInstance.local_temp(str(tmp_path), {"compute_logs": QUIET}) as made:
        yield made
    sys.setswitchinterval(switch)
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def test_a_failed_step_leaves_its_neighbours_alone(instance):
    with execute_job(reconstructable(job), instance, run_config=SILENT) as result:
        succeeded = instance.all_logs(result.run_id, of_type=DagsterEventType.STEP_SUCCESS)
        assert len(succeeded) == RANGES  # the plan, and all ranges but one
        (failed,) = result.get_step_failure_events()
        assert failed.step_key == "bring_in[b7_8]"
        assert "range 7 cannot be had" in str(failed.step_failure_data.error)


def test_a_step_that_cannot_begin_ends_the_run(instance, monkeypatch):
    """It was waited for, for ever."""
    for_step = PlanExecutionContext.for_step

    def failing(context, step, known_state=None):
        if step.key == "bring_in[b9_10]":
            raise RuntimeError("Set changed size during iteration")
        return for_step(context, step, known_state)

    monkeypatch.setattr(PlanExecutionContext, "for_step", failing)
    with pytest.raises(RuntimeError, match="Set changed size"):
        execute_job(reconstructable(job), instance, run_config=SILENT, raise_on_error=True).__enter__()
    (run,) = instance.get_runs()
    assert run.is_failure
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("step")]
