"""The real engine with a real node on loopback, and with nodes that misbehave."""

import logging
import os
import signal
import socket
import stat
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from tests.support.nodes import serving
from trace_dagster.blocks import BlockRange
from trace_dagster.config.settings import Settings
from trace_dagster.datasets.catalogue import catalogue, dataset
from trace_dagster.devchain.chain import DevChain
from trace_dagster.engine.base import ExtractRequest
from trace_dagster.engine.binary import CryoBinary, sweep
from trace_dagster.engine.embedded import EmbeddedCryo
from trace_dagster.engine.fake import FakeCryo
from trace_dagster.engine.select import selected_engine
from trace_dagster.engine.workers import CallFailed, WorkerGone
from trace_dagster.errors import ExtractionFailed, InvalidInput, NoAnswer, Unavailable, UnknownFormat
from trace_dagster.extraction.extractor import Extractor
from trace_dagster.extraction.request import RangeRequest
from trace_dagster.messages.logs import facts_of
from trace_dagster.rpc.client import require_chain
from trace_dagster.rpc.pools import RpcPool

pytestmark = pytest.mark.integration
BLOCKS = 300
DATASETS = ("blocks", "transactions", "logs", "geth_calls")


@pytest.fixture(scope="module")
def chain():
    return DevChain(7, BLOCKS)


@pytest.fixture(scope="module")
def pool(chain):
    with serving(chain) as url:
        yield RpcPool("devchain", (url,))


@pytest.fixture(scope="module")
def engine():
    opened = EmbeddedCryo()
    yield opened
    opened.close()


def request(name, pool, start=0, end=200, columns=None):
    known = dataset(name)
    schema = known.engine_schema(columns or known.stored_columns())
    return ExtractRequest(known, BlockRange(start, end), 20143, schema, pool.endpoints[0], timeout_seconds=60.0)


def whole(name, pool, start=0, end=200):
    known = dataset(name)
    columns = known.stored_columns()
    return RangeRequest(
        known, BlockRange(start, end), 20143, columns, "structural", pool, None, {"timeout_seconds": 60}
    )


def rows(engine, name, pool, start=0, end=200, piece_blocks=64):
    """Return the number of rows of a range, extracted with the retries that every range has."""
    pieces = Extractor(engine, piece_blocks=piece_blocks).start(whole(name, pool, start, end))
    return sum(piece.table.num_rows for piece in pieces)


@pytest.mark.parametrize("name", DATASETS)
def test_counts_and_schema_are_the_chains(engine, pool, chain, name):
    pieces = list(Extractor(engine, piece_blocks=64).start(whole(name, pool)))
    assert [piece.block_range.start for piece in pieces] == [0, 64, 128, 192]
    assert all(piece.table.schema == dataset(name).schema(dataset(name).stored_columns()) for piece in pieces)
    assert sum(piece.table.num_rows for piece in pieces) == chain.rows(name, 0, 200)


@pytest.mark.parametrize("name", DATASETS)
def test_every_known_column_can_be_asked_for(engine, pool, name):
    wanted = request(name, pool, 5, 9, tuple(dataset(name).all_columns))
    assert engine.extract(wanted).schema == wanted.schema


def test_columns_of_another_type_are_a_form_this_version_does_not_know(engine, pool):
    """A newer Cryo may have other columns. They stop the stream and are not written."""
    wanted = request("blocks", pool, 5, 9)
    newer = wanted.schema.set(wanted.schema.get_field_index("block_number"), pa.field("block_number", pa.uint64()))
    with pytest.raises(UnknownFormat, match="columns are not those this version knows"):
        engine.extract(replace(wanted, schema=newer))
    renamed = pa.schema([*wanted.schema, pa.field("withdrawals_root", pa.large_binary())])
    with pytest.raises(UnknownFormat, match="gave no column"):
        engine.extract(replace(wanted, schema=renamed))


def test_eight_ranges_at_once(engine, pool, chain):
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda n: rows(engine, DATASETS[n % 4], pool, 0, 100), range(8)))
    assert found == [chain.rows(DATASETS[n % 4], 0, 100) for n in range(8)]


def test_a_range_past_the_head_says_so(engine, pool):
    with pytest.raises(
        ExtractionFailed, match=f"past the end of the chain: rpc endpoint devchain#1 is at block {BLOCKS - 1}"
    ):
        rows(engine, "blocks", pool, 290, 400)


def test_a_method_the_node_lacks_says_so(engine, pool):
    with pytest.raises(ExtractionFailed, match="does not support what dataset traces needs"):
        rows(engine, "traces", pool, 0, 10)


SECRET = "http://alice:hunter2secret@127.0.0.1:{port}/v1/KEY4f3a2b1c?token=abcdef123456"


