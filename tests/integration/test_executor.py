"""The executor: every step of a run ends, and then the run ends, after any error of a step."""

import gc
import os
import signal
import sys
import threading
import time

import pytest
from dagster import (
    DagsterEventType,
    DagsterInstance,
    DynamicOut,
    DynamicOutput,
    Field,
    InMemoryIOManager,
    ReexecutionOptions,
    execute_job,
    graph,
    op,
    reconstructable,
)
from dagster._core.execution.context.system import PlanExecutionContext

from trace_dagster.dagster_instance.executor import thread_executor
from trace_dagster.dagster_instance.tags import NEWEST_FIRST_TAG

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
RANGES = 100
SILENT = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
QUIET = {"module": "dagster.core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}


@op(out=DynamicOut(int))
def plan():
    yield from (DynamicOutput(n, mapping_key=f"b{n}_{n + 1}") for n in range(RANGES))


@op(config_schema={"interrupts_at": Field(int, default_value=-1)})
def bring_in(context, n: int) -> int:
    if n == context.op_config["interrupts_at"]:
        os.kill(os.getpid(), signal.SIGINT)  # as Dagster's launcher does when a run is terminated
        time.sleep(1)
    if n == 7 and context.op_config["interrupts_at"] < 0:
        raise ValueError("range 7 cannot be had")
    return n


@graph
def ranges():
    plan().map(bring_in)


@op(tags={NEWEST_FIRST_TAG: "true"})
def bring_in_backwards(n: int) -> int:
    return n


@graph
def backwards():
    plan().map(bring_in_backwards)


class Kept(InMemoryIOManager):
    """Lives as long as the tests run; records the size of one output."""

    def handle_output(self, context, obj):
        super().handle_output(context, obj)
        if context.step_key == "bring_in[b3_4]":
            context.add_output_metadata({"rows": obj})


KEPT = Kept()


def job():
    return ranges.to_job(name="ranges", executor_def=thread_executor, resource_defs={"io_manager": KEPT})


def backwards_job():
    return backwards.to_job(name="backwards", executor_def=thread_executor, resource_defs={"io_manager": KEPT})


@pytest.fixture
def instance(tmp_path):
    thresholds, switch = gc.get_threshold(), sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # makes rare thread interleavings likely
    with DagsterInstance.local_temp(str(tmp_path), {"compute_logs": QUIET}) as made:
        yield made
    sys.setswitchinterval(switch)
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def test_a_failed_step_leaves_its_neighbours_alone(instance):
    with execute_job(reconstructable(job), instance, run_config=SILENT) as result:
        succeeded = instance.all_logs(result.run_id, of_type=DagsterEventType.STEP_SUCCESS)
        assert len(succeeded) == RANGES  # the plan, and all ranges except one
        (failed,) = result.get_step_failure_events()
        assert failed.step_key == "bring_in[b7_8]"
        assert "range 7 cannot be had" in str(failed.step_failure_data.error)


@pytest.mark.parametrize(("made", "numbers"), [(job, range(RANGES)), (backwards_job, range(RANGES - 1, -1, -1))])
def test_steps_start_in_block_order_or_backwards_from_the_tip(instance, made, numbers):
    one = {**SILENT, "execution": {"config": {"threads": 1}}}
    with execute_job(reconstructable(made), instance, run_config=one) as result:
        started = instance.all_logs(result.run_id, of_type=DagsterEventType.STEP_START)
    assert [event.step_key.partition("[")[2] for event in started] == ["", *(f"b{n}_{n + 1}]" for n in numbers)]


def test_a_run_goes_on_from_its_failure(instance):
    """Re-execution works although HANDLED_OUTPUT events without metadata are not stored."""
    with execute_job(reconstructable(job), instance, run_config=SILENT) as result:
        run_id = result.run_id
    (handled,) = instance.all_logs(run_id, of_type=DagsterEventType.HANDLED_OUTPUT)
    assert handled.step_key == "bring_in[b3_4]"
    again = ReexecutionOptions.from_failure(run_id, instance)
    with execute_job(reconstructable(job), instance, run_config=SILENT, reexecution_options=again) as result:
        (failed,) = result.get_step_failure_events()
        assert "range 7 cannot be had" in str(failed.step_failure_data.error)
        started = instance.all_logs(result.run_id, of_type=DagsterEventType.STEP_START)
        assert [event.step_key for event in started] == ["bring_in[b7_8]"]


def test_a_run_that_is_told_to_stop_begins_no_further_step(instance):
    run_config = {**SILENT, "ops": {"bring_in": {"config": {"interrupts_at": 20}}}}
    with execute_job(reconstructable(job), instance, run_config=run_config, raise_on_error=False):
        pass
    (run,) = instance.get_runs()
    assert run.is_failure  # the run was not terminated through Dagster
    (ended,) = instance.all_logs(run.run_id, of_type=DagsterEventType.RUN_FAILURE)
    assert "interrupted" in ended.user_message
    assert 20 < len(instance.all_logs(run.run_id, of_type=DagsterEventType.STEP_START)) < RANGES


def test_a_step_that_cannot_begin_ends_the_run(instance, monkeypatch):
    """The executor waited for such a step without end."""
    for_step = PlanExecutionContext.for_step
    before = set(threading.enumerate())  # a step of the run that was told to stop may still be asleep

    def failing(context, step, known_state=None):
        if step.key == "bring_in[b9_10]":
            raise RuntimeError("Set changed size during iteration")
        return for_step(context, step, known_state)

    monkeypatch.setattr(PlanExecutionContext, "for_step", failing)
    with pytest.raises(RuntimeError, match="Set changed size"):
        execute_job(reconstructable(job), instance, run_config=SILENT, raise_on_error=True).__enter__()
    (run,) = instance.get_runs()
    assert run.is_failure
    assert not [each.name for each in set(threading.enumerate()) - before if each.name.startswith("step")]
