"""The private names of Dagster that the package uses: which module uses each, and what it relies on.

A Dagster upgrade that changes one of them fails here. So does code that starts to use a name that is not listed, or
stops using one that is: the lists are compared with a scan of the source.
"""

import ast
import importlib
import inspect
import logging
import os
import re
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

import pytest
from dagster import DagsterEventType, DagsterInstance, EventLogEntry, EventLogRecord, Executor
from dagster._core.execution import asset_backfill
from dagster._core.execution.context.system import ExecutionData, PlanExecutionContext, StepExecutionContext
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.log_manager import DagsterLogHandler, DagsterLogManager
from dagster._core.storage.compute_log_manager import ComputeLogManager
from dagster._serdes import serialize_value
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.event_log import PostgresEventLogStorage
from dagster_postgres.run_storage import PostgresRunStorage
from dagster_postgres.schedule_storage import PostgresScheduleStorage

from trace_dagster.dagster_instance import event_log, executor, launcher, storage
from trace_dagster.dagster_instance.web.__main__ import FACTORY

PACKAGE = Path(__file__).parents[2] / "trace_dagster"
SCANNED = ("dagster_instance", "defs")
PRIVATE_MODULE = re.compile(r"dagster\._|dagster_postgres\b|dagster_shared\b|dagster_webserver\b")


def parameters(function) -> tuple[str, ...]:
    """The names of a callable's parameters, without ``self``."""
    return tuple(name for name in inspect.signature(function).parameters if name not in {"self", "cls"})


def takes(*names: str):
    """Assert that a callable takes these parameters."""

    def check(found):
        assert set(names) <= set(parameters(found)), (found, parameters(found))

    return check


def has(*names: str):
    """Assert that a class has these methods or attributes."""

    def check(found):
        assert [name for name in names if not hasattr(found, name)] == []

    return check


def is_class(found):
    assert inspect.isclass(found)


def is_error(found):
    assert issubclass(found, Exception)


def equals(value):
    """Assert that a constant has this value."""

    def check(found):
        assert found == value

    return check


def is_event_types(found):
    assert found
    assert all(isinstance(each, DagsterEventType) for each in found)


def is_check_table(found):
    assert {*event_log._CHECK_KEY, *event_log._CHECK_VALUES} <= set(found.c.keys())
    unique = [tuple(column.name for column in index.columns) for index in found.indexes if index.unique]
    assert event_log._CHECK_KEY in unique


def is_asset_table(found):
    assert set(event_log._ASSET_VALUES) <= set(found.c.keys())
    assert found.c.asset_key.unique


def is_event_table(found):
    assert {"id", "event"} <= set(found.c.keys())
    assert found.c.id.primary_key


def is_keys_table(found):
    assert {"id", "partition", "partitions_def_name"} <= set(found.c.keys())
    indexed = [tuple(column.name for column in index.columns) for index in found.indexes]
    assert ("partitions_def_name", "partition") in indexed


def is_resources_builder(found):
    assert found._fields == ("resource_instance_dict", "contains_generator")
    assert parameters(found.build) == ("required_resource_keys",)


def is_postgres_storage(found):
    assert {"postgres_url", "should_autocreate_tables", "inst_data"} <= set(parameters(found))
    assert parameters(found.from_config_value) == ("inst_data", "config_value")


def is_postgres_log(found):
    assert {"postgres_url", "should_autocreate_tables"} <= set(parameters(found))
    assert parameters(found.store_event) == ("event",)
    assert parameters(found.store_event_batch) == ("events",)
    assert parameters(found.store_asset_check_event) == ("event", "event_id")
    assert parameters(found.index_connection) == ()
    assert parameters(found.index_transaction) == ()
    assert parameters(found.get_dynamic_partitions) == ("partitions_def_name",)
    assert parameters(found.get_paginated_dynamic_partitions) == ("partitions_def_name", "limit", "ascending", "cursor")