@contextmanager
def listening(answer):
    """Serve every connection the same bytes, or no bytes."""
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen(64)

    def serve():
        held = []
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            held.append(connection)
            if answer is not None:
                connection.recv(65536)
                connection.sendall(answer)
                connection.close()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        server.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 4\r\n\r\nboom",
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nboom",
        b"",
    ],
)
def test_a_broken_endpoint_is_one_redacted_line(engine, answer):
    with listening(answer) as port, pytest.raises((Unavailable, InvalidInput)) as caught:
        rows(engine, "blocks", RpcPool("broken", (SECRET.format(port=port),)), 0, 3)
    for secret in ("hunter2", "KEY4f3a2b1c", "abcdef123456", "alice"):
        assert secret not in str(caught.value)


def test_the_next_endpoint_of_the_pool_takes_over(engine, pool, chain):
    with listening(b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n") as port:
        both = RpcPool("both", (f"http://127.0.0.1:{port}", pool.urls[0]))
        assert rows(engine, "blocks", both, 0, 10) == 10


def test_an_endpoint_without_the_method_is_passed_over(engine, pool):
    body = b'{"jsonrpc":"2.0","id":0,"error":{"code":-32601,"message":"method not found"}}'
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    with listening(answer) as port:
        both = RpcPool("both", (f"http://127.0.0.1:{port}", pool.urls[0]))
        assert rows(engine, "blocks", both, 0, 10) == 10


def test_what_an_earlier_range_printed_does_not_decide_a_later_failure(pool):
    opened = EmbeddedCryo(workers=1)
    try:
        with pytest.raises(ExtractionFailed, match="does not support"):
            rows(opened, "traces", pool, 0, 10)
        with listening(b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n") as port, pytest.raises(CallFailed) as caught:
            opened._start(request("blocks", RpcPool("broken", (f"http://127.0.0.1:{port}",)), 0, 10))[1].result(30)
        assert "-32601" not in str(caught.value)
        assert "not supported" not in str(caught.value)
    finally:
        opened.close()


class Lines(logging.Handler):
    """Keeps the engine's log lines as (level, event, facts)."""

    def __init__(self):
        super().__init__()
        self.found = []

    def emit(self, record):
        self.found.append((record.levelname, record.getMessage(), facts_of(record)))

    def of(self, event, pid):
        return [(level, facts) for level, name, facts in self.found if name == event and facts["pid"] == pid]

    def wait_for(self, event, pid):
        """Wait for the single line of an event. A thread logs the end of a worker."""
        deadline = time.monotonic() + 10
        while not (found := self.of(event, pid)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(found) == 1, (event, pid, self.found)
        return found[0]


@pytest.fixture
def lines():
    handler, logger = Lines(), logging.getLogger("trace_dagster.engine")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_the_start_and_the_end_of_a_worker_are_logged(pool, lines):
    opened = EmbeddedCryo(workers=1)
    rows(opened, "blocks", pool, 0, 2)
    (pid,) = opened.pids()
    assert lines.wait_for("worker_started", pid) == ("INFO", {"pid": pid})
    assert lines.of("worker_ended", pid) == []
    opened.close()
    assert lines.wait_for("worker_ended", pid) == ("INFO", {"pid": pid, "reason": "closed", "calls": 0})


def test_a_worker_that_dies_during_a_call_is_logged_with_its_signal(lines):
    opened = EmbeddedCryo(workers=1)
    try:
        with listening(None) as port:
            silent = RpcPool("silent", (f"http://127.0.0.1:{port}",))
            future = opened._start(request("blocks", silent, 0, 3))[1]
            (pid,) = opened.pids()
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(WorkerGone):
                future.result(30)
        assert lines.wait_for("worker_ended", pid) == ("WARNING", {"pid": pid, "reason": "signal_9", "calls": 1})
    finally:
        opened.close()


def test_a_stalled_worker_is_logged_with_the_call_that_stalled(lines):
    opened = EmbeddedCryo(workers=1, stall_seconds=1.0)
    try:
        with listening(None) as port:
            silent = RpcPool("silent", (f"http://127.0.0.1:{port}",))
            with pytest.raises(NoAnswer, match="silent#1 stalled"):
                opened.extract(request("blocks", silent, 0, 3))
        (pid,) = [facts["pid"] for _, event, facts in lines.found if event == "worker_started"]
        assert lines.wait_for("worker_killed", pid) == (
            "WARNING",
            {"pid": pid, "reason": "stalled", "endpoint": "silent#1", "block_range": BlockRange(0, 3), "seconds": 1.0},
        )
        assert lines.wait_for("worker_ended", pid) == ("INFO", {"pid": pid, "reason": "stalled", "calls": 1})
    finally:
        opened.close()


def test_an_endpoint_that_never_answers_is_given_up_and_its_worker_replaced(pool):
    opened = EmbeddedCryo(workers=1, stall_seconds=4.0)
    try:
        with listening(None) as port:
            dead = RpcPool("dead", (f"http://127.0.0.1:{port}",))
            started = time.monotonic()
            with pytest.raises(Unavailable, match=r"stalled|does not answer"):
                rows(opened, "blocks", dead, 0, 3)
        assert time.monotonic() - started < 30
        assert rows(opened, "blocks", pool, 0, 10) == 10
    finally:
        opened.close()


def test_a_killed_worker_loses_nothing(pool, chain):
    opened = EmbeddedCryo(workers=1)
    try:
        pieces = iter(Extractor(opened, piece_blocks=20).start(whole("transactions", pool)))
        found = next(pieces).table.num_rows
        os.kill(opened.pids()[0], signal.SIGKILL)
        assert found + sum(piece.table.num_rows for piece in pieces) == chain.rows("transactions", 0, 200)
    finally:
        opened.close()


def test_the_url_is_in_no_argv_and_no_environment(engine, pool):
    rows(engine, "blocks", pool, 0, 2)
    for pid in engine.pids():
        process = psutil.Process(pid)
        shown = " ".join(process.cmdline()) + " ".join(process.environ().values())
        assert pool.urls[0] not in shown


def test_closing_ends_every_process_and_closing_early_is_fine(pool):
    opened = EmbeddedCryo()
    pieces = Extractor(opened, piece_blocks=64).start(whole("logs", pool))
    next(iter(pieces))
    pieces.close()
    pids = opened.pids()
    assert pids
    opened.close()
    opened.close()
    assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)


def test_a_worker_ends_when_its_parent_dies(pool):
    code = (
        "import sys, time; from trace_dagster.engine.workers import Worker;"
        " print(Worker().pid, flush=True); time.sleep(60)"
    )
    import subprocess

    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    worker = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert psutil.wait_procs([worker], timeout=10)[1] == []


CLI = """#!{python}
import shlex, sys
if "--version" in sys.argv:
    print("cryo 0.3.2"); sys.exit(0)
import asyncio, os
from cryo import _cryo_rust
async def run():
    await _cryo_rust._freeze(command=shlex.join(["cryo", "--rpc", os.environ["ETH_RPC_URL"], *sys.argv[1:]]))
asyncio.run(run())
sys.stdout.flush(); os._exit(0)
"""


@pytest.fixture
def binary(tmp_path) -> Path:
    """Write a program that runs Cryo's command line from its wheel."""
    path = tmp_path / "cryo"
    path.write_text(CLI.format(python=sys.executable))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize("name", ["blocks", "logs"])
def test_a_binary_gives_the_same_rows_as_the_embedded_engine(engine, pool, binary, tmp_path, name):
    opened = CryoBinary(binary, tmp_path / "staging")
    wanted = request(name, pool, 0, 60)
    assert opened.extract(wanted) == engine.extract(wanted)
    assert opened.version == "0.3.2"
    assert list((tmp_path / "staging").iterdir()) == []


def test_staging_left_by_a_crash_is_swept(tmp_path):
    old, young = tmp_path / "old", tmp_path / "young"
    old.mkdir()
    young.mkdir()
    os.utime(old, (0, 0))
    sweep(tmp_path, older_than_seconds=3600)
    assert [path.name for path in tmp_path.iterdir()] == ["young"]


@pytest.mark.parametrize("name", sorted(catalogue()))
def test_the_fake_has_the_engines_schema(pool, name):
    wanted = request(name, pool, 0, 30, tuple(dataset(name).all_columns))
    assert FakeCryo().extract(wanted).schema == wanted.schema


@pytest.mark.parametrize("name", DATASETS)
def test_the_catalogues_schema_is_the_engines_own(engine, pool, name):
    """The engine's own schema of the default columns is that of the catalogue."""
    wanted = request(name, pool, 3, 6, dataset(name).default_columns)
    assert engine.extract(wanted).schema == wanted.schema


def test_the_mode_must_be_known_and_a_binary_must_exist(tmp_path):
    with pytest.raises(InvalidInput, match="must be real or fake, not 'reel'; did you mean 'real'"):
        selected_engine(**Settings.read({"TRACE_CRYO_MODE": "reel"}).engine.selection)
    with pytest.raises(InvalidInput, match="TRACE_CRYO_BIN is not an executable file"):
        selected_engine(**Settings.read({"TRACE_CRYO_BIN": str(tmp_path / "absent")}).engine.selection)
    assert selected_engine(**Settings.read({"TRACE_CRYO_MODE": "fake"}).engine.selection).name == "fake"


def test_a_pool_of_another_chain_is_refused(pool):
    with pytest.raises(InvalidInput, match="serves chain 20143, the job wants chain 143"):
        require_chain(pool, 143)
