"""Ranges below full, and ranges that earlier versions committed with a made-up status: `verify` and `certify`."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from click.testing import CliRunner

from tests.support.committed import FULL, REASON, commit_rows, lowered, made_up_rows
from tests.support.nodes import environment, running
from trace_dagster.blocks import BlockRange
from trace_dagster.cli import main
from trace_dagster.cli.verification import certify_job, verify_job
from trace_dagster.config.chain_sync import parse
from trace_dagster.config.settings import settings_from
from trace_dagster.datasets.chains import chain_of
from trace_dagster.maintenance.certificate import limits, read
from trace_dagster.maintenance.certificate_check import check_certificate
from trace_dagster.registry.jobs import Bounds

pytestmark = pytest.mark.integration
BYZANTIUM = chain_of(1).fork("byzantium")
CHUNK = 96
START = (BYZANTIUM // CHUNK - 1) * CHUNK
"""First block of three ranges: before Byzantium, across it, and after it."""

JOB = """
kind: chain_sync
name: old
chain_id: {chain}
mode: {{kind: fixed_target, from_block: {start}, to_block: {end}}}
defaults: {{rpc_pool: dev, chunk_size: {chunk}}}
streams:
  {key}: {{cryo_dataset_name: {key}, verify: {verify}}}
"""


class Lake:
    """One stream of three ranges that a test fills with commits of its own."""

    def __init__(self, runtime, variables, key="transactions", chain=1, verify="full"):
        self.spans = [BlockRange(START + at * CHUNK, START + (at + 1) * CHUNK) for at in range(3)]
        assert self.spans[1].start < BYZANTIUM < self.spans[1].end
        end = self.spans[2].end
        self.runtime, self.settings = runtime, settings_from(variables)
        job = parse(JOB.format(chain=chain, start=START, end=end, chunk=CHUNK, key=key, verify=verify))
        runtime.jobs.apply(job, Bounds(START, end))
        (self.stream,) = runtime.jobs.streams()

    def commit(self, number, verification=FULL, **constant):
        rows = made_up_rows(self.stream, self.spans[number], **constant)
        return commit_rows(
            self.runtime.database, self.runtime.store, self.stream, self.spans[number], verification, rows
        )

    def commit_with_status_since_byzantium(self, number):
        rows = made_up_rows(self.stream, self.spans[number])
        at = rows.schema.get_field_index("success")
        values = pa.array([None if block < BYZANTIUM else True for block in rows["block_number"].to_pylist()])
        rows = rows.set_column(at, rows.schema.field(at), values)
        return commit_rows(self.runtime.database, self.runtime.store, self.stream, self.spans[number], FULL, rows)

    def verify(self, *, repair=False):
        return verify_job("old", self.settings, None, deep=False, repair=repair, progress=lambda total: lambda: None)


@pytest.fixture
def variables(postgres_url, s3):
    return environment(postgres_url, s3, dev="http://127.0.0.1:9/")


@pytest.fixture
def runtime(postgres_url, s3):
    with running(postgres_url, s3, dev="http://127.0.0.1:9/") as found:
        yield found


def test_a_made_up_status_before_byzantium_is_found_and_fetched_again(runtime, variables):
    """Earlier versions committed EIP-155 transactions there as proven, each with success=false."""
    lake = Lake(runtime, variables)
    lake.commit(0, success=False)
    lake.commit(1, success=False)  # the range that holds the fork: its later half may have a status
    lake.commit(2, success=True)
    found = lake.verify().report
    assert [(each.range_start, each.kind) for each in found.findings] == [
        (lake.spans[0].start, "bad_rows"),
        (lake.spans[1].start, "bad_rows"),
    ]
    assert all(
        "before block 4370000 (Byzantium), where receipts have no status" in each.reason for each in found.findings
    )
    assert lake.verify(repair=True).repaired == 2
    lake.commit(0, success=None)
    lake.commit_with_status_since_byzantium(1)
    assert lake.verify().report.passed


@pytest.mark.parametrize(("verify", "chain", "key"), [("structural", 1, "transactions"), ("full", 56, "transactions")])
def test_rows_that_claim_nothing_and_other_chains_are_not_judged(runtime, variables, verify, chain, key):
    lake = Lake(runtime, variables, key=key, chain=chain, verify=verify)
    level = {"asked": verify, "level": verify, "checks": [], "unproven": [], "blocks": 100}
    for number in range(3):
        lake.commit(number, level, success=False)
    assert lake.verify().report.passed


def test_lowered_ranges_are_no_finding_and_their_blocks_are_reported(runtime, variables, monkeypatch):
    lake = Lake(runtime, variables, key="logs")
    lake.commit(0, lowered(first=lake.spans[0].start, blocks=4, of=CHUNK))
    lake.commit(1, lowered(first=lake.spans[1].start, blocks=CHUNK, of=CHUNK))
    lake.commit(2)
    report = lake.verify().report
    assert report.passed
    assert (report.lowered_blocks, report.lowered_reasons) == ({"structural": 100}, [REASON])
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(main.main, ["verify", "--job", "old"])
    assert done.exit_code == 0
    assert f"committed below the level of their dataset: 100 structural blocks: {REASON}" in done.stderr


def test_a_certificate_states_what_it_does_not_prove(runtime, variables, tmp_path):
    lake = Lake(runtime, variables, key="logs")
    first = lake.spans[0].start
    for number in range(3):
        lake.commit(number, lowered(first=first, blocks=4, of=CHUNK) if number == 0 else FULL)
    statement = tmp_path / "statement.json"
    statement.write_text(certify_job("old", lake.settings, None).model_dump_json())
    ranges = json.loads(statement.read_text())["ranges"]
    assert ranges[0]["lowered"] == [{"first_block": first, "blocks": 4, "level": "structural", "reason": REASON}]
    assert "lowered" not in ranges[1]
    said = list(limits(read(statement)))
    assert said[0] == f"4 blocks' rows were committed as structural only: {REASON}"
    assert said[1].startswith("before block 4,370,000 (Byzantium) a receipts root covers a state root")
    (tmp_path / "data").mkdir()
    with runtime.database.connection() as connection:
        for row in connection.execute("select file_key from trace.files").fetchall():
            key = row["file_key"]
            (tmp_path / "data" / key.rpartition("/")[2]).write_bytes(runtime.store.get(key)[0])
    wrong, checked = check_certificate(read(statement), tmp_path / "data", None)
    assert (wrong, checked) == ([], {"rows": 3 * CHUNK, "receipts roots": 0, "times": 0})
    done = CliRunner().invoke(main.main, ["certify", "--check", str(statement), "--data", str(tmp_path / "data")])
    assert done.exit_code == 0
    assert f"note: {said[0]}" in done.stderr
    assert f"note: {said[1]}" in done.stderr


def test_a_certificate_of_proven_rows_leaves_only_their_times_open(runtime, variables):
    lake = Lake(runtime, variables, key="logs", chain=56)
    for number in range(3):
        lake.commit(number)
    said = list(limits(certify_job("old", lake.settings, None)))
    assert said == [f"block_timestamp of {3 * CHUNK} blocks in logs is unproven: no `blocks` are stated for them"]