def is_active_execution(found):
    assert parameters(found.get_steps_to_execute)[:1] == ("limit",)
    assert parameters(found.verify_complete) == ("job_context", "step_key")
    assert parameters(found.plan_events_iterator) == ("job_context",)
    assert parameters(found.handle_event) == ("dagster_event",)
    has("get_known_state", "check_for_interrupts", "mark_interrupted", "is_complete")(found)


def is_plan_context(found):
    assert parameters(found.for_step) == ("step", "known_state")
    has("log", "instance", "run_id")(found)


def is_event(found):
    assert parameters(found.engine_event) == ("plan_context", "message", "event_specific_data")
    assert parameters(found.capture_logs) == ("job_context", "step_keys", "log_key", "log_context")
    assert parameters(found.step_failure_event)[:2] == ("step_context", "step_failure_data")
    has("is_step_failure", "is_handled_output", "event_specific_data")(found)


def is_execution_plan(found):
    takes("retry_mode")(found.start)
    has("step_keys_to_execute", "get_steps_to_execute_in_topo_order")(found)


def is_launcher(found):
    assert parameters(found.check_run_worker_health) == ("run",)
    assert isinstance(inspect.getattr_static(found, "supports_check_run_worker_health"), property)
    takes("inst_data")(found)


def is_web_server(found):
    has(FACTORY, "main")(found)
    assert FACTORY in found.host_dagster_ui_with_workspace_process_context.__code__.co_names


COORDINATOR, EVENT_LOG, EXECUTOR, KEYS, LAUNCHER, STORAGE, TAGS = (
    f"dagster_instance/{name}.py"
    for name in ["coordinator", "event_log", "executor", "partition_keys", "launcher", "storage", "tags"]
)
_CORE = "dagster._core"
_EXECUTION = f"{_CORE}.execution"
_PLAN = f"{_EXECUTION}.plan"

