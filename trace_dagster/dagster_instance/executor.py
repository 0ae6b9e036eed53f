"""An executor that runs a run's steps in threads of one process.

Ranges spend their time waiting for RPC nodes and stores, so threads are enough; a process per step
costs 13 CPU seconds (measured), a thread about 20 ms. Extraction itself runs in the engine's own
worker processes.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import queue
import sys
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from dagster import Executor, Field, InitExecutorContext, IntSource, executor
from dagster._core.definitions.scoped_resources_builder import Resources, ScopedResourcesBuilder
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.events import DagsterEvent, EngineEventData
from dagster._core.execution.api import ExecuteRunWithPlanIterable
from dagster._core.execution.compute_logs import create_compute_log_file_key
from dagster._core.execution.context.system import (
    PlanExecutionContext,
    PlanOrchestrationContext,
    StepExecutionContext,
)
from dagster._core.execution.context_creation_job import PlanExecutionContextManager
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.execution.plan.execute_plan import dagster_event_sequence_for_step
from dagster._core.execution.plan.handle import ResolvedFromDynamicStepHandle
from dagster._core.execution.plan.objects import StepFailureData
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.execution.plan.step import ExecutionStep
from dagster._core.execution.retries import RetryMode
from dagster._core.log_manager import get_log_record_event, has_log_record_event
from dagster._utils.error import serializable_error_info_from_exc_info

from trace_dagster.config.process import bare_environment
from trace_dagster.dagster_instance import memory
from trace_dagster.dagster_instance.mapping import range_of
from trace_dagster.dagster_instance.step_scope import step_scope
from trace_dagster.dagster_instance.tags import NEWEST_FIRST_TAG

DEFAULT_THREADS = 16
_WAKE_SECONDS = 1.0


class ThreadExecutor(Executor):
    """Runs ready steps in up to ``threads`` threads; a failed step does not stop its neighbours."""

    def __init__(self, threads: int) -> None:
        self._threads = threads

    @property
    def retries(self) -> RetryMode:
        """Disabled: the registry decides about retries."""
        return RetryMode.DISABLED

    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        """Run the plan and yield the failure events of steps.

        Every step stores its own events. Of the yielded events Dagster uses only failures, but builds a telemetry entry
        for each: a twelfth of a run's CPU time, even with telemetry off.
        """
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
        with execution_plan.start(retry_mode=self.retries) as active, ExitStack() as stack:
            yield _capture_logs(job_context, execution_plan, stack)
            _let_threads_log(job_context)
            _remember_resources(job_context)
            memory.tune_memory()
            pool = ThreadPoolExecutor(self._threads, thread_name_prefix="step")
            stack.callback(
                pool.shutdown, wait=False, cancel_futures=True
            )  # an interrupted run does not wait for its steps
            try:
                yield from _Steps(job_context, active, pool, self._threads).run()
            except Exception:
                pool.shutdown(cancel_futures=True)  # a failed run ends after the steps that have started
                raise


class _Steps:
    """The steps of a run. Ready steps start in the order of their first block, across all streams, the lowest one
    first, or the highest if the job works backwards from the tip.

    So the streams of a run extract the same blocks at the same time and can share fetched data.
    """

    def __init__(
        self, context: PlanExecutionContext, active: ActiveExecution, pool: ThreadPoolExecutor, threads: int
    ) -> None:
        self._context = context
        self._active = active
        self._pool = pool
        self._threads = threads
        self._known = active.get_known_state()
        self._ready: list[tuple[tuple[bool, int], int, ExecutionStep]] = []
        self._arrivals = itertools.count()
        self._running: dict[str, Future[None]] = {}
        self._done: queue.SimpleQueue[tuple[ExecutionStep, list[DagsterEvent]]] = queue.SimpleQueue()

    def run(self) -> Iterator[DagsterEvent]:
        """Start steps as they become ready, record their events and yield failures.

        Raises DagsterExecutionInterruptedError soon after the run is interrupted. Running steps end normally.
        """
        yield from self._fetch_ready()
        while self._running or not self._active.is_complete:
            if self._active.check_for_interrupts():
                self._active.mark_interrupted()
                raise DagsterExecutionInterruptedError
            try:
                step, events = self._done.get(timeout=_WAKE_SECONDS)
            except queue.Empty:
                yield from self._fetch_ready()
                continue
            for event in events:
                self._active.handle_event(event)
            yield from (event for event in events if event.is_step_failure)
            yield from self._ended(step)

    def _ended(self, step: ExecutionStep) -> Iterator[DagsterEvent]:
        self._running.pop(step.key).result()
        self._active.verify_complete(self._context, step.key)
        if self._ready and _is_of_range(step):
            self._start()  # no step depends on a single range, so a scan of all steps is not needed
        else:
            yield from self._fetch_ready()

    def _fetch_ready(self) -> Iterator[DagsterEvent]:
        """Fetch newly ready steps. This also resolves mapped steps; until then `is_complete` is wrong.

        The known state is read here, because the steps' threads would read it while this thread changes it.
        """
        for step in self._active.get_steps_to_execute():
            heapq.heappush(self._ready, (_turn(step), next(self._arrivals), step))
        self._known = self._active.get_known_state()
        self._start()
        yield from self._active.plan_events_iterator(self._context)

    def _start(self) -> None:
        while self._ready and len(self._running) < self._threads:
            _, _, step = heapq.heappop(self._ready)
            self._running[step.key] = self._pool.submit(_run_step, self._context, self._known, step, self._done)


def _is_of_range(step: ExecutionStep) -> bool:
    return isinstance(step.handle, ResolvedFromDynamicStepHandle)


def _turn(step: ExecutionStep) -> tuple[bool, int]:
    """Return a sort key: steps of ranges by their first block, other steps before them."""
    handle = step.handle
    if not isinstance(handle, ResolvedFromDynamicStepHandle):
        return False, 0
    start = range_of(handle.mapping_key).start
    return True, -start if NEWEST_FIRST_TAG in step.tags else start


def _let_threads_log(context: PlanExecutionContext) -> None:
    """Remove the lock of the handlers that store events, because it lets only one thread at a time use the database.

    The storage is thread-safe and stores events of several threads together (``dagster_instance/event_log.py``).
    """
    for handler in context.log._dagster_handler._handlers:
        handler.lock = None


class _RememberedResources(ScopedResourcesBuilder):
    """Caches resource objects: Dagster creates a class for the resources of each step and of each type check."""

    def __init__(self, *_: Any) -> None:
        self._made: dict[frozenset[str], Resources] = {}

    def build(self, required_resource_keys: AbstractSet[str] | None) -> Resources:
        """Return the resources of these keys, built by the first call for them."""
        keys = frozenset(required_resource_keys or ())
        if keys not in self._made:
            self._made[keys] = super().build(keys)
        return self._made[keys]


def _remember_resources(context: PlanExecutionContext) -> None:
    data = context._execution_data
    builder = _RememberedResources(*data.scoped_resources_builder)
    context._execution_data = data._replace(scoped_resources_builder=builder)


def _run_step(
    context: PlanExecutionContext,
    known: KnownExecutionState,
    step: ExecutionStep,
    done: queue.SimpleQueue[tuple[ExecutionStep, list[DagsterEvent]]],
) -> None:
    """Run a step and queue its events when it ends, also after an error: the run waits for them."""
    events: list[DagsterEvent] = []
    try:
        mine = context.for_step(step, known)
        mine.log.addFilter(_adds_information)
        with step_scope():
            events.extend(_events_of(mine))
    finally:
        done.put((step, events))


def _adds_information(record: logging.LogRecord) -> bool:
    """Drop HANDLED_OUTPUT events that carry no metadata; the materialization already records the output."""
    event = get_log_record_event(record) if has_log_record_event(record) else None
    return event is None or not event.is_handled_output or bool(event.event_specific_data.metadata)  # type: ignore[union-attr]


def _events_of(context: StepExecutionContext) -> Iterator[DagsterEvent]:
    try:
        yield from dagster_event_sequence_for_step(context)
    except Exception:
        error = serializable_error_info_from_exc_info(sys.exc_info())
        yield DagsterEvent.step_failure_event(context, StepFailureData(error=error, user_failure_data=None))


def _capture_logs(context: PlanExecutionContext, plan: ExecutionPlan, stack: ExitStack) -> DagsterEvent:
    manager = context.instance.compute_log_manager
    log_key = manager.build_log_key_for_run(context.run_id, create_compute_log_file_key())
    with bare_environment():  # the processes that follow the log need no secret
        captured = stack.enter_context(manager.capture_logs(log_key))
    step_keys = [step.key for step in plan.get_steps_to_execute_in_topo_order()]
    return DagsterEvent.capture_logs(context, step_keys, log_key, captured)


@executor(
    name="threads",
    config_schema={
        "threads": Field(IntSource, default_value=DEFAULT_THREADS, description="Maximum number of concurrent steps.")
    },
)
def thread_executor(init: InitExecutorContext) -> Any:
    """Run steps in threads of one process."""
    return ThreadExecutor(int(str(init.executor_config["threads"])))
