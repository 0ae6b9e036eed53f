"""A run of block ranges that names no partition: refused at the queue and in the run, with the tags to give."""

from __future__ import annotations

from types import SimpleNamespace

import click
import pytest
from dagster import DagsterRun, DagsterRunStatus, QueuedRunCoordinator
from dagster._core.run_coordinator import SubmitRunContext

from trace_dagster.dagster_instance.coordinator import RangeRunCoordinator
from trace_dagster.dagster_instance.tags import require_partitions
from trace_dagster.errors import InvalidInput

ONE = {"dagster/partition": "000000000000-000000000100"}
START, END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


@pytest.mark.parametrize("tags", [ONE, {START: "a", END: "b"}, {**ONE, "other": "x"}])
def test_a_run_that_names_its_ranges_passes(tags):
    require_partitions("chain_sync__x", tags)


@pytest.mark.parametrize("tags", [{}, {"other": "x"}, {START: "a"}, {END: "b"}])
def test_a_run_that_names_none_is_told_both_forms(tags):
    with pytest.raises(InvalidInput) as caught:
        require_partitions("chain_sync__x", tags)
    said = str(caught.value)
    assert said.startswith("a run of chain_sync__x needs its block ranges")
    assert '--tags \'{"dagster/partition": "' in said
    assert f'"{START}": "FIRST", "{END}": "LAST"' in said


def submit(job_name, tags):
    run = DagsterRun(job_name=job_name, run_id="r", tags=tags, status=DagsterRunStatus.NOT_STARTED)
    return RangeRunCoordinator().submit_run(SubmitRunContext(run, workspace=SimpleNamespace()))


@pytest.mark.parametrize(("job", "tags"), [("chain_sync__x", ONE), ("analytics__1", {}), ("__ASSET_JOB", {})])
def test_the_queue_takes_runs_that_need_no_more(job, tags, monkeypatch):
    monkeypatch.setattr(QueuedRunCoordinator, "submit_run", lambda _, context: context.dagster_run)
    assert submit(job, tags).job_name == job


def test_the_queue_refuses_a_run_without_ranges_in_one_line_of_the_command():
    with pytest.raises(click.UsageError, match="a run of chain_sync__x needs its block ranges"):
        submit("chain_sync__x", {})
