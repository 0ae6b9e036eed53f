"""`trace-lite query` through a service and without one: the same answer, and a clear error or a fall back between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from tests.conftest import cloned_database, fresh_bucket
from tests.support.corpus_lake import commit_lake
from tests.support.nodes import environment
from tests.support.service import running_service
from trace_dagster.cli.main import main
from trace_dagster.registry.connection import Database
from trace_dagster.store.objects import ObjectStore

pytestmark = pytest.mark.integration
DEAD = "http://127.0.0.1:9"
ENDLESS = "select count(*) from range(1000000) a, range(1000000) b where a.range + b.range = -1"
SQL = "select block_number, block_hash, gas_used::hugeint << 60 as big, null as none from blocks order by 1"


@pytest.fixture(scope="module")
def filled(postgres, template_database, s3_server):
    with cloned_database(*postgres, template_database) as url, fresh_bucket(s3_server) as access:
        database = Database(url)
        commit_lake(database, ObjectStore(access), 40)
        database.close()
        yield url, access


@pytest.fixture(scope="module")
def service(filled):
    with running_service(*filled) as found:
        yield found


@pytest.fixture
def here(filled, tmp_path):
    """Return the variables of a user without a service."""
    return environment(*filled) | {"TRACE_HOME": str(tmp_path), "TRACE_QUERY_URL": "", "TRACE_QUERY_TOKEN": ""}


@pytest.fixture
def there(service, tmp_path):
    """Return the variables of a user who has the service, and neither the registry nor the bucket."""
    return {"TRACE_HOME": str(tmp_path), "TRACE_QUERY_URL": service.url, "TRACE_QUERY_TOKEN": service.token}


def asked(variables, *arguments):
    """Return (exit code, stdout, stderr) of a query."""
    done = CliRunner().invoke(main, ["query", *arguments], env=variables)
    return done.exit_code, done.stdout_bytes, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        (SQL,),
        (SQL, "--limit", "3"),
        ("select true as b, [null, 'x'] as l, {'k': false, 'n': null} as s, map {'a': 1} as m",),
        ("select 1 as one", "--json"),
        (SQL, "--json", "--limit", "20000"),
        ("select block_number from blocks", "--as-of", "7", "--limit", "5"),
        ("select $d as d, $t as t, $h as h", "--parameter", "d=1.50", "--parameter", "t=it's", "--parameter",
         'h={"type": "binary", "value": "0xab"}', "--json"),
        ("select ? + 1", "--parameter", "1=5"),
        ("describe blocks",),
        ("explain select * from blocks",),
        (SQL, "--format", "csv"),
        (SQL, "--format", "csv", "--limit", "2"),
        (SQL, "--format", "arrow"),
        ("select * from nothing",),
        ("select 1", "--as-of", "yesterday"),
        ("select 1; select 2",),
        ("select $x",),
        ("drop table blocks",),
    ],
    ids=str,
)  # fmt: skip
def test_the_answer_is_the_same_whoever_runs_the_query(here, there, arguments):
    own = asked(here, *arguments)
    by_service = asked(there, *arguments)
    assert by_service == own
    assert own[1] or own[2].startswith("error: ")


def test_a_file_has_all_rows(here, there, tmp_path):
    path = tmp_path / "rows.parquet"
    for variables in (here, there):
        assert asked(variables, SQL, "--output", str(path)) == (0, b"", "")
        assert pq.read_table(path).num_rows == 40
        path.unlink()


def test_formats_that_do_not_fit_are_refused(there, tmp_path):
    path = str(tmp_path / "rows.txt")
    assert "must end in one of .arrow, .csv, .parquet" in asked(there, SQL, "--output", path)[2]
    assert "--output needs --format csv" in asked(there, SQL, "--output", path, "--json")[2]
    for form in ("csv", "arrow", "parquet", "table"):
        refused = (2, b"", f"error: --json and --format {form} exclude each other: give one of them\n")
        assert asked(there, "select 1 as a", "--json", "--format", form) == refused
    assert asked(there, "select 1 as a", "--json", "--format", "json")[0] == 0
    assert asked(there, SQL, "--output", path, "--format", "csv")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("select $x",), "parameter $x has no value"), (("select 1", "--parameter", "x=5"), "has no parameter $x")],
)
def test_an_error_of_parameters_says_how_to_write_them_here(here, there, arguments, said):
    code, _, err = asked(there, *arguments)
    assert asked(here, *arguments) == (code, b"", err)
    assert code == 2
    assert said in err
    assert "; `--parameter NAME=VALUE` gives a value, and a shell keeps $NAME only in single quotes" in err


def test_the_limits_of_the_environment_hold_without_a_service_too(here):
    code, _, said = asked(here | {"TRACE_QUERY_SECONDS": "1"}, ENDLESS)
    assert code == 1
    assert "the query took too long" in said


def test_a_service_that_the_user_names_must_answer(here):
    code, out, err = asked(here | {"TRACE_QUERY_URL": DEAD, "TRACE_QUERY_TOKEN": "t" * 20}, "select 1")
    assert (code, out) == (1, b"")
    assert err.startswith("error: no query service answers at ")
    assert "start it, or check its URL" in err


def test_the_stacks_service_may_be_away(here, tmp_path):
    state = {
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "stack_id": "s",
        "web_url": "http://127.0.0.1:1",
        "s3_endpoint": here["TRACE_S3_ENDPOINT"],
        "postgres_address": "127.0.0.1:1",
        "devchain_address": "127.0.0.1:1",
        "variables": here | {"TRACE_QUERY_URL": DEAD, "TRACE_QUERY_TOKEN": "t" * 20},
    }
    (tmp_path / "stack.json").write_text(json.dumps(state))
    code, out, err = asked(here, "select 1 as one", "--json")
    assert code == 0
    assert json.loads(out)["rows"] == [[1]]
    assert err == "note: the query service of the stack does not answer: this command runs the query itself\n"


def test_a_wrong_token_says_where_to_get_one(there):
    code, _, err = asked(there | {"TRACE_QUERY_TOKEN": "trace_" + "x" * 43}, "select 1")
    assert code == 2
    assert "trace-lite token new" in err


@pytest.mark.parametrize("form", ["table", "csv"])
def test_an_interrupt_ends_the_query_on_the_service(service, there, form):
    _until(lambda: not _running(service))  # what an earlier test asked is logged as ended a moment after its answer
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "trace_dagster.cli.main", "query", ENDLESS, "--format", form],
        env={**os.environ, **there},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        _until(lambda: _running(service))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130, err
    _until(lambda: not _running(service))
    assert time.monotonic() - began < 60


def _running(service):
    database = Database(service.postgres_url, max_connections=1)
    try:
        with database.transaction() as session:
            found = session.connection.execute(
                "select count(*) as n from trace.query_log where ended_at is null"
            ).fetchone()
        return found["n"] > 0
    finally:
        database.close()


def _until(is_so, seconds=50):
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)
