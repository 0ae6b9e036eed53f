"""The modules that each kind of process imports: no process imports parts that it does not use."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.nodes import environment
from tests.support.registry import apply, job_text
from trace_dagster.devchain.constants import CHAIN_ID
from trace_dagster.store.access import S3Access

pytestmark = pytest.mark.integration
EXTRACTION = {
    "cryo",
    "polars",
    "trace_dagster.engine",
    "trace_dagster.extraction.extractor",
    "trace_dagster.ingest.ingester",
}
PROOF = {"coincurve", "msgspec", "trace_dagster.evidence.collector", "trace_dagster.verify"}
STORE = {"boto3", "botocore", "pyarrow", "trace_dagster.ingest.commit", "trace_dagster.store.objects"}
NODES = {"urllib3", "trace_dagster.rpc.client"}
QUERIES = {"duckdb", "_duckdb", "trace_dagster.analytics.derive", "trace_dagster.query.session"}
STAND_INS = {"trace_dagster.chaos_rpc", "trace_dagster.devchain.chain"}
PARTS = EXTRACTION | PROOF | STORE | NODES | QUERIES | STAND_INS
"""All that it takes to fill a lake and to read it."""

STREAMS = "\n  ".join(
    f"{name}: {{cryo_dataset_name: {name}}}" for name in ("blocks", "transactions", "logs", "traces", "geth_calls")
)
LOCATION = """
from trace_dagster.definitions import defs
defs.get_repository_def().load_all_definitions()
print(len(list(defs.assets)))
"""
TICK = """
import os
from trace_dagster.defs.sensors import plan_tick
from trace_dagster.runtime import Runtime
from trace_dagster.config.settings import settings_from
print(plan_tick(Runtime(settings_from(os.environ)))[0])
"""
RUN = """
import os
from dagster import build_init_resource_context
from trace_dagster.defs.resources import commit_io_manager
from trace_dagster.runtime import Runtime
from trace_dagster.config.settings import settings_from
runtime = Runtime(settings_from(os.environ))
commit_io_manager(build_init_resource_context(resources={"trace": runtime}))
print(type(runtime.ingester).__name__)
"""


@pytest.fixture
def variables(database, postgres_url):
    """Return the environment of a process over a registry with one job of five streams, and analytics of its chain."""
    apply(database, job_text(streams=STREAMS).replace("chain_id: 99", f"chain_id: {CHAIN_ID}"))
    return environment(postgres_url, S3Access("lake", "none", "none", "http://127.0.0.1:1"))


def imports(*arguments: str, variables=None) -> tuple[str, set[str]]:
    """Return the output of a fresh interpreter, and the name of every module and package that it imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        env={**os.environ, **(variables or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return done.stdout, {line.rpartition("|")[2].strip() for line in lines}


def ours(found: set[str]) -> set[str]:
    return {name for name in found if name.partition(".")[0] == "trace_dagster"}


def test_the_location_describes_assets_without_what_runs_them(variables):
    printed, found = imports("-c", LOCATION, variables=variables)
    assert int(printed) == 13, "five streams and their windows, three analytics"
    assert found & PARTS == set()


def test_planning_takes_no_more_than_the_location(variables):
    printed, found = imports("-c", LOCATION + TICK, variables=variables)
    assert int(printed.split()[-1]) == 0, "no head was seen: nothing to plan"
    assert found & PARTS == set()


def test_a_run_imports_no_queries_and_leaves_cryo_to_its_workers(variables):
    printed, found = imports("-c", LOCATION + RUN, variables=variables)
    assert printed.split()[-1] == "Ingester"
    assert found & (QUERIES | STAND_INS | {"cryo"}) == set()
    assert found >= {
        "obstore",
        "coincurve",
        "pyarrow",
        "trace_dagster.extraction.extractor",
        "trace_dagster.verify.check",
    }


def test_arrow_takes_the_allocator_that_gives_memory_back():
    program = "import trace_dagster, pyarrow; print(pyarrow.default_memory_pool().backend_name)"
    assert imports("-c", program)[0].split() == ["system"]


def test_an_engine_worker_imports_cryo_and_nothing_of_ours():
    printed, found = imports("-m", "trace_dagster.engine.worker")
    assert printed.endswith("ready")
    assert "cryo" in found
    assert ours(found) == {"trace_dagster", "trace_dagster.engine"}
    assert not found & {"dagster", "pydantic", "psycopg"}


def test_help_is_there_before_anything_else():
    printed, found = imports("-m", "trace_dagster.cli.main", "--help")
    assert printed.startswith("Usage")
    assert ours(found) == {
        "trace_dagster",
        "trace_dagster.blocks",
        "trace_dagster.cli",
        "trace_dagster.messages",
        "trace_dagster.messages.printable",
        "trace_dagster.messages.redaction",
        "trace_dagster.errors",
    }
    assert not found & {"dagster", "humanize", "pyarrow", "psycopg", "pydantic", "rich"}


def test_the_status_is_read_from_the_registry_alone(variables):
    printed, found = imports("-m", "trace_dagster.cli.main", "status", "--json", variables=variables)
    assert '"streams"' in printed
    assert found & (PARTS | {"dagster"}) == set()
