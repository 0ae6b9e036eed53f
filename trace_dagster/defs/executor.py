"""An executor that runs a run's steps in threads of one process.

Ranges spend their time waiting for RPC nodes and stores, so threads are enough; a process per step
costs 13 CPU seconds (measured), a thread about 20 ms. Extraction itself runs in the engine's own
worker processes.
"""

from __future__ import annotations

import os
import queue
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from dagster import Executor, Field, InitExecutorContext, IntSource, executor
from dagster._core.events import DagsterEvent, EngineEventData
from dagster._core.execution.api import ExecuteRunWithPlanIterable
from dagster._core.execution.compute_logs import create_compute_log_file_key
from dagster._core.execution.context.system import PlanExecutionContext, PlanOrchestrationContext
from dagster._core.execution.context_creation_job import PlanExecutionContextManager
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.execution.plan.execute_plan import dagster_event_sequence_for_step
from dagster._core.execution.plan.objects import StepFailureData
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.plan.step import ExecutionStep
from dagster._core.execution.retries import RetryMode
from dagster._utils.error import serializable_error_info_from_exc_info

DEFAULT_THREADS = 16
_WAKE_SECONDS = 1.0


class ThreadExecutor(Executor):
    """Runs ready steps in up to ``threads`` threads; a failed step does not stop its neighbours."""

    def __init__(self, threads: int) -> None:
        self._threads = threads

    @property
    def retries(self) -> RetryMode:
        """Retries are the registry's business, never Dagster's."""
        return RetryMode.DISABLED

    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        """Run the plan; yields the events of all steps as they happen."""
        yield DagsterEvent.engine_event(
            plan_context,
            f"Executing steps in up to {self._threads} threads (pid: {os.getpid()})",
            event_specific_data=EngineEventData.in_process(os.getpid(), execution_plan.step_keys_to_execute),
        )
        yield from ExecuteRunWithPlanIterable(
            execution_plan=plan_context.execution_plan,
            iterator=self._run,
            execution_context_manager=PlanExecutionContextManager(
                job=plan_context.job,
                retry_mode=plan_context.retry_mode,
                execution_plan=plan_context.execution_plan,
                run_config=plan_context.run_config,
                dagster_run=plan_context.dagster_run,
                instance=plan_context.instance,
                raise_on_error=plan_context.raise_on_error,
                output_capture=plan_context.output_capture,
            ),
        )

    def _run(self, job_context: PlanExecutionContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        with (
            execution_plan.start(retry_mode=self.retries, max_concurrent=self._threads) as active,
            ExitStack() as stack,
        ):
            yield _capture_logs(job_context, execution_plan, stack)
            pool = ThreadPoolExecutor(self._threads, thread_name_prefix="step")
            stack.callback(pool.shutdown, wait=False, cancel_futures=True)
            yield from _drain(job_context, active, pool)
            pool.shutdown(wait=True)


def _drain(context: PlanExecutionContext, active: ActiveExecution, pool: ThreadPoolExecutor) -> Iterator[DagsterEvent]:
    """Start steps as they become ready and hand their events on, one at a time, in this thread."""
    events: queue.SimpleQueue[tuple[str, DagsterEvent | None]] = queue.SimpleQueue()
    futures: dict[str, Future[None]] = {}
    while True:
        # asking for ready steps also resolves mapped ones: only then does is_complete tell the truth
        for step in active.get_steps_to_execute():
            futures[step.key] = pool.submit(_run_step, context, active, step, events)
        yield from active.plan_events_iterator(context)
        if not futures and active.is_complete:
            return
        try:
            step_key, event = events.get(timeout=_WAKE_SECONDS)
        except queue.Empty:
            continue
        if event is not None:
            yield event
            active.handle_event(event)
        else:
            futures.pop(step_key).result()
            active.verify_complete(context, step_key)


def _run_step(
    context: PlanExecutionContext,
    active: ActiveExecution,
    step: ExecutionStep,
    events: queue.SimpleQueue[tuple[str, DagsterEvent | None]],
) -> None:
    step_context = context.for_step(step, active.get_known_state())
    try:
        for event in dagster_event_sequence_for_step(step_context):
            events.put((step.key, event))
    except Exception:
        error = serializable_error_info_from_exc_info(sys.exc_info())
        failure = StepFailureData(error=error, user_failure_data=None)
        events.put((step.key, DagsterEvent.step_failure_event(step_context, failure)))
    finally:
        events.put((step.key, None))


def _capture_logs(context: PlanExecutionContext, plan: ExecutionPlan, stack: ExitStack) -> DagsterEvent:
    manager = context.instance.compute_log_manager
    log_key = manager.build_log_key_for_run(context.run_id, create_compute_log_file_key())
    captured = stack.enter_context(manager.capture_logs(log_key))
    step_keys = [step.key for step in plan.get_steps_to_execute_in_topo_order()]
    return DagsterEvent.capture_logs(context, step_keys, log_key, captured)


@executor(
    name="threads",
    config_schema={"threads": Field(IntSource, default_value=DEFAULT_THREADS, description="Steps at once.")},
)
def thread_executor(init: InitExecutorContext) -> Any:
    """Steps in threads of one process."""
    return ThreadExecutor(int(str(init.executor_config["threads"])))
