"""The memory of a compaction depends neither on the size of its window nor on that of a version or a row."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from tests.support.committed import FULL, commit_rows, made_up_rows
from tests.support.registry import apply, job_text
from trace_dagster.blocks import BlockRange
from trace_dagster.registry.streams import StreamSpec
from trace_dagster.store.access import S3Access

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

MIB = 1 << 20
CHUNK = 10

_COMPACT = r"""
# VmHWM: ru_maxrss counts the memory of the parent before exec too
import re, sys
from pathlib import Path
from tests.support.compaction import window_of
from trace_dagster.compaction.compactor import Compactor
from trace_dagster.registry.connection import Database
from trace_dagster.registry.jobs import Jobs
from trace_dagster.store.access import S3Access
from trace_dagster.store.objects import ObjectStore

url, bucket, key, secret, endpoint, end = sys.argv[1:]
database, store = Database(url), ObjectStore(S3Access(bucket, key, secret, endpoint))
(stream,) = Jobs(database).streams()
result = Compactor(database, store).compact(window_of(stream, 0, int(end)))
database.close()
peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]
print(result.outcome.value, result.bytes_after, int(peak) // 1024)
"""


def wide(stream: StreamSpec, span: BlockRange, rows: int, row_bytes: int) -> pa.Table:
    """Return rows whose data does not compress."""
    table = made_up_rows(stream, span)
    table = pa.concat_tables([table] * (rows // table.num_rows + 1)).slice(0, rows).sort_by("block_number")
    at = table.schema.get_field_index("data")
    values = pa.array([os.urandom(row_bytes) for _ in range(rows)], pa.large_binary())
    return table.set_column(at, table.schema.field(at), values)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of another process's memory: Linux")
@pytest.mark.parametrize(
    ("versions", "rows", "row_bytes"), [(2, 200, MIB), (1, 20, 12 * MIB)], ids=["large versions", "large rows"]
)
def test_memory_is_bounded(database, store, s3: S3Access, postgres_url, versions, rows, row_bytes):
    """The window has 400 MiB, or rows that are nearly as large as a row group."""
    end = CHUNK * (versions + 1)
    stream = apply(database, job_text(to_block=end, chunk=CHUNK, streams="logs: {cryo_dataset_name: logs}"))["logs"]
    for span in BlockRange(0, end - CHUNK).split(CHUNK):
        commit_rows(database, store, stream, span, FULL, wide(stream, span, rows, row_bytes))
    commit_rows(database, store, stream, BlockRange(end - CHUNK, end), FULL)
    arguments = [postgres_url, s3.bucket, s3.access_key, s3.secret_key, s3.endpoint, str(end)]
    done = subprocess.run([sys.executable, "-c", _COMPACT, *arguments], capture_output=True, text=True, check=True)
    outcome, size, peak = done.stdout.split()
    print(f"peak memory: {peak} MiB for {int(size) // MIB} MiB")
    assert outcome == "compacted"
    assert int(size) > versions * rows * row_bytes
    assert int(peak) < 1024
