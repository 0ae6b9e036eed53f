"""Queries that sort more than their memory holds: on a bounded disk, and nothing of it is left."""

import os
import subprocess
import sys
import tempfile

import pytest

from tests.support.query_processes import await_end, child_of, children
from trace_dagster.errors import InvalidInput
from trace_dagster.query.protocol import QueryLimits
from trace_dagster.query.runner import QueryRunner
from trace_dagster.store.access import S3Access

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

NOWHERE = S3Access("none", "key", "secret", "http://127.0.0.1:1")
SORT = "select hash(range) as h, repeat('x', 50) as x from range(1500000) order by h"
LIMITS = {"memory_mib": 80, "timeout_seconds": 200.0, "stream_seconds": 200.0}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"trace-queries-{os.getuid()}"


def files(root):
    return [name for _, _, names in os.walk(root) for name in names]


def test_a_sort_beyond_the_memory_ends_and_leaves_nothing(root):
    with QueryRunner(QueryLimits(**LIMITS, temporary_mib=1024)) as runner:
        with runner.stream(SORT, [], NOWHERE, "csv") as stream:
            assert files(root)
            assert b"".join(stream).count(b"\r\n") == 1_500_001
        assert files(root) == []
        assert len(os.listdir(root)) == 1
    assert os.listdir(root) == []


@pytest.mark.parametrize(("mib", "reason"), [(16, "more disk"), (0, "more memory")])
def test_a_sort_beyond_its_disk_says_so(root, mib, reason):
    with QueryRunner(QueryLimits(**LIMITS, temporary_mib=mib), refill=False) as runner:
        with pytest.raises(InvalidInput, match=reason):
            runner.query(SORT, [], NOWHERE)
        assert files(root) == []


def test_a_killed_query_leaves_nothing(root):
    with QueryRunner(QueryLimits(**LIMITS, temporary_mib=1024), refill=False) as runner:
        with runner.stream(SORT, [], NOWHERE, "csv") as stream:
            assert files(root)
            child_of(stream).kill()
            with pytest.raises(InvalidInput, match="memory"):  # a process is killed from outside when memory is short
                list(stream)
        assert files(root) == []


def test_what_a_killed_parent_leaves_goes_when_the_next_one_starts(root, tmp_path):
    script = f"""
import sys
from trace_dagster.query.protocol import QueryLimits
from trace_dagster.query.runner import QueryRunner
from trace_dagster.store.access import S3Access
limits = QueryLimits(**{LIMITS!r}, temporary_mib=1024)
runner = QueryRunner(limits, refill=False)
with runner.stream({SORT!r}, [], S3Access("none", "key", "secret", "http://127.0.0.1:1"), "csv") as stream:
    print("begun", flush=True)
    sys.stdin.read()
"""
    given = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": {**os.environ, "TMPDIR": str(tmp_path)}}
    with subprocess.Popen([sys.executable, "-c", script], text=True, **given) as parent:
        assert parent.stdout.readline() == "begun\n"
        assert files(root)
        pids = children(parent.pid)
        parent.kill()
    await_end(pids)
    assert len(pids) == 1
    assert files(root)
    QueryRunner(QueryLimits(**LIMITS, temporary_mib=1024), ahead=0, refill=False).close()
    assert os.listdir(root) == []
