"""`verify` compares times that no header covers with the committed blocks, or says that they are unproven."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.support.committed import FULL, commit_rows, made_up_rows
from tests.support.nodes import environment, running
from trace_dagster.blocks import BlockRange
from trace_dagster.cli.render import verified_lines
from trace_dagster.cli.verification import verify_job
from trace_dagster.config.chain_sync import parse
from trace_dagster.config.settings import settings_from
from trace_dagster.registry.jobs import Bounds

pytestmark = pytest.mark.integration
SPAN = BlockRange(8_000_000, 8_000_100)
JOB = f"""
kind: chain_sync
name: times
chain_id: 1
mode: {{kind: fixed_target, from_block: {SPAN.start}, to_block: {SPAN.end}}}
defaults: {{rpc_pool: dev, chunk_size: 100}}
streams:
  blocks: {{cryo_dataset_name: blocks}}
  logs: {{cryo_dataset_name: logs}}
"""


@pytest.fixture
def verify(postgres_url, s3):
    """Commit rows of logs, and blocks if asked; return the report of a check without a node."""
    variables = environment(postgres_url, s3, dev="http://127.0.0.1:9/")
    with running(postgres_url, s3, dev="http://127.0.0.1:9/") as runtime:
        runtime.jobs.apply(parse(JOB), Bounds(SPAN.start, SPAN.end))
        streams = {stream.dataset_key: stream for stream in runtime.jobs.streams()}

        def verified(*, blocks=True, level="full", **constant):
            parts = (runtime.database, runtime.store)
            if blocks:
                commit_rows(*parts, streams["blocks"], SPAN, {**FULL, "level": level})
            commit_rows(*parts, streams["logs"], SPAN, FULL, made_up_rows(streams["logs"], SPAN, **constant))
            return verify_job(
                "times", settings_from(variables), None, deep=False, repair=False, progress=lambda total: lambda: None
            ).report

        yield verified


def test_times_are_those_of_the_committed_blocks(verify):
    report = verify()
    assert report.passed, report
    assert report.unproven_times == 0


def test_another_time_is_found(verify):
    (found,) = verify(block_timestamp=datetime(2020, 1, 1, tzinfo=UTC)).findings
    assert (found.dataset_key, found.kind) == ("logs", "bad_rows")
    assert "block_timestamp is not that of the block" in found.reason
    assert f"block={SPAN.start}" in found.reason


@pytest.mark.parametrize("given", [{"blocks": False}, {"level": "structural"}])
def test_times_without_proven_blocks_are_unproven(verify, given):
    report = verify(block_timestamp=datetime(2020, 1, 1, tzinfo=UTC), **given)
    assert {found.kind for found in report.findings} <= {"hole"}
    assert report.unproven_times == 100
    assert "block_timestamp of 100 blocks is unproven: no full `blocks` are committed there" in verified_lines(
        report, 0
    )
