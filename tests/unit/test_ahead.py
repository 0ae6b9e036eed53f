"""A generator that a thread runs ahead: order, bound, errors, and an end when nobody reads on."""

from __future__ import annotations

import threading

import pyarrow as pa
import pytest

from trace_dagster.compaction.ahead import ahead
from trace_dagster.compaction.aside import Aside


def test_items_come_in_order():
    assert list(ahead((number for number in range(100)), 3)) == list(range(100))


def test_the_thread_is_never_further_ahead_than_its_bound():
    made = []

    def items():
        for number in range(20):
            made.append(number)
            yield number

    found = ahead(items(), 2)
    for number in range(20):
        assert next(found) == number
        assert len(made) <= number + 4  # read, in the queue, and one that waits for room


def test_an_error_is_raised_after_the_items_before_it():
    def items():
        yield 1
        raise ValueError("broken")

    found = ahead(items(), 2)
    assert next(found) == 1
    with pytest.raises(ValueError, match="broken"):
        next(found)


def test_the_thread_ends_with_its_reader():
    closed = threading.Event()

    def items():
        try:
            while True:
                yield 1
        finally:
            closed.set()

    before = threading.active_count()
    found = ahead(items(), 1)
    next(found)
    found.close()
    assert threading.active_count() == before
    assert closed.is_set()


class Sink:
    """Collects numbers of rows, and fails at tables without rows."""

    def __init__(self):
        self.taken = []

    def add(self, table):
        if not table.num_rows:
            raise ValueError("no rows")
        self.taken.append(table.num_rows)


def test_a_sink_aside_gets_all_rows_in_order():
    sink = Sink()
    aside = Aside(sink)
    for rows in range(1, 20):
        aside.add(pa.table({"n": list(range(rows))}))
    aside.finish()
    assert sink.taken == list(range(1, 20))
    aside.close()


def test_the_error_of_a_sink_aside_is_raised_by_the_next_call():
    aside = Aside(Sink())
    aside.add(pa.table({"n": pa.array([], pa.int64())}))
    with pytest.raises(ValueError, match="no rows"):
        aside.finish()
    aside.close()
