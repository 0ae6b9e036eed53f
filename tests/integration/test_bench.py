"""Tiny versions of the benchmarks on their own stack: they must measure what their names say, at any speed."""

import os
import re
import subprocess
import sys
import tempfile
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import psycopg
import pytest

from bench import bare, end_to_end, etl, lake, limits, memory, node, product, ranges, raw, rivals, run, usage
from bench.product import DATASETS, Synced, lines, stack_at
from bench.slow_s3 import door
from bench.table import Compared, Failed, in_turn, markdown
from bench.verification import services
from tests.support.left_out import ETHEREUM_ETL, leave_out
from trace_dagster.lite.ports import Ports
from trace_dagster.lite.postgres import dsn, postgres_service
from trace_dagster.lite.processes import STACK_VARIABLE, Child

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

BLOCKS, CHUNK, RANGES = 40, 20, 20


@pytest.fixture(scope="module")
def chain():
    """Return the chain that the node serves."""
    return node.Chain(BLOCKS, templates=BLOCKS + 11)


@pytest.fixture(scope="module")
def line():
    with lines(BLOCKS, [0.0]) as (found,):
        yield found


@pytest.fixture(scope="module")
def measured(line):
    """Run one round through Dagster (a job, then a backfill), and during it one part that needs no Dagster.

    Processes are sampled often, because an engine worker of so small a job lives for less than a second.
    """
    with (
        pytest.MonkeyPatch.context() as patch,
        stack_at([line]) as environment,
        memory.registry(line.url) as variables,
        ThreadPoolExecutor() as threads,
    ):
        patch.setattr(product, "CLOCK_SECONDS", 0.1)
        beside = threads.submit(
            memory.measure, variables, line, blocks=BLOCKS, small=CHUNK, ranges=RANGES, size=2, verify="full"
        )
        cases = [end_to_end.Case("full", CHUNK), end_to_end.Case("full", CHUNK, "native")]
        pairs = end_to_end.measure(environment, line, blocks=BLOCKS, cases=cases)
        yield pairs, ranges.measure(environment, line, ranges=RANGES), beside.result()


def rows_of(chain, datasets, blocks):
    return sum(chain.rows(dataset, 0, blocks) for dataset in datasets)


def test_bare_and_product_bring_the_same_rows_from_end_to_end(measured, chain):
    (pairs, _, _) = measured
    for pair in pairs:
        assert pair.product.ranges == BLOCKS // CHUNK * len(DATASETS)
        assert pair.product.rows == pair.bare.rows == rows_of(chain, DATASETS, BLOCKS)
        assert 0 < pair.product.working < pair.product.seconds
        assert pair.product.cpu["runs and code server"] > pair.product.cpu["postgres"] > 0
        assert (pair.product.cpu.get("engine", 0) > 0) is (pair.case.engine == "cryo")
        assert all(row.ratio > 0 for row in end_to_end.compared([pair]))


def test_one_backfill_commits_every_planned_range(measured, chain):
    _, backfill, _ = measured
    assert len(backfill.commits) == RANGES
    assert list(backfill.commits) == sorted(backfill.commits)
    assert backfill.commits[0] > 0
    assert backfill.rows == backfill.bare.rows == rows_of(chain, ["blocks"], RANGES)
    assert sum(backfill.spent[1:]) <= backfill.spent[0]
    assert len(ranges.compared([backfill])) == 4


def test_memory_is_seen_of_the_run_and_of_its_workers(measured):
    *_, found = measured
    assert len(found.small.commits) == BLOCKS // CHUNK * len(DATASETS)
    assert len(found.large.commits) == len(DATASETS)
    assert len(found.along.commits) == RANGES
    for row in memory.compared([found]):
        ours, other = row.pairs[0]
        assert 50 < ours < 4000
        assert 50 < other < 4000


def test_limits_are_held_by_two_processes():
    found = limits.held(1, 4.0, "held")
    assert 0.8 * limits.LIMIT < found.calls_per_second <= 1.05 * limits.LIMIT
    assert found.refused == 0
    worth = limits.Worth(0.05, 300, 1.0, 2.0, (10, 20))
    rows = limits.compared([limits.Round(found, found, (worth,))])
    assert [row.ratio > 0 for row in rows] == [True] * 3


def test_a_raw_fetch_gets_every_answer_whatever_the_connections(line):
    one, many = (raw.fetch(line.url, BLOCKS, connections) for connections in (1, 7))
    assert one.answers == many.answers == BLOCKS * len(raw.METHODS)
    assert one.bytes == many.bytes > 100 * BLOCKS


def test_ethereum_etl_gets_the_same_rows(line, chain):
    try:
        etl.install()
    except RuntimeError as error:
        leave_out(ETHEREUM_ETL, str(error).strip().splitlines()[-1])
    rows = etl.export(line.url, BLOCKS, etl.Setting(10, 2)).rows
    transactions = rows_of(chain, ["transactions"], BLOCKS)
    assert rows["blocks"] == BLOCKS
    assert rows["transactions"] == rows["receipts"] == transactions
    assert rows["logs"] == rows_of(chain, ["logs"], BLOCKS)