IMPORTED = {
    f"{_CORE}.definitions.asset_checks.asset_check_evaluation:AssetCheckEvaluationPlanned": (
        {EVENT_LOG},
        has("asset_key", "check_name", "partitions_subset"),
    ),
    f"{_CORE}.events:ASSET_CHECK_EVENTS": ({EVENT_LOG}, is_event_types),
    f"{_CORE}.events:ASSET_EVENTS": ({EVENT_LOG}, is_event_types),
    f"{_CORE}.storage.asset_check_execution_record:AssetCheckExecutionRecordStatus": (
        {EVENT_LOG},
        has("PLANNED", "SUCCEEDED", "FAILED"),
    ),
    f"{_CORE}.storage.event_log.schema:AssetCheckExecutionsTable": ({EVENT_LOG}, is_check_table),
    f"{_CORE}.storage.event_log.schema:AssetKeyTable": ({EVENT_LOG}, is_asset_table),
    f"{_CORE}.storage.event_log.schema:SqlEventLogStorageTable": ({EVENT_LOG}, is_event_table),
    f"{_CORE}.storage.event_log.schema:DynamicPartitionsTable": ({KEYS}, is_keys_table),
    "dagster._serdes:serialize_value": ({EVENT_LOG}, takes("val")),
    "dagster._time:datetime_from_timestamp": ({EVENT_LOG}, takes("timestamp")),
    "dagster_postgres.event_log:PostgresEventLogStorage": ({KEYS}, is_postgres_log),
    "dagster_postgres.utils:DagsterPostgresException": ({EVENT_LOG}, is_error),
    "dagster_shared.record:copy": ({EVENT_LOG}, takes("record")),
    f"{_CORE}.storage.sqlite_storage:DagsterSqliteStorage": ({STORAGE}, takes("base_dir", "inst_data")),
    "dagster._serdes:ConfigurableClassData": ({STORAGE, LAUNCHER}, is_class),
    "dagster_postgres:DagsterPostgresStorage": ({STORAGE}, is_postgres_storage),
    f"{_CORE}.launcher:CheckRunHealthResult": ({LAUNCHER}, takes("status", "msg")),
    f"{_CORE}.launcher:DefaultRunLauncher": ({LAUNCHER}, is_launcher),
    f"{_CORE}.launcher:WorkerStatus": ({LAUNCHER}, has("RUNNING", "FAILED")),
    f"{_CORE}.storage.tags:ASSET_PARTITION_RANGE_START_TAG": ({TAGS}, equals("dagster/asset_partition_range_start")),
    f"{_CORE}.storage.tags:ASSET_PARTITION_RANGE_END_TAG": ({TAGS}, equals("dagster/asset_partition_range_end")),
    f"{_CORE}.storage.tags:PARTITION_NAME_TAG": ({TAGS}, equals("dagster/partition")),
    f"{_CORE}.run_coordinator:SubmitRunContext": ({COORDINATOR}, has("dagster_run")),
    f"{_CORE}.definitions.scoped_resources_builder:Resources": ({EXECUTOR}, is_class),
    f"{_CORE}.definitions.scoped_resources_builder:ScopedResourcesBuilder": ({EXECUTOR}, is_resources_builder),
    f"{_CORE}.errors:DagsterExecutionInterruptedError": (
        {EXECUTOR},
        lambda found: equals(True)(issubclass(found, BaseException)),
    ),
    f"{_CORE}.events:DagsterEvent": ({EXECUTOR}, is_event),
    f"{_CORE}.events:EngineEventData": (
        {EXECUTOR},
        lambda found: equals(("pid", "step_keys_to_execute"))(parameters(found.in_process)),
    ),
    f"{_EXECUTION}.api:ExecuteRunWithPlanIterable": (
        {EXECUTOR},
        takes("execution_plan", "iterator", "execution_context_manager"),
    ),
    f"{_EXECUTION}.compute_logs:create_compute_log_file_key": (
        {EXECUTOR},
        lambda found: equals(())(parameters(found)),
    ),
    f"{_EXECUTION}.context.system:PlanExecutionContext": ({EXECUTOR}, is_plan_context),
    f"{_EXECUTION}.context.system:PlanOrchestrationContext": (
        {EXECUTOR},
        has("job", "execution_plan", "retry_mode", "run_config", "dagster_run", "instance", "output_capture"),
    ),
    f"{_EXECUTION}.context.system:StepExecutionContext": ({EXECUTOR}, has("log")),
    f"{_EXECUTION}.context_creation_job:PlanExecutionContextManager": (
        {EXECUTOR},
        takes(
            "job",
            "retry_mode",
            "execution_plan",
            "run_config",
            "dagster_run",
            "instance",
            "raise_on_error",
            "output_capture",
        ),
    ),
    f"{_PLAN}.active:ActiveExecution": ({EXECUTOR}, is_active_execution),
    f"{_PLAN}.execute_plan:dagster_event_sequence_for_step": ({EXECUTOR}, takes("step_context")),
    f"{_PLAN}.handle:ResolvedFromDynamicStepHandle": ({EXECUTOR}, takes("mapping_key")),
    f"{_PLAN}.objects:StepFailureData": ({EXECUTOR}, takes("error", "user_failure_data")),
    f"{_PLAN}.plan:ExecutionPlan": ({EXECUTOR}, is_execution_plan),
    f"{_PLAN}.state:KnownExecutionState": ({EXECUTOR}, is_class),
    f"{_PLAN}.step:ExecutionStep": ({EXECUTOR}, has("key", "handle")),
    f"{_EXECUTION}.retries:RetryMode": ({EXECUTOR}, has("DISABLED")),
    f"{_CORE}.log_manager:get_log_record_event": ({EXECUTOR}, takes("record")),
    f"{_CORE}.log_manager:has_log_record_event": ({EXECUTOR}, takes("record")),
    "dagster._utils.error:serializable_error_info_from_exc_info": ({EXECUTOR}, takes("exc_info")),
    "dagster_webserver:cli": ({"dagster_instance/web/__main__.py"}, is_web_server),
}
"""``module:name`` -> (the files of the package that import it, what they rely on)."""


def _signature(owner: type, name: str, *expected: str):
    return lambda: equals(expected)(parameters(getattr(owner, name)))


