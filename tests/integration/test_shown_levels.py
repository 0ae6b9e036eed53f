"""The level that each range reached, where people look: `status`, `apply --wait`, Dagster's pages and checks."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from dagster import AssetCheckSeverity

from tests.support.committed import FULL, REASON, commit_rows, lowered
from tests.support.nodes import environment
from tests.support.registry import apply, job_text
from trace_dagster.blocks import BlockRange
from trace_dagster.cli import main
from trace_dagster.cli.commands import watch
from trace_dagster.config.settings import settings_from
from trace_dagster.defs.materializations import commit_metadata, materialization
from trace_dagster.defs.streams import asset_key
from trace_dagster.defs.verification_check import verification_evaluation
from trace_dagster.registry.forks import Forks
from trace_dagster.registry.jobs import Jobs
from trace_dagster.registry.status import job_statuses

pytestmark = pytest.mark.integration
LOGS = "logs: {cryo_dataset_name: logs}"


def span(number):
    return BlockRange(number * 100, number * 100 + 100)


@pytest.fixture
def stream(database):
    return apply(database, job_text(to_block=400, streams=LOGS))["logs"]


@pytest.fixture
def lake(database, store, stream):
    """Commit four ranges: one in full, three with lowered blocks for two reasons."""
    commit_rows(database, store, stream, span(0), FULL)
    for number in (1, 2):
        commit_rows(database, store, stream, span(number), lowered(first=100, blocks=4, of=100))
    other = lowered(first=300, blocks=100, of=100, level="crosschecked", reason="roots are left out")
    commit_rows(database, store, stream, span(3), other)
    return stream


LINE = f"4 ranges: 1 full, 1 crosschecked, 2 structural: roots are left out; {REASON}"


def status_of(database):
    (job,) = job_statuses(database, Jobs(database))
    (stream,) = job.streams
    return stream


def test_a_stream_without_lowered_blocks_says_nothing_more(database, store, stream):
    assert status_of(database).lowered_line() is None
    commit_rows(database, store, stream, span(0), FULL)
    commit_rows(database, store, stream, span(1), {"asked": "structural", "level": "structural", "blocks": 100})
    found = status_of(database)
    assert (found.lowered_line(), found.lowered_reasons) == (None, [])
    assert found.verified == {"full": 1, "structural": 1}


def test_ranges_are_counted_by_their_lowest_level_with_the_reasons(database, lake):
    found = status_of(database)
    assert found.verified == {"full": 1, "crosschecked": 1, "structural": 2}
    assert found.lowered_line() == LINE


def test_a_range_that_was_replaced_gives_no_reason(database, store, lake):
    with database.connection() as connection:
        rows = connection.execute("select dataset_version from trace.dataset_versions where lower(block_range) > 0")
        Forks(database).invalidate([row["dataset_version"] for row in rows], "test")
    assert status_of(database).lowered_line() is None


def test_many_reasons_are_cut(database, store, stream):
    for number in range(4):
        mark = lowered(first=number * 100, blocks=1, of=100, reason=f"reason {number}")
        commit_rows(database, store, stream, span(number), mark)
    line = status_of(database).lowered_line()
    assert line == "4 ranges: 4 structural: reason 0; reason 1; reason 2; and 1 more reasons"


def test_the_commands_show_it(database, lake, postgres_url, s3, monkeypatch):
    variables = environment(postgres_url, s3)
    said = []
    assert watch("job", settings_from(variables), said.append) == 0
    assert said == ["job: every range is committed", f"logs: {LINE}"]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert f"logs: {LINE}" in CliRunner().invoke(main.main, ["status"]).stdout.splitlines()
    (job,) = json.loads(CliRunner().invoke(main.main, ["status", "--json"]).stdout)["jobs"]
    (shown,) = job["streams"]
    assert shown["lowered_reasons"] == ["roots are left out", REASON]
    assert shown["verified"] == {"full": 1, "crosschecked": 1, "structural": 2}


def test_a_commits_metadata_counts_lowered_blocks(database, store, stream):
    key = asset_key(99, "logs")
    full = commit_rows(database, store, stream, span(0), FULL)
    assert commit_metadata(full)["lowered_blocks"] == 0
    assert "of blocks" in (materialization(key, full).description or "")
    assert "(" not in (materialization(key, full).description or "").partition("verified: ")[2]
    some = commit_rows(database, store, stream, span(1), lowered(first=100, blocks=4, of=100))
    assert commit_metadata(some)["lowered_blocks"] == 4
    description = materialization(key, some).description or ""
    assert description.endswith(f"verified: structural (4 structural of 100 blocks: {REASON})")


@pytest.mark.parametrize(
    ("verification", "passed", "words"),
    [
        (FULL, True, "every row is proven"),
        (
            lowered(first=0, blocks=4, of=100),
            False,
            f"BELOW WHAT THE STREAM ASKS: 4 structural of 100 blocks: {REASON}",
        ),
        (
            lowered(first=0, blocks=100, of=100, level="crosschecked"),
            False,
            f"BELOW WHAT THE STREAM ASKS: 100 crosschecked of 100 blocks: {REASON}",
        ),
        ({"asked": "structural", "level": "structural", "blocks": 100}, False, "STRUCTURE ONLY"),
    ],
)
def test_the_asset_check_warns_of_rows_below_what_was_asked(database, store, stream, verification, passed, words):
    published = commit_rows(database, store, stream, span(0), verification)
    shown = verification_evaluation(asset_key(99, "logs"), published)
    assert (shown.passed, shown.severity) == (passed, AssetCheckSeverity.WARN)
    assert (shown.description or "").startswith(words)
    assert shown.metadata["lowered"].value == verification.get("lowered", [])