def test_a_rival_that_is_missing_has_a_line_that_says_so(line):
    planned = rivals.Setup(BLOCKS, 0, (), 4, missing="no index")
    product = Synced(seconds=3.0, starting=1.0, ranges=6, rows=1, cpu={"engine": 1.0})
    ended = rivals.Round(line, planned, product, (), raw.fetch(line.url, BLOCKS, 4))
    missing, beside_raw = rivals.compared([ended])
    assert isinstance(missing, Failed)
    assert beside_raw.pairs[0][0] == pytest.approx(2.0 / BLOCKS * 1000)


def test_bare_cryo_that_fails_is_an_error():
    with pytest.raises(RuntimeError, match="bare cryo failed"):
        bare.freeze("http://127.0.0.1:9", 10, 10, ["blocks"])


def test_a_run_goes_on_after_a_part_that_fails_and_keeps_what_it_had(monkeypatch):
    row = Compared("one", "s", ((2.0, 1.0),))

    def failing(_):
        yield [row]
        raise SystemExit("no node")

    monkeypatch.setattr(run, "PARTS", {"failing": failing, "fine": lambda _: iter([[row]])})
    written = []
    done = run.run(["failing", "fine"], run.QUICK, written.append)
    assert done == [row, Failed("failing", "SystemExit: no node"), row]
    assert written[0] == [row]
    assert written[-1] == done


def test_results_replace_only_what_an_earlier_run_wrote(tmp_path):
    path = tmp_path / "RESULTS.md"
    path.write_text(f"before\n{run.BEGIN}\nold\n{run.END}\nafter\n")
    run.put("new", path)
    assert path.read_text() == f"before\n{run.BEGIN}\n\nnew\n\n{run.END}\nafter\n"


def test_the_results_have_a_place_for_the_table():
    text = run.RESULTS.read_text()
    assert text.index(run.BEGIN) < text.index(run.END)


def test_the_table_has_medians_and_the_median_of_the_ratios():
    table = markdown([Compared("what", "s", ((1.0, 1.0), (4.0, 2.0), (9.0, 3.0)), "why"), Failed("x", "a\nb | c")])
    *_, measured, failed = table.splitlines()
    assert measured == "| what | 4 | 2 | s | 2.00 | 1.00 - 3.00, 3 | why |"
    assert failed == "| x | | | | | | failed: a b / c |"


@pytest.mark.parametrize(("number", "order"), [(0, ["ours", "theirs"]), (1, ["theirs", "ours"])])
def test_pairs_alternate(number, order):
    done = []
    assert in_turn(number, lambda: done.append("ours") or 1, lambda: done.append("theirs") or 2) == (1, 2)
    assert done == order


def test_what_ends_with_a_run_is_waited_for():
    command = [sys.executable, "-c", "import time; time.sleep(1)", "engine.worker"]
    with subprocess.Popen(command, env={**os.environ, STACK_VARIABLE: "here"}) as process:
        usage.await_idle("elsewhere")
        assert process.poll() is None
        usage.await_idle("here")
        assert process.wait(0.5) == 0


def test_what_postgres_does_for_an_open_connection_is_counted_once(open_folder):
    """A backend of Postgres overwrites its environment with its title, so the stack's mark cannot be read from it."""
    port = Ports({}).take()
    child = Child(postgres_service(open_folder / "counted", port, "counted"), open_folder / "counted.log", "counted")
    try:
        child.wait_healthy()
        with psycopg.connect(dsn(port, "counted", "postgres")) as connection, usage.Usage("counted", 60.0) as looks:
            backend = psutil.Process(connection.info.backend_pid)
            before = sum(backend.cpu_times()[:2])
            connection.execute("select max(md5(n::text)) from generate_series(1, 2000000) n")
            spent = sum(backend.cpu_times()[:2]) - before
        assert spent > 0.1
        assert looks.cpu()[usage.POSTGRES] == pytest.approx(spent, rel=0.5)
    finally:
        child.signal_stop()
        child.wait_stopped(10)


def test_a_compacted_lake_is_measured_beside_the_same_lake_before():
    """The bench itself compares the rows of both sides, and fails if one query's answers differ."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        services(Path(folder)) as direct,
        door(direct["TRACE_S3_ENDPOINT"].removeprefix("http://"), 0.001) as at,
    ):
        options = Namespace(ranges=16, rows=40, rounds=1, query_rounds=1, hash_rows=800)
        rows = {row.what: row for row in lake.measure(direct, at, options)}
    assert all(row.ratio > 0 for row in rows.values())
    (scanned,) = (row for what, row in rows.items() if what.startswith("full scan: compacted"))
    ours, theirs = map(int, re.findall(r"\d+", scanned.note.removeprefix("S3 requests: ")))
    assert ours < theirs