def _sets(owner: type, name: str):
    """Return a check that the constructor of ``owner``, or of a base class, sets the attribute ``name``."""
    bases = [base for base in owner.__mro__ if base.__module__.startswith("dagster") and "__init__" in vars(base)]
    return lambda: equals(True)(any(f"self.{name} =" in inspect.getsource(base.__init__) for base in bases))


def _each_sets_engine():
    for owner in (PostgresRunStorage, PostgresEventLogStorage, PostgresScheduleStorage):
        _sets(owner, "_engine")()


def _are_records():
    assert "dagster_event" in EventLogEntry._fields
    assert "event_specific_data" in executor.DagsterEvent._fields
    assert "scoped_resources_builder" in ExecutionData._fields


USED = {
    "_event_to_row": ({EVENT_LOG}, _signature(PostgresEventLogStorage, "_event_to_row", "event")),
    "_event_insert_timestamp": ({EVENT_LOG}, _signature(PostgresEventLogStorage, "_event_insert_timestamp", "event")),
    "_store_asset_event": (
        {EVENT_LOG},
        _signature(PostgresEventLogStorage, "_store_asset_event", "conn", "event", "event_id"),
    ),
    "_store_asset_event_tags": (
        {EVENT_LOG},
        _signature(PostgresEventLogStorage, "_store_asset_event_tags", "conn", "events", "event_ids"),
    ),
    "_store_asset_check_evaluation_planned": (
        {EVENT_LOG},
        _signature(PostgresEventLogStorage, "_store_asset_check_evaluation_planned", "event", "event_id"),
    ),
    "_engine": ({EVENT_LOG, STORAGE}, _each_sets_engine),
    "_run_storage": ({STORAGE}, _sets(DagsterPostgresStorage, "_run_storage")),
    "_event_log_storage": ({STORAGE}, _sets(DagsterPostgresStorage, "_event_log_storage")),
    "_schedule_storage": ({STORAGE}, _sets(DagsterPostgresStorage, "_schedule_storage")),
    "_dagster_handler": ({EXECUTOR}, _sets(DagsterLogManager, "_dagster_handler")),
    "_handlers": ({EXECUTOR}, _sets(DagsterLogHandler, "_handlers")),
    "_execution_data": ({EXECUTOR}, _sets(PlanExecutionContext, "_execution_data")),
    "_replace": ({EVENT_LOG, EXECUTOR}, _are_records),
}
"""A private attribute of a Dagster object -> (the files that use it, a check of what they rely on)."""

VARIABLES = {
    "DAGSTER_EVENT_BATCH_SIZE": inspect.getmodule(DagsterInstance._get_event_batch_size),
    "ASSET_BACKFILL_CURSOR_OFFSET": asset_backfill,
}
"""An environment variable that the package sets for Dagster -> the module of Dagster that reads it."""


def files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders or ("",) for path in (PACKAGE / folder).rglob("*.py"))


def place(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def imported(paths: list[Path]) -> dict[str, set[str]]:
    """Every import from a private module: ``module:name`` -> files."""
    found = defaultdict(set)
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and PRIVATE_MODULE.match(node.module or ""):
                for alias in node.names:
                    found[f"{node.module}:{alias.name}"].add(place(path))
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if PRIVATE_MODULE.match(alias.name):
                        found[alias.name].add(place(path))
    return dict(found)


def source_of(owner: type) -> str:
    """Return the source of a class; empty if Dagster made the class at run time."""
    try:
        return inspect.getsource(owner)
    except OSError:
        return ""


def of_dagsters_bases(name: str, path: Path) -> bool:
    """Return whether a class of this module inherits a private name from a class of Dagster."""
    module = importlib.import_module("trace_dagster." + place(path).removesuffix(".py").replace("/", "."))
    classes = [each for each in vars(module).values() if inspect.isclass(each) and each.__module__ == module.__name__]
    bases = {base for each in classes for base in each.__mro__ if base.__module__.startswith("dagster")}
    return any(name in vars(base) or re.search(rf"self\.{name}\b", source_of(base)) for base in bases)


def used(paths: list[Path]) -> dict[str, set[str]]:
    """Every private attribute of an object that is not the package's own: name -> files.

    An attribute of ``self`` or a method counts if a base class from Dagster has it; any other one counts always.
    """
    found = defaultdict(set)
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "name", None)
            if not isinstance(name, str) or not re.fullmatch(r"_[a-z]\w*", name):
                continue
            is_own = not isinstance(node, ast.Attribute) or getattr(node.value, "id", "") in {"self", "cls"}
            if not is_own or (isinstance(node, ast.Attribute | ast.FunctionDef) and of_dagsters_bases(name, path)):
                found[name].add(place(path))
    return dict(found)


