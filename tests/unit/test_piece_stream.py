"""A stream of pieces keeps its look-ahead while it waits, and after it is closed none of its calls still runs."""

import threading
import time

import pyarrow as pa
import pytest

from trace_dagster.blocks import BlockRange, cells
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.engine.fake import FakeCryo
from trace_dagster.errors import Unavailable
from trace_dagster.extraction.extractor import Extractor
from trace_dagster.extraction.piece_stream import LOOK_AHEAD
from trace_dagster.extraction.request import RangeRequest
from trace_dagster.rpc.pools import RpcPool

STREAMS = 16
PIECE_BLOCKS = 10
RANGE_BLOCKS = 20 * PIECE_BLOCKS
POOL = RpcPool("dev", ("http://127.0.0.1:1",))


class CountingCryo(FakeCryo):
    """The fake engine. It counts its calls, and returns from them while ``may_return`` is set."""

    def __init__(self):
        self.calls = 0
        self.under_way = 0
        self.may_return = threading.Event()
        self.may_return.set()
        self._lock = threading.Lock()

    def extract(self, request):
        with self._lock:
            self.calls += 1
            self.under_way += 1
        try:
            assert self.may_return.wait(30)
            return super().extract(request)
        finally:
            with self._lock:
                self.under_way -= 1


@pytest.fixture
def engine():
    return CountingCryo()


@pytest.fixture
def extractor(engine):
    made = Extractor(engine, piece_blocks=PIECE_BLOCKS)
    yield made
    engine.may_return.set()
    made.close()


def request(name="transactions", block_range=BlockRange(0, RANGE_BLOCKS)):  # noqa: B008  (immutable)
    known = dataset(name)
    return RangeRequest(known, block_range, 1, known.stored_columns(), "structural", POOL, None)


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_streams_that_wait_hold_their_look_ahead_and_then_give_the_rows_of_one_by_one(engine, extractor):
    ranges = list(cells(BlockRange(0, STREAMS * RANGE_BLOCKS), RANGE_BLOCKS))
    streams = [extractor.start(request(block_range=each)) for each in ranges]
    wait_until(lambda: engine.calls == STREAMS * LOOK_AHEAD and engine.under_way == 0)
    time.sleep(0.2)  # if the stream started one piece too many, its call would have started by now
    waiting = pa.total_allocated_bytes()
    time.sleep(0.2)
    assert engine.calls == STREAMS * LOOK_AHEAD
    assert pa.total_allocated_bytes() == waiting
    drained = [pa.concat_tables(piece.table for piece in stream) for stream in streams]
    assert engine.calls == STREAMS * RANGE_BLOCKS // PIECE_BLOCKS
    for each, table in zip(ranges, drained, strict=True):
        alone = Extractor(FakeCryo(), piece_blocks=RANGE_BLOCKS)
        expected = pa.concat_tables(piece.table for piece in alone.start(request(block_range=each)))
        alone.close()
        assert table.num_rows > 0
        assert table.combine_chunks() == expected.combine_chunks()


def test_a_stream_closed_before_it_is_drained_starts_no_further_call(engine, extractor):
    engine.may_return.clear()
    stream = extractor.start(request())
    wait_until(lambda: engine.under_way == LOOK_AHEAD)
    stream.close()
    stream.close()  # closing a second time has no effect
    engine.may_return.set()
    wait_until(lambda: engine.under_way == 0)
    with pytest.raises(Unavailable, match="extraction was stopped"):
        list(stream)
    assert engine.calls == LOOK_AHEAD


def test_another_thread_may_close_a_stream_while_it_is_drained(engine, extractor):
    stream = extractor.start(request())
    pieces = iter(stream)
    next(pieces)
    closing = threading.Thread(target=stream.close)
    closing.start()
    closing.join()
    with pytest.raises(Unavailable, match="extraction was stopped"):
        list(pieces)
    wait_until(lambda: engine.under_way == 0)
    calls = engine.calls
    time.sleep(0.1)
    assert engine.calls == calls <= LOOK_AHEAD + 1


def test_a_consumer_that_stops_early_closes_its_stream(engine, extractor):
    pieces = iter(extractor.start(request()))
    next(pieces)
    pieces.close()
    wait_until(lambda: engine.under_way == 0)
    calls = engine.calls
    time.sleep(0.1)
    assert engine.calls == calls <= LOOK_AHEAD + 1
