"""Queries by HTTP: answers as JSON, and the shape and status of every error."""

from uuid import uuid4

import pytest

from tests.support.committed import FULL, commit_rows
from tests.support.registry import apply, job_text
from tests.support.service import running_service
from trace_dagster.blocks import BlockRange

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
BLOCKS = 60


@pytest.fixture
def lake(database, store):
    streams = apply(database, job_text(to_block=BLOCKS, chunk=20))
    for stream in streams.values():
        for start in range(0, BLOCKS, 20):
            commit_rows(database, store, stream, BlockRange(start, start + 20), FULL)
    return streams


@pytest.fixture
def service(lake, postgres_url, s3):
    with running_service(postgres_url, s3) as running:
        yield running


def test_an_answer_has_rows_snapshot_and_the_id_of_the_query(service):
    query_id = str(uuid4())
    answer = service.query(
        "select count(*) as n, max(block_number) as last from blocks", headers={"Trace-Query-Id": query_id}
    )
    assert answer.status == 200
    found = answer.json()
    assert found["query_id"] == query_id == answer.headers["Trace-Query-Id"]
    assert found["columns"] == [{"name": "n", "type": "BIGINT"}, {"name": "last", "type": "BIGINT"}]
    assert found["rows"] == [[BLOCKS, BLOCKS - 1]]
    assert found["truncated"] is False
    assert [each["name"] for each in found["snapshot"]["relations"]] == ["chain_99.blocks"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