def test_dagster_is_the_version_that_is_pinned():
    pinned = (PACKAGE.parent / "pyproject.toml").read_text()
    for name in ("dagster", "dagster-postgres", "dagster-webserver"):
        assert f'"{name}=={version(name)}"' in pinned


def test_every_private_import_is_listed():
    assert imported(files(*SCANNED)) == {name: users for name, (users, _) in IMPORTED.items()}


def test_private_modules_are_imported_in_dagster_instance_alone():
    users = {user for users in imported(files()).values() for user in users}
    assert {user for user in users if not user.startswith("dagster_instance/")} == set()


def test_every_private_attribute_is_listed():
    assert used(files(*SCANNED)) == {name: users for name, (users, _) in USED.items()}


@pytest.mark.parametrize("name", IMPORTED)
def test_a_private_import_is_what_its_users_rely_on(name):
    module, _, attribute = name.partition(":")
    IMPORTED[name][1](getattr(importlib.import_module(module), attribute))


@pytest.mark.parametrize("name", USED)
def test_a_private_attribute_is_what_its_users_rely_on(name):
    USED[name][1]()


def test_schema_checks_are_methods_of_dagsters_storages():
    owners = (PostgresRunStorage, PostgresEventLogStorage, PostgresScheduleStorage)
    for name in storage.SCHEMA_CHECKS:
        assert any(callable(getattr(owner, name, None)) for owner in owners), name


def test_every_variable_set_for_dagster_is_read_by_dagster():
    calls = re.findall(r"os\.environ\.setdefault\(\"(\w+)\"", "".join(path.read_text() for path in files(*SCANNED)))
    assert sorted(calls) == sorted(VARIABLES)
    for name, module in VARIABLES.items():
        assert f'os.getenv("{name}"' in inspect.getsource(module)
        assert int(os.environ[name]) > 0
    with DagsterInstance.ephemeral() as instance:
        assert instance._is_batch_writing_enabled()
        assert instance._get_event_batch_size() == int(os.environ["DAGSTER_EVENT_BATCH_SIZE"])


def test_a_materialization_record_is_serialized_as_dagster_serializes_it():
    entry = EventLogEntry(
        error_info=None, level=20, user_message="m", run_id="r", timestamp=1.0, step_key=None, job_name="j"
    )
    text = serialize_value(entry)
    expected = f'{{"__class__": "EventLogRecord", "event_log_entry": {text}, "storage_id": 7}}'
    assert serialize_value(EventLogRecord(storage_id=7, event_log_entry=entry)) == expected


def test_log_handlers_lock_by_an_attribute():
    """The executor sets ``lock`` to None; ``logging.Handler.acquire`` must accept that."""
    handler = logging.NullHandler()
    handler.lock = None
    handler.acquire()
    handler.release()


def test_a_plan_and_its_log_manager_have_the_seams_of_the_executor():
    assert parameters(ComputeLogManager.build_log_key_for_run) == ("run_id", "step_key")
    assert parameters(ComputeLogManager.capture_logs) == ("log_key",)
    assert issubclass(StepExecutionContext, PlanExecutionContext)
    assert inspect.getattr_static(ActiveExecution, "is_complete").__class__ is property
    assert {"execute", "retries"} <= Executor.__abstractmethods__
    assert launcher.MonitoredRunLauncher.__mro__[1] is launcher.DefaultRunLauncher
